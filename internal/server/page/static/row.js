// One row: a port of a container.

import { h, setAttribute, setText } from './dom.js';
import { age, clock, ofExposure, processesText, processText } from './format.js';

export const rowHeight = 28; // pixels, as in ports.css

// rowTable is the table that the rows of body stand in. Roles are given because
// on narrow screens the style takes the cells out of the table's layout.
export function rowTable(body) {
  const columns = { port: 'Port', address: 'Address', process: 'Process', reach: 'Reachable from', age: 'Open for' };
  return h('table', { role: 'table', class: 'rows' },
    h('colgroup', null, ...Object.keys(columns).map((name) => h('col', { class: name }))),
    h('thead', { class: 'hidden', role: 'rowgroup' }, h('tr', { role: 'row' },
      ...Object.values(columns).map((text) => h('th', { scope: 'col', role: 'columnheader' }, text)))),
    body);
}

export class RowView {
  #signature = '';
  #opened = 0; // milliseconds since 1970, server's clock

  constructor() {
    this.link = h('a', { 'data-nav': true, 'data-detail': true, tabindex: '-1' });
    this.address = h('td', { role: 'cell', class: 'address' });
    this.process = h('td', { role: 'cell', class: 'process' });
    this.reach = h('td', { role: 'cell', class: 'reach' });
    this.age = h('td', { role: 'cell', class: 'age' });
    this.element = h('tr', { role: 'row' },
      h('th', { role: 'rowheader', scope: 'row', class: 'port' }, this.link), this.address, this.process, this.reach, this.age);
  }

  draw(row, href) {
    const signature = JSON.stringify([row.state, row.kind, row.at, row.processes, row.published, row.forward, row.opened, row.silent, row.undeclared, row.drift]);
    if (signature === this.#signature) return;
    this.#signature = signature;
    setText(this.link, `${row.port}/${row.protocol}`);
    setAttribute(this.link, 'href', href);
    setAttribute(this.element, 'data-state', row.silent ? 'silent' : row.state);
    setAttribute(this.element, 'data-fresh', row.state === 'open' && row.fresh !== undefined);
    setText(this.address, row.at);
    setAttribute(this.address, 'title', row.at);
    this.#drawProcess(row);
    this.reach.replaceChildren(...reachOf(row));
    this.#opened = row.state === 'open' ? Date.parse(row.opened) : 0;
    setAttribute(this.age, 'title', this.#opened ? `since ${clock(this.#opened)}` : null);
    if (row.state === 'closed') setText(this.age, 'closed');
    else if (row.state === 'declared') setText(this.age, '');
  }

  #drawProcess(row) {
    this.process.classList.toggle('quiet', row.processes.length === 0);
    if (row.state === 'declared') {
      this.process.replaceChildren(h('span', { class: row.silent ? 'mark warn' : 'quiet' },
        row.silent ? 'published, nobody listens' : 'declared, nobody listens'));
      return;
    }
    setText(this.process, processesText(row.processes) || 'not known');
    setAttribute(this.process, 'title', row.processes.map(processText).join(', '));
  }

  tick(now) {
    if (this.#opened) setText(this.age, age((now - this.#opened) / 1000));
  }
}

// reachOf is the badge with the published addresses, and the mark.
export function reachOf(row) {
  const nodes = [];
  if (row.kind) nodes.push(badge(row.kind));
  if (row.published.length) nodes.push(h('span', { class: 'at-host', title: row.published.join(', ') }, publishedText(row.published)));
  if (row.forward) nodes.push(forwardMark(row.forward));
  if (row.undeclared) {
    nodes.push(h('span', { class: 'mark', title: 'It listens, and neither EXPOSE nor a published port declares it.' }, 'not declared'));
  }
  if (row.drift) nodes.push(driftMark(row.drift));
  return nodes;
}

const drifts = {
  unexpected: 'It is open, and not expected.', missing: 'It is required, and not open.',
  wider: 'It can be reached from further than expected.', process: 'Another program than expected holds it.',
  uncovered: 'No expectation covers the container.',
};

export function driftMark(kind) {
  return h('span', { class: 'mark warn drift', title: drifts[kind] ?? null }, kind);
}

// forwardMark names the container that publishes a port of the host.
export function forwardMark(forward) {
  const title = forward.engine ? 'The engine holds this port of the host and forwards it to the container.'
    : 'A process of the host listens here, and the container publishes the same port: it depends on where a connection comes from which of them it reaches.';
  return h('span', { class: forward.engine ? 'at-host' : 'mark warn', title }, forwardText(forward));
}

export function forwardText({ container, port, engine }) {
  return engine ? `for ${container.name}:${port}` : `published for ${container.name}:${port} too`;
}

export function badge(kind) {
  const { sign, text, title } = ofExposure(kind);
  return h('span', { class: `badge ${kind}`, title }, h('span', { 'aria-hidden': 'true' }, sign), ` ${text}`);
}

// publishedText leaves out an IPv6 wildcard that only repeats the IPv4 one.
export function publishedText(published) {
  const kept = published.filter((at) => !(at.startsWith('[::]:') && published.includes(`0.0.0.0:${at.slice(5)}`)));
  return kept.map((at) => at.replace(/^0\.0\.0\.0:|^\[::\]:/, '*:')).join(', ');
}
