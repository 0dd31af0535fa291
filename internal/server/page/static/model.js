// What is known: containers and their open endpoints, kept true by events.
//
// Invariants: an event is applied at once and costs its own container only;
// what has to be drawn anew is collected in `dirty`. Lists from the server
// replace the state; events that arrived since the list was asked for are
// applied again after it, which is harmless: opening what is open and closing
// what is closed change nothing.

import { rowsOf } from './rows.js';

// ghostLimit bounds the rows that stay for a moment after their port closed.
const ghostLimit = 100;
export const ghostTime = 4000; // milliseconds

// hostKey stands for the host itself, whose sockets belong to no container.
const hostKey = '';

export class Model {
  entries = new Map(); // by container id
  dirty = new Set(); // container ids
  unknown = false; // an event named a container that the list does not have
  offset = 0; // server's clock less this one's, milliseconds
  #log = null; // events since a list of ports was asked for
  #ghosts = 0;

  now() {
    return Date.now() + this.offset;
  }

  apply(event) {
    this.#log?.push(event);
    if (event.type === 'gap' || event.type === 'burst') return; // neither changes what is open
    const entry = this.#entryOf(event.container);
    const key = `${event.protocol} ${event.port} ${event.address}`;
    // A transient is over when it is told.
    if (event.type === 'closed') this.#close(entry, key, event);
    else if (!event.transient) this.#open(entry, key, event);
  }

  #open(entry, key, event) {
    const before = entry.endpoints.get(key);
    entry.endpoints.set(key, {
      ...event,
      opened_at: event.opened_at ?? (event.type === 'changed' ? before?.opened_at : undefined) ?? event.time,
      fresh: before ? before.fresh : performance.now(),
    });
    this.#dropGhost(entry, key);
    this.#touch(entry);
  }

  #close(entry, key, event) {
    const open = entry.endpoints.get(key);
    if (!open) return;
    entry.endpoints.delete(key);
    if (this.#ghosts < ghostLimit) {
      this.#dropGhost(entry, key);
      entry.ghosts.set(key, { ...open, closed_at: event.time, gone: performance.now() + ghostTime });
      this.#ghosts++;
    }
    this.#touch(entry);
  }

  // sweep removes the rows whose moment is over.
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

  // record begins to remember events, until setPorts or the next record.
  record() {
    this.#log = [];
  }

  // setPorts takes the answer of /ports that was asked for after record.
  setPorts({ time, ports }) {
    const log = this.#log ?? [];
    this.#log = null;
    this.offset = new Date(time).getTime() - Date.now();
    const seen = new Map();
    for (const open of ports) {
      const entry = this.#entryOf(open.container);
      let endpoints = seen.get(entry);
      if (!endpoints) seen.set(entry, endpoints = new Map());
      endpoints.set(`${open.protocol} ${open.port} ${open.address}`, open);
    }
    for (const entry of this.entries.values()) {
      const endpoints = seen.get(entry) ?? new Map();
      if (entry.endpoints.size === 0 && endpoints.size === 0) continue;
      entry.endpoints = endpoints;
      this.#touch(entry);
    }
    for (const event of log) this.apply(event);
  }

  // setContainers takes the answer of /containers.
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
      const info = container ?? { id, name: 'the host itself', monitored: true };
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

  // settle makes the rows of the dirty entries, forgets those that are over,
  // and returns the ids that changed.
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

  // totals are the counters of the header.
  totals() {
    const sum = { containers: 0, unwatched: 0, open: 0, outside: 0, silent: 0, undeclared: 0 };
    for (const entry of this.entries.values()) {
      if (entry.info.monitored) sum.containers++;
      else sum.unwatched++;
      for (const row of entry.rows) {
        if (row.state === 'open') {
          sum.open++;
          if (row.outside) sum.outside++;
          if (row.undeclared) sum.undeclared++;
        } else if (row.silent) {
          sum.silent++;
        }
      }
    }
    return sum;
  }
}
