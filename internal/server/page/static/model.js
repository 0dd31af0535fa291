// The state: containers and their open endpoints, folded from events and lists.
//
// Invariants: an event is applied at once and costs its own container only; `dirty` has the
// containers to draw. Lists from the server replace the state; the events since the list was
// requested are applied again after it. That changes nothing where the list contains their
// effect already, because fold ignores what is older than the endpoint.
//
// model.OpenSet does the same in Go; one table of cases tests both
// (internal/model/testdata/openset.json).

import { rowsOf } from './rows.js';

// ghostLimit bounds the rows that stay for a moment after their port closed.
const ghostLimit = 100;
export const ghostTime = 4000; // milliseconds

// hostKey stands for the host itself, whose sockets belong to no container.
const hostKey = '';
export const hostName = '(host)'; // as everywhere that takes the name of a container

// after compares two times of the API, which are in UTC and to the nanosecond.
const after = (a, b) => a.replace('Z', '') > b.replace('Z', '');

// fold returns an endpoint as it is after an event, or null where it is not open. known is the
// endpoint before it, or undefined; it is returned itself where the event changes nothing.
function fold(known, event) {
  if (event.transient) return known;
  switch (event.type) {
    case 'opened':
      return known && after(known.opened_at, event.time) ? known : { ...event, opened_at: event.time, drift_since: driftSince(known, event) };
    case 'changed':
      // The source of a change of who can reach it is not that of the endpoint.
      return {
        ...event, source: event.change !== 'process' && known ? known.source : event.source,
        opened_at: known?.opened_at ?? event.time, drift_since: driftSince(known, event),
      };
    case 'closed':
      return known && after(known.opened_at, event.time) && after(known.opened_at, event.opened_at ?? '') ? known : null;
  }
  if (event.type !== 'drift' || !known || (known.drift === event.drift && !event.ended) || after(known.opened_at, event.time)) return known;
  return { ...known, drift: event.ended ? undefined : event.drift, drift_since: driftSince(known, event), expected: event.expected };
}

// driftSince is when the drift after an event began, or undefined where there is none.
function driftSince(known, event) {
  if (!event.drift || event.ended) return undefined;
  return known?.drift === event.drift && known.exposure === event.exposure ? known.drift_since : event.time;
}

const keyOf = ({ protocol, port, address, namespace = '' }) => `${protocol} ${port} ${address} ${namespace}`;

export class Model {
  entries = new Map(); // by container id
  dirty = new Set(); // container ids
  unknown = false; // an event named a container that the list does not have
  offset = 0; // server's clock less this one's, milliseconds
  #since = null; // the events since a list of ports was requested
  #ghosts = 0;

  now() {
    return Date.now() + this.offset;
  }

  apply(event) {
    this.#since?.push(event);
    if (event.type === 'gap' || event.type === 'burst') return; // neither changes what is open
    if (event.type === 'drift' && !event.address) return; // nor does a port that is missing
    const entry = this.#entryOf(event.container);
    const key = keyOf(event);
    const known = entry.endpoints.get(key);
    const next = fold(known, event);
    if (next === known || (!next && !known)) return;
    if (next) {
      entry.endpoints.set(key, { ...next, fresh: known ? known.fresh : performance.now() });
      this.#dropGhost(entry, key);
    } else {
      entry.endpoints.delete(key);
      this.#addGhost(entry, key, { ...known, closed_at: event.time, gone: performance.now() + ghostTime });
    }
    this.#touch(entry);
  }

  #addGhost(entry, key, ghost) {
    if (this.#ghosts >= ghostLimit) return;
    this.#dropGhost(entry, key);
    entry.ghosts.set(key, ghost);
    this.#ghosts++;
  }

  // sweep removes the rows that have stayed long enough.
  sweep(now = performance.now()) {
    for (const entry of this.entries.values()) {
      for (const [key, ghost] of entry.ghosts) {
        if (ghost.gone > now) continue;
        this.#dropGhost(entry, key);
        this.#touch(entry);
      }
    }
  }

  #dropGhost(entry, key) {
    if (entry.ghosts.delete(key)) this.#ghosts--;
  }

  // expect marks that a list of ports is requested now.
  expect() {
    this.#since = [];
  }

  // setPorts sets the answer of /ports that was requested after expect.
  setPorts({ time, ports }) {
    const since = this.#since ?? [];
    this.#since = null;
    this.offset = new Date(time).getTime() - Date.now();
    const seen = new Map();
    for (const open of ports) {
      const entry = this.#entryOf(open.container);
      let endpoints = seen.get(entry);
      if (!endpoints) seen.set(entry, endpoints = new Map());
      endpoints.set(keyOf(open), open);
    }
    for (const entry of this.entries.values()) {
      const endpoints = seen.get(entry) ?? new Map();
      if (entry.endpoints.size === 0 && endpoints.size === 0) continue;
      entry.endpoints = endpoints;
      this.#touch(entry);
    }
    for (const event of since) this.apply(event);
  }

  // setContainers sets the answer of /containers.
  setContainers({ containers }) {
    this.unknown = false;
    const listed = new Set();
    for (const info of containers) {
      listed.add(info.id);
      const entry = this.#entryOf(info);
      const text = JSON.stringify(info);
      if (entry.listed && entry.text === text) continue;
      Object.assign(entry, { info, text, listed: true });
      this.#touch(entry);
    }
    for (const [id, entry] of this.entries) {
      if (listed.has(id) || id === hostKey) continue;
      entry.listed = false;
      this.#touch(entry);
    }
  }

  #entryOf(container) {
    const id = container?.id ?? hostKey;
    let entry = this.entries.get(id);
    if (!entry) {
      const info = container ?? { id, name: hostName, monitored: true };
      entry = { id, info: { monitored: true, declared: [], ...info }, listed: id === hostKey, text: '', endpoints: new Map(), ghosts: new Map(), rows: [] };
      this.entries.set(id, entry);
      if (!entry.listed) this.unknown = true;
      this.#touch(entry);
    }
    return entry;
  }

  #touch(entry) {
    this.dirty.add(entry.id);
  }

  // settle makes the rows of the dirty entries, removes entries without any content, and
  // returns the ids that changed.
  settle() {
    const changed = this.dirty;
    this.dirty = new Set();
    for (const id of changed) {
      const entry = this.entries.get(id);
      if (!entry.listed && !this.unknown && entry.endpoints.size === 0 && entry.ghosts.size === 0) this.entries.delete(id);
      else entry.rows = rowsOf(entry);
    }
    return changed;
  }

  // byName finds a container by its whole name.
  byName(name) {
    let found = null;
    for (const entry of this.entries.values()) {
      if (entry.info.name === name && (!found || entry.listed)) found = entry;
    }
    return found;
  }

  // totals returns the counters of the header.
  totals() {
    const sum = { containers: 0, unwatched: 0, open: 0, outside: 0, silent: 0, undeclared: 0, drifting: 0 };
    for (const entry of this.entries.values()) {
      if (entry.info.monitored) sum.containers++;
      else sum.unwatched++;
      for (const row of entry.rows) {
        if (row.state === 'open') {
          sum.open++;
          if (row.outside) sum.outside++;
          if (row.undeclared) sum.undeclared++;
          if (row.drift) sum.drifting++;
        } else if (row.silent) {
          sum.silent++;
        }
      }
    }
    return sum;
  }
}
