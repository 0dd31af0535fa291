// The event stream format, read from chunks of text.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
// EventSource itself cannot send the Authorization header.

// longestMessage bounds what is held of a message that does not end, in UTF-16
// units. An event with hundreds of processes is far below it.
const longestMessage = 4 << 20;

export class Parser {
  #rest = '';
  #first = true;
  #data = [];
  #type = '';
  #id = null;

  // push takes the next chunk and returns the messages that it completed:
  // {type, data, id}, where id is null if the message has none, and
  // {retry} for a retry field.
  push(chunk) {
    const messages = [];
    let text = this.#rest + chunk;
    if (this.#first && text) {
      this.#first = false;
      if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    }
    let from = 0;
    for (;;) {
      const end = lineEnd(text, from);
      if (end < 0) break;
      this.#line(text.slice(from, end), messages);
      from = end + (text[end] === '\r' && text[end + 1] === '\n' ? 2 : 1);
    }
    this.#rest = text.slice(from);
    if (this.#rest.length > longestMessage) throw new Error('a message of the event stream is too long');
    return messages;
  }

  #line(line, messages) {
    if (line === '') {
      if (this.#data.length) messages.push({ type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id });
      this.#data = [];
      this.#type = '';
      this.#id = null;
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return; // a comment: the heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#type = value;
    else if (field === 'id') this.#id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) messages.push({ retry: Number(value) });
  }
}

// lineEnd finds the next CR, LF or CRLF. A CR at the very end is left for the
// next chunk, which may begin with its LF.
function lineEnd(text, from) {
  for (let i = from; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 10) return i;
    if (c === 13) return i + 1 < text.length ? i : -1;
  }
  return -1;
}
