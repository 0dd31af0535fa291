// Text from containers, made safe to be shown: what shows nothing itself may change how the
// text around it is shown, such as the order of the digits of a pid.

const marks = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const anyMark = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\\u/u; // also escaped in JSON
const rightToLeft = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const [isolate, endIsolate] = ['\u2068', '\u2069'];

const escaped = (mark) => [...Array(mark.length).keys()].map((i) => `\\u${mark.charCodeAt(i).toString(16).padStart(4, '0')}`).join('');

// visible writes direction marks and control characters as \u202e, and isolates text of scripts
// that are written from right to left, as <bdi> does.
export function visible(text) {
  const shown = text.replace(marks, escaped);
  return rightToLeft.test(shown) ? isolate + shown + endIsolate : shown;
}

// parseJSON makes each text of an answer visible.
export function parseJSON(text) {
  if (!anyMark.test(text.trim()) && !rightToLeft.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_, value) => (typeof value === 'string' ? visible(value) : value));
}
