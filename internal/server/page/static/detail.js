// The details of one container or one of its ports: a dialog with its own URL.

import { h, place } from './dom.js';
import { mayBeOf } from './filters.js';
import { clock, count, isLoopback } from './format.js';
import { eventRow } from './event.js';
import { explainer } from './explain.js';
import { hostName } from './model.js';
import { intervalsOf, intervalTable, processesOf, processTable, strip } from './intervals.js';
import { rowTable, RowView } from './row.js';

const pageSize = 100;
const mostEvents = 1000; // kept and shown

export class Detail {
  #subject = null; // {container, port}
  #ids = new Set(); // of the containers that have or had this name
  #events = []; // newest first
  #rows = new Map();
  #next = true; // there are older ones
  #loading = null;
  #fault = '';
  #ports = new Map(); // RowView by key
  #blocks = {};
  #signatures = new Map();

  // load(params, signal) asks /events, explain(params) /explain; closed() is called
  // when it was closed by the person; hrefs as in PortsView, and event(container, port).
  constructor(dialog, { load, explain, closed, changed, hrefs }) {
    Object.assign(this, { dialog, load, explain, changed, hrefs });
    // cancel is Esc. The URL decides what is shown, so it is changed first.
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      closed();
    });
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) closed();
    });
    this.closed = closed;
  }

  get open() {
    return this.#subject !== null;
  }

  // show opens, changes or (with an empty container) closes the details.
  show(container, port) {
    if (!container) {
      this.#loading?.abort();
      this.#subject = null;
      if (this.dialog.open) this.dialog.close();
      return;
    }
    if (this.#subject?.container === container && this.#subject.port === port) return;
    this.#subject = { container, port };
    this.#ids = new Set();
    this.#make();
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.dialog.querySelector('h2').focus();
    this.reload();
  }

  #make() {
    const { container, port } = this.#subject;
    this.#ports = new Map();
    this.#signatures = new Map();
    const back = port && h('p', { class: 'back' }, 'in ', h('a', { href: this.hrefs.event({ name: container }, ''), 'data-detail': true }, container));
    const blocks = Object.fromEntries(['state', 'facts', 'ports', 'why', 'intervals', 'processes'].map((name) => [name, h('div', { class: name })]));
    blocks.list = h('ol', { class: 'events' , 'aria-label': 'History, newest first' });
    blocks.older = h('button', { type: 'button', on: { click: () => this.#more() } }, 'Load older events');
    blocks.reach = h('span', { role: 'status' });
    if (port) blocks.why.append(...explainer(this.explain, `${container}:${port}`));
    this.#blocks = blocks;
    this.dialog.replaceChildren(h('div', { class: 'sheet' },
      h('div', { class: 'bar' }, h('h2', { id: 'detail-title', tabindex: '-1' }, port || container), back,
        h('button', { type: 'button', class: 'close', 'aria-label': 'Close the details', on: { click: () => this.closed() } }, '✕')),
      blocks.state, blocks.facts, blocks.ports, blocks.why, blocks.intervals, blocks.processes,
      h('section', { class: 'history' }, h('h3', null, 'History'), blocks.list, h('div', { class: 'more' }, blocks.reach, blocks.older))));
  }

  // reload reads the newest page of the history anew.
  reload() {
    if (!this.#subject) return;
    this.#loading?.abort();
    this.#loading = null;
    this.#events = [];
    this.#rows = new Map();
    this.#next = true;
    this.#more();
  }

  async #more() {
    if (this.#loading || !this.#next) return;
    const { container, port } = this.#subject;
    const loading = new AbortController();
    this.#loading = loading;
    this.#fault = '';
    this.changed();
    try {
      const before = this.#events.at(-1)?.id ?? '';
      const { events, next } = await this.load({ container, port, before, limit: pageSize }, loading.signal);
      if (loading.signal.aborted) return;
      this.#merge(events);
      this.#next = Boolean(next) && events.length > 0;
    } catch (fault) {
      if (loading.signal.aborted) return;
      this.#fault = `The history could not be loaded: ${fault.message}`;
    }
    this.#loading = null;
    this.changed();
  }

  #merge(events) {
    for (const { container } of events) {
      if (container && container.name === this.#subject.container) this.#ids.add(container.id);
    }
    const have = new Set(this.#events.map((event) => event.id));
    const own = events.filter((event) => !have.has(event.id) && this.#concerns(event));
    if (!own.length) return;
    this.#events = [...this.#events, ...own].sort((a, b) => b.id - a.id);
    if (this.#events.length > mostEvents) {
      this.#events.length = mostEvents;
      this.#next = true;
    }
  }

  #concerns(event) {
    const { type, container } = event;
    if (type === 'gap' && !container) return true;
    // A container that was renamed has events under its earlier name.
    if ((container?.name ?? hostName) !== this.#subject.container && !this.#ids.has(container?.id)) return false;
    return type === 'gap' || !this.#subject.port || mayBeOf(event, this.#subject.port);
  }

  // add takes live events.
  add(events) {
    if (this.#subject) this.#merge(events);
  }

  draw(model) {
    if (!this.#subject) return;
    const { container, port } = this.#subject;
    const entry = model.byName(container);
    if (entry && !this.#ids.has(entry.id)) { // events under an earlier name were left out
      this.#ids.add(entry.id);
      this.reload();
    }
    const rows = (entry?.rows ?? []).filter((row) => !port || port === `${row.port}/${row.protocol}`);
    this.#block('state', [Boolean(entry), rows.map((row) => row.state), port], () => stateOf(entry, rows, port));
    this.#block('facts', [entry?.info, port], () => (entry && !port ? factsOf(entry.info) : []));
    this.#drawPorts(entry, rows);
    if (port) this.#drawPort(entry, model);
    this.#drawHistory();
  }

  #drawPorts(entry, rows) {
    const views = new Map();
    for (const row of rows) {
      const view = this.#ports.get(row.key) ?? detailRow();
      view.draw(row, this.hrefs.port(entry, row));
      views.set(row.key, view);
    }
    this.#ports = views;
    if (!this.table) this.table = rowTable(h('tbody', { role: 'rowgroup' }));
    place(this.table.tBodies[0], [...views.values()].map((view) => view.element));
    place(this.#blocks.ports, rows.length ? [this.table] : []);
  }

  #drawPort(entry, model) {
    const { port } = this.#subject;
    const open = [...(entry?.endpoints.values() ?? [])].filter((endpoint) => `${endpoint.port}/${endpoint.protocol}` === port);
    // The minute is part of it, so that the line and the durations move on.
    const key = [this.#events[0]?.id, this.#events.length, open.map((endpoint) => [endpoint.address, endpoint.opened_at, endpoint.processes])];
    const now = model.now();
    this.#block('intervals', [...key, Math.floor(now / 60_000)], () => {
      const intervals = intervalsOf(open, this.#events);
      if (!intervals.length) return [];
      return [h('h3', null, 'When it was open'), strip(intervals, now), scroller('When it was open', intervalTable(intervals, now))];
    });
    this.#block('processes', key, () => {
      const processes = processesOf(open, this.#events);
      return processes.length ? [h('h3', null, 'Processes'), scroller('Processes', processTable(processes))] : [];
    });
  }

  // block makes a part anew when what it shows has changed.
  #block(name, shown, make) {
    const signature = JSON.stringify(shown);
    if (this.#signatures.get(name) === signature) return;
    this.#signatures.set(name, signature);
    this.#blocks[name].replaceChildren(...make());
  }

  #drawHistory() {
    const rows = new Map();
    for (const event of this.#events) {
      rows.set(event.id, this.#rows.get(event.id) ?? focusable(eventRow(event, this.hrefs.event, true)));
    }
    this.#rows = rows;
    const { list, older, reach } = this.#blocks;
    place(list, [...rows.values()]);
    older.hidden = !this.#next || this.#events.length >= mostEvents;
    older.disabled = this.#loading !== null;
    let text = '';
    if (this.#fault) text = this.#fault;
    else if (this.#loading) text = 'Loading';
    else if (this.#events.length >= mostEvents) text = `${count(mostEvents, 'event')} are shown; portwatcher events has the rest.`;
    else if (!this.#next) text = this.#events.length ? 'That is all that was kept.' : 'No event was kept.';
    if (reach.textContent !== text) reach.textContent = text;
  }

  tick(now) {
    for (const view of this.#ports.values()) view.tick(now);
  }
}

function stateOf(entry, rows, port) {
  const open = rows.filter((row) => row.state === 'open');
  if (!entry) return [h('p', null, 'No running container has this name. Its history follows.')];
  if (!port) return [];
  if (!open.length) return [h('p', null, rows.some((row) => row.silent) ? 'Published, and nobody listens.' : 'Not open.')];
  const local = open.every((row) => row.addresses.every(isLoopback));
  return [h('p', null, local ? 'Open, on loopback only.' : 'Open.')];
}

function factsOf(info) {
  const facts = {
    Image: info.image, Project: info.project, Service: info.service, Network: info.network_mode,
    Addresses: info.addresses?.join(', '), Id: info.id?.slice(0, 12), Namespace: info.namespace, Source: info.source,
    'Last scan': info.last_scan_at && clock(info.last_scan_at),
  };
  const shown = Object.entries(facts).filter(([, value]) => value);
  return [h('dl', null, ...shown.flatMap(([name, value]) => [h('dt', null, name), h('dd', null, value)]))];
}

function detailRow() {
  const view = new RowView();
  focusable(view.element);
  return view;
}

// focusable puts the links in the tab order: the details have no arrow keys.
function focusable(element) {
  for (const link of element.querySelectorAll('a[data-nav]')) link.tabIndex = 0;
  return element;
}

function scroller(label, table) {
  return h('div', { class: 'scroller', tabindex: '0', role: 'region', 'aria-label': label }, table);
}

