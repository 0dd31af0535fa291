// The time line: events, newest first, in a list that stays bounded.

import { place, roving, setText } from './dom.js';
import { count, second } from './format.js';
import { matchEvent, query, words } from './filters.js';
import { eventRow } from './event.js';

const liveRows = 500; // in the document while events come in
const mostRows = 2000; // with older pages loaded on demand
const pageSize = 200;
const typingPause = 250; // milliseconds without a change before the server is asked
const pagesAtOnce = 5; // read for one press of the button

export class Timeline {
  #list = [];
  #rows = new Map(); // by event id
  #filter = null;
  #terms = [];
  #key = '';
  #oldest = Infinity; // id: everything from here on was read
  #complete = false; // there is nothing older
  #limit = liveRows;
  #loading = null;
  #held = 0; // came while paused: the first of the list, not shown
  #missed = false; // more came while paused than are held
  #reached = null; // time of the oldest event that was read
  #failed = '';
  #arrivals = [];
  #typing = null;
  #settleFocus;
  paused = false;

  // parts: list, scroll, older, reach, pause, rate. load(params) asks /events;
  // changed() asks for a draw.
  constructor(parts, { load, changed, href }) {
    Object.assign(this, { parts, load, changed, href });
    this.#settleFocus = roving(parts.list);
    parts.older.addEventListener('click', () => this.more());
    parts.pause.addEventListener('click', () => this.setPaused(!this.paused));
  }

  setPaused(paused) {
    this.paused = paused;
    this.#held = 0;
    if (this.#missed) this.reload();
    this.parts.pause.setAttribute('aria-pressed', String(paused));
    if (!paused) this.parts.scroll.scrollTop = 0;
    this.changed();
  }

  // setFilter keeps the events that match and requests the others.
  setFilter(filter) {
    const key = JSON.stringify([query(filter), filter.q, filter.project]);
    this.#filter = filter;
    this.#terms = words(filter);
    if (key === this.#key) return;
    const first = this.#key === '';
    this.#key = key;
    this.#list = this.#list.filter((event) => matchEvent(event, filter, this.#terms));
    this.#held = 0;
    this.changed();
    clearTimeout(this.#typing);
    if (!first) this.#typing = setTimeout(() => this.reload(), typingPause);
  }

  // reload requests the newest page again, and keeps the events that the stream
  // brings in the meantime.
  reload() {
    this.#loading?.abort();
    this.#loading = null;
    this.#limit = liveRows;
    this.#oldest = Infinity;
    this.#reached = null;
    this.#complete = false;
    this.#missed = false;
    this.changed();
    return this.#fill(1);
  }

  more() {
    this.#limit = Math.min(this.#limit + pageSize, mostRows);
    return this.#fill(pageSize / 4);
  }

  // fill reads older pages until enough events match.
  async #fill(enough) {
    if (this.#loading || this.#complete) return;
    const loading = new AbortController();
    this.#loading = loading;
    this.changed();
    let failed = '';
    try {
      const goal = this.#list.length + enough;
      for (let page = 0; page < pagesAtOnce && !this.#complete && this.#list.length < goal; page++) {
        const answer = await this.load({ ...query(this.#filter), before: this.#oldest === Infinity ? '' : this.#oldest, limit: pageSize }, loading.signal);
        if (loading.signal.aborted) return;
        this.#take(answer);
      }
    } catch (fault) {
      if (loading.signal.aborted) return;
      failed = `Older events could not be loaded: ${fault.message}`;
    }
    this.#loading = null;
    this.#failed = failed;
    this.changed();
  }

  #take({ events, next }) {
    if (events.length) {
      // Between the first page and what was kept of before there may be a hole.
      if (this.#oldest === Infinity && next) this.#list = this.#list.filter((event) => event.id >= events[0].id);
      if (events[0].id < this.#oldest) this.#reached = events[0].time;
      this.#oldest = Math.min(this.#oldest, events[0].id);
    }
    const have = new Set(this.#list.map((event) => event.id));
    const fitting = events.filter((event) => !have.has(event.id) && matchEvent(event, this.#filter, this.#terms));
    this.#list = [...this.#list, ...fitting].sort((a, b) => b.id - a.id);
    this.#complete = !next || events.length === 0;
  }

  // add takes live events, in rising order.
  add(events) {
    this.#arrivals.push([performance.now(), events.length]);
    const fitting = events.filter((event) => matchEvent(event, this.#filter, this.#terms));
    if (this.paused && this.#held + fitting.length > mostRows) {
      this.#missed = true;
      return;
    }
    if (this.paused) this.#held += fitting.length;
    this.#list.unshift(...fitting.reverse());
    if (!this.paused) this.#trim();
  }

  #trim() {
    if (this.#list.length <= this.#limit) return;
    this.#list.length = this.#limit;
    this.#oldest = this.#list.at(-1).id;
    this.#reached = this.#list.at(-1).time;
    this.#complete = false;
  }

  draw() {
    const held = this.#missed ? `more than ${mostRows}` : this.#held;
    setText(this.parts.pause, this.paused ? `Resume${held ? ` (${held} new)` : ''}` : 'Pause');
    if (!this.paused) this.#trim();
    const shown = this.#list.slice(this.#held);
    const rows = new Map();
    for (const event of shown) rows.set(event.id, this.#rows.get(event.id) ?? eventRow(event, this.href));
    this.#rows = rows;
    place(this.parts.list, [...rows.values()]);
    this.#drawEnd(shown.length > 0);
    this.#settleFocus();
  }

  #drawEnd(some) {
    const { older, reach } = this.parts;
    older.disabled = this.#loading !== null;
    older.hidden = this.#complete || this.#list.length >= mostRows;
    setText(older, this.#loading ? 'Loading' : 'Load older events');
    let text = '';
    if (this.#failed) text = this.#failed;
    else if (this.#complete) text = some ? 'That is all that was kept.' : 'No such event was kept.';
    else if (this.#list.length >= mostRows) text = `${count(mostRows, 'event')} are shown; filter to see older ones.`;
    else if (this.#reached) text = `${some ? 'Back' : 'None found back'} to ${second(this.#reached)}.`;
    setText(reach, text);
  }

  // tick shows how many events a second came in, over the last 5 s.
  tick(now = performance.now()) {
    this.#arrivals = this.#arrivals.filter(([at]) => now - at < 5000);
    const sum = this.#arrivals.reduce((n, [, k]) => n + k, 0);
    setText(this.parts.rate, sum >= 10 ? `${Math.round(sum / 5)} a second` : '');
  }
}
