// Text from containers, made safe to be shown: what shows nothing itself may change how the
// text around it is shown, such as the order of the digits of a pid.

const marks = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const anyMark = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\\u/u; // also escaped in JSON
const rightToLeft = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const [isolate, endIsolate] = ['\u2068', '\u2069'];

const escaped = (mark) => [...Array(mark.length).keys()].map((i) => `\\u${mark.charCodeAt(i).toString(16).padStart(4, '0')}`).join('');

// visible writes direction marks and control characters as \u202e, and isolates text of scripts
// that are written from right to left, as <bdi> does. See isolated.
export function visible(text) {
  return isolated(text.replace(marks, escaped));
}

// isolated isolates visible text of scripts that are written from right to left, and bare
// undoes that.
export const isolated = (text) => (rightToLeft.test(text) ? isolate + text + endIsolate : text);
export const bare = (text) => text.replaceAll(isolate, '').replaceAll(endIsolate, '');

// parseJSON makes each text of an answer visible.
export function parseJSON(text) {
  if (!anyMark.test(text.trim()) && !rightToLeft.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_, value) => (typeof value === 'string' ? visible(value) : value));
}
