// The view "drift": how what is open differs from what is expected, and the lines that would make
// each expected.

import { h, place, setText } from './dom.js';
import { addressText, age, count, exposureKind, isWildcard, processesText, second } from './format.js';
import { matchDrift, words } from './filters.js';
import { badge, driftMark, publishedText } from './row.js';

const everyMost = 60_000; // milliseconds between two requests where nothing happens
const pause = 1000; // between two requests while much does

export class Drift {
  #answer = null; // of /drift
  #past = null; // the periods that have ended; null: not asked for
  #rows = new Map(); // by identity and content
  #asked = -Infinity;
  #due = true;
  #asking = false;
  #fault = '';

  // parts: none, list, pastList, past, count. load(params) asks /drift; changed() asks for a draw;
  // href(container, port) is the URL of the details.
  constructor(parts, { load, changed, href }) {
    Object.assign(this, { parts, load, changed, href });
    parts.past.addEventListener('click', () => this.#loadPast());
  }

  // add takes events: those with a drift, and changes that may end one, have the list read again.
  add(events) {
    this.#due ||= events.some(({ type, drift }) => drift || type === 'changed');
  }

  reload() {
    this.#due = true;
  }

  // askAsDue reads the list again where something has changed, or after a while.
  async askAsDue(now = performance.now()) {
    const since = now - this.#asked;
    if (this.#asking || !(since >= everyMost || (this.#due && since >= pause))) return;
    this.#asking = true;
    this.#due = false;
    this.#asked = now;
    try {
      this.#answer = await this.load({});
      this.#fault = '';
    } catch (fault) {
      this.#due = true;
      this.#fault = `The drifts could not be read: ${fault.message}`;
    }
    this.#asking = false;
    this.changed();
  }

  async #loadPast() {
    this.parts.past.disabled = true;
    try {
      const { history = [] } = await this.load({ since: '7d' });
      this.#past = history.filter(({ ended }) => ended);
      this.#fault = '';
    } catch (fault) {
      this.#fault = `What has ended could not be read: ${fault.message}`;
    }
    this.parts.past.disabled = false;
    this.changed();
  }

  draw(filter, now) {
    const terms = words(filter);
    const drifts = (this.#answer?.drifts ?? []).filter((drift) => matchDrift(drift, filter, terms));
    const past = (this.#past ?? []).filter((drift) => matchDrift(drift, filter, terms));
    const rows = new Map();
    const row = (drift) => {
      const key = JSON.stringify(drift);
      const known = rows.get(key) ?? this.#rows.get(key) ?? new Row(drift, this.href);
      rows.set(key, known);
      known.tick(now);
      return known.element;
    };
    place(this.parts.list, drifts.map(row));
    place(this.parts.pastList, past.map(row));
    this.#rows = rows;
    const all = this.#answer?.drifts.length ?? 0;
    setText(this.parts.count, all ? String(all) : '');
    this.parts.none.hidden = drifts.length > 0 && !this.#fault;
    setText(this.parts.none, this.#text(all));
    if (this.#past) setText(this.parts.past, `${count(this.#past.length, 'drift')} of the last 7 days have ended; read again`);
  }

  #text(all) {
    if (this.#fault) return this.#fault;
    if (!this.#answer) return 'Nothing is loaded yet.';
    if (!this.#answer.expecting) return 'Nothing is expected: there is no file of expectations, and no container has the label portwatcher.expect. "portwatcher expect learn" prints a draft of the file.';
    return all ? 'No drift fits the filters.' : 'What is open is as expected.';
  }

  tick(now) {
    for (const row of this.#rows.values()) row.tick(now);
  }
}

class Row {
  constructor(drift, href) {
    this.since = Date.parse(drift.since);
    this.ended = drift.ended ? Date.parse(drift.ended) : 0;
    this.time = h('span', { class: 'since' });
    const head = h('div', { class: 'head' }, driftMark(drift.drift), subject(drift, href), ...reach(drift), this.time);
    this.element = h('li', { class: `drifting${this.ended ? ' ended' : ''}` }, head, facts(drift), this.ended ? null : entry(drift));
  }

  tick(now) {
    const begin = second(this.since);
    setText(this.time, this.ended ? `from ${begin} to ${second(this.ended)}` : `since ${begin}, ${age((now - this.since) / 1000)}`);
  }
}

function subject(drift, href) {
  const port = drift.port && drift.protocol ? `${drift.port}/${drift.protocol}` : '';
  const text = port ? `${drift.target} ${port}` : drift.target;
  if (!drift.container?.id) return h('span', { class: 'subject' }, text);
  return h('a', { class: 'subject', href: href(drift.container, port), 'data-detail': true }, text);
}

function reach(drift) {
  const nodes = drift.exposure ? [badge(exposureKind(drift))] : [];
  if (drift.published?.length) nodes.push(h('span', { class: 'at-host', title: drift.published.join(', ') }, publishedText(drift.published)));
  return nodes;
}

function facts(drift) {
  const shown = Object.entries({
    Expected: drift.expected,
    Container: drift.container?.name === drift.target ? '' : drift.container?.name,
    Address: drift.address && !isWildcard(drift.address) ? addressText(drift) : '',
    Processes: processesText(drift.processes ?? []),
    Endpoints: drift.endpoints > 1 ? String(drift.endpoints) : '',
  }).filter(([, value]) => value);
  return shown.length ? h('dl', null, ...shown.flatMap(([name, value]) => [h('dt', null, name), h('dd', null, value)])) : null;
}

// entry shows the lines to add to the file, and copies them.
function entry({ entry: lines }) {
  if (!lines) return null;
  const done = h('p', { role: 'status' }, 'Add this below expect: in the file of expectations, if it should be so.');
  const button = h('button', { type: 'button' }, 'Copy');
  const text = h('pre', { tabindex: '0' }, lines);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(lines);
      setText(done, 'Copied.');
    } catch { // the page is not served by HTTPS, or the browser refuses
      getSelection().selectAllChildren(text);
      setText(done, 'Selected: copy it by the keyboard.');
    }
  });
  return h('div', { class: 'entry' }, text, button, done);
}
