// The list of containers by Compose project, each with its rows.

import { h, place, roving, setAttribute, setText } from './dom.js';
import { count } from './format.js';
import { matchEmpty, matchRow, words } from './filters.js';
import { hostKey } from './model.js';
import { rowHeight, rowTable, RowView } from './row.js';

const sectionHeight = 44; // a container's head and margins, pixels

export class PortsView {
  #groups = new Map(); // by project name
  #sections = new Map(); // by container id
  #settleFocus;

  // hrefs: container(entry), port(entry, row) -> the URL of the details.
  constructor(root, hrefs) {
    this.root = root;
    this.hrefs = hrefs;
    this.#settleFocus = roving(root);
  }

  // draw brings the changed entries up to date; with all, every entry.
  draw(model, filter, changed, all) {
    const terms = words(filter);
    const ids = all ? new Set([...changed, ...model.entries.keys()]) : changed;
    let regroup = all;
    for (const id of ids) regroup = this.#drawEntry(model.entries.get(id), id, filter, terms) || regroup;
    if (regroup) this.#place();
    for (const group of this.#groups.values()) {
      if (group.sections.some((section) => ids.has(section.id))) group.drawHead();
    }
    this.#settleFocus();
  }

  // drawEntry reports whether a section was added, removed or moved.
  #drawEntry(entry, id, filter, terms) {
    const rows = entry ? matchingRows(entry, filter, terms) : null;
    let section = this.#sections.get(id);
    if (!rows) return this.#sections.delete(id);
    const isNew = !section;
    if (isNew) this.#sections.set(id, section = new Section(id, this.hrefs));
    const moved = section.draw(entry, rows);
    return isNew || moved;
  }

  #place() {
    const byProject = new Map();
    for (const section of this.#sections.values()) {
      const list = byProject.get(section.project) ?? [];
      list.push(section);
      byProject.set(section.project, list);
    }
    // Containers outside Compose come last.
    const names = [...byProject.keys()].sort((a, b) => (a === '') - (b === '') || a.localeCompare(b));
    for (const name of this.#groups.keys()) {
      if (!byProject.has(name)) this.#groups.delete(name);
    }
    place(this.root, names.map((name) => {
      let group = this.#groups.get(name);
      if (!group) this.#groups.set(name, group = new Group(name));
      group.hold(byProject.get(name));
      return group.element;
    }));
  }

  get shown() {
    return this.#sections.size;
  }

  // tick brings the durations of the sections on screen up to date.
  tick(now) {
    for (const section of this.#sections.values()) section.tick(now);
  }
}

// matchingRows returns the rows to show, or null where the container is not shown.
function matchingRows(entry, filter, terms) {
  if ((filter.state === 'unwatched') === entry.info.monitored) return null;
  const rows = entry.rows.filter((row) => matchRow(row, entry, filter, terms));
  return rows.length || matchEmpty(entry, filter, terms) ? rows : null;
}

class Group {
  constructor(name) {
    this.name = h('span', { class: 'name' }, name || 'Outside Compose');
    this.sums = h('span', { class: 'sums' });
    this.body = h('div');
    this.element = h('section', { class: 'group', 'aria-label': name ? `Project ${name}` : 'Outside Compose' },
      h('h2', null, this.name, this.sums), this.body);
    this.sections = [];
  }

  hold(sections) {
    this.sections = sections.sort((a, b) => a.name.localeCompare(b.name) || (a.id < b.id ? -1 : 1));
    place(this.body, sections.map((section) => section.element));
    this.drawHead();
  }

  drawHead() {
    let open = 0;
    let outside = 0;
    for (const section of this.sections) {
      open += section.open;
      outside += section.outside;
    }
    const containers = this.sections.filter((section) => section.id !== hostKey).length;
    const parts = [containers && count(containers, 'container'), count(open, 'open port')].filter(Boolean);
    if (outside) parts.push(`${outside} from outside`);
    setText(this.sums, parts.join(' · '));
  }
}

class Section {
  #rows = new Map();
  #signature = '';
  #onScreen = true;

  constructor(id, hrefs) {
    this.id = id;
    this.hrefs = hrefs;
    this.title = h('a', { 'data-nav': true, 'data-detail': true, tabindex: '-1' });
    this.facts = h('span', { class: 'facts' });
    this.marks = h('span', { class: 'marks' });
    this.head = h('h3', null, this.title, this.facts, this.marks);
    this.body = h('tbody', { role: 'rowgroup' });
    this.table = rowTable(this.body);
    this.none = h('p', { class: 'none' }, 'Nothing listens.');
    this.element = h('section', { class: 'container' }, this.head);
    // What is off screen is not laid out (content-visibility), and not ticked.
    this.element.addEventListener('contentvisibilityautostatechange', (event) => {
      this.#onScreen = !event.skipped;
    });
  }

  // draw reports whether the section has to move.
  draw(entry, rows) {
    const { info } = entry;
    const moved = this.name !== info.name || this.project !== (info.project ?? '');
    this.name = info.name;
    this.project = info.project ?? '';
    this.#drawHead(entry);
    const views = new Map();
    for (const row of rows) {
      const view = this.#rows.get(row.key) ?? new RowView();
      view.draw(row, this.hrefs.port(entry, row));
      views.set(row.key, view);
    }
    this.#rows = views;
    place(this.body, [...views.values()].map((view) => view.element));
    place(this.element, [this.head, rows.length ? this.table : this.none]);
    this.element.style.containIntrinsicBlockSize = `auto ${sectionHeight + Math.max(1, rows.length) * rowHeight}px`;
    this.open = rows.filter((row) => row.state === 'open').length;
    this.outside = rows.filter((row) => row.state === 'open' && row.outside).length;
    return moved;
  }

  #drawHead(entry) {
    const { info } = entry;
    const gone = !entry.listed && info.image === undefined;
    const signature = JSON.stringify([info.name, info.image, info.service, info.network_mode, info.paused, info.stale, info.monitored, gone]);
    if (signature === this.#signature) return;
    this.#signature = signature;
    setText(this.title, info.name);
    setAttribute(this.title, 'href', this.hrefs.container(entry));
    setAttribute(this.element, 'aria-label', `Container ${info.name}`);
    setText(this.facts, [info.service && info.service !== info.name ? info.service : '', info.image].filter(Boolean).join(' · '));
    this.marks.replaceChildren(...marksOf(info).map(([text, title]) => h('span', { class: 'mark', title }, text)));
  }

  tick(now) {
    if (!this.#onScreen) return;
    for (const view of this.#rows.values()) view.tick(now);
  }
}

function marksOf(info) {
  const marks = [];
  if (info.network_mode === 'host') marks.push(['host network', "It shares the host's network: what listens beyond loopback can be reached from outside."]);
  if (info.network_mode?.startsWith('container:')) marks.push(['shared network', "It shares another container's network."]);
  if (info.paused) marks.push(['paused', 'The container is paused.']);
  if (info.stale) marks.push(['stale', 'The last scan failed: this is the state before it.']);
  if (!info.monitored) marks.push(['not watched', 'The settings leave it out.']);
  return marks;
}
