// When a port was open, made from its history.

import { h } from './dom.js';
import { addressText, age, clock, lasted, processText, second } from './format.js';

// intervalsOf returns {address, from, until, processes, transient}, newest
// first: until is null while it is open; times are milliseconds since 1970.
// Each closed event has the time of its opening.
export function intervalsOf(open, events) {
  const intervals = open.map((endpoint) => ({
    address: addressText(endpoint), from: Date.parse(endpoint.opened_at), until: null, processes: endpoint.processes ?? [], transient: false,
  }));
  for (const event of events) {
    if (event.type !== 'closed') continue;
    const until = Date.parse(event.time);
    const from = event.opened_at ? Date.parse(event.opened_at) : NaN; // not known
    intervals.push({ address: addressText(event), from, until, processes: event.processes ?? [], transient: event.transient, seconds: event.open_seconds });
  }
  return intervals.sort((a, b) => (b.until ?? Infinity) - (a.until ?? Infinity) || b.from - a.from);
}

const mostIntervals = 50;

// strip draws the intervals on a line that ends now.
export function strip(intervals, now) {
  const from = Math.min(...intervals.map((i) => (Number.isNaN(i.from) ? i.until : i.from)), now - 60_000);
  const scale = (time) => (1000 * (time - from)) / (now - from);
  const svg = svgElement('svg', { viewBox: '0 0 1000 16', preserveAspectRatio: 'none', class: 'strip', 'aria-hidden': 'true' });
  svg.append(svgElement('rect', { class: 'ground', width: 1000, height: 16 }));
  for (const interval of intervals) {
    const begin = scale(Number.isNaN(interval.from) ? interval.until : interval.from);
    const end = scale(interval.until ?? now);
    svg.append(svgElement('rect', { class: 'open', x: begin, width: Math.max(2, end - begin), height: 16 }));
  }
  return h('div', { class: 'strip-box' }, svg,
    h('div', { class: 'ends', 'aria-hidden': 'true' }, h('span', null, second(new Date(from))), h('span', null, 'now')));
}

function svgElement(tag, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function intervalTable(intervals, now) {
  const head = h('thead', null, h('tr', null, ...['Address', 'From', 'Until', 'For', 'Process'].map((text) => h('th', { scope: 'col' }, text))));
  const rows = intervals.slice(0, mostIntervals).map((i) => h('tr', null,
    h('td', { class: 'address' }, i.address),
    h('td', null, Number.isNaN(i.from) ? 'not known' : clock(new Date(i.from))),
    h('td', null, i.until ? clock(new Date(i.until)) : 'open now'),
    h('td', null, durationText(i, now), i.transient && h('span', { class: 'mark' }, 'transient')),
    h('td', null, i.processes.map(processText).join(', '))));
  return h('table', null, head, h('tbody', null, ...rows));
}

function durationText({ from, until, seconds }, now) {
  if (!until) return age((now - from) / 1000);
  if (seconds !== undefined) return `${lasted(seconds)} `;
  return Number.isNaN(from) ? '' : `${lasted((until - from) / 1000)} `;
}

// processesOf collects who had the port, newest first: {pid, ..., last}.
export function processesOf(open, events) {
  const seen = new Map();
  const add = (processes, time) => {
    for (const process of processes ?? []) {
      const key = `${process.pid} ${process.name ?? ''}`;
      if (!seen.has(key)) seen.set(key, { ...process, last: time });
    }
  };
  for (const endpoint of open) add(endpoint.processes, null);
  for (const event of events) add(event.processes, event.time);
  return [...seen.values()];
}

const mostProcesses = 20;

export function processTable(processes) {
  const head = h('thead', null, h('tr', null,
    ...['Process', 'Host pid', 'Pid inside', 'User id', 'Executable', 'Last seen'].map((text) => h('th', { scope: 'col' }, text))));
  const rows = processes.slice(0, mostProcesses).map((p) => h('tr', null,
    h('td', null, p.name ?? ''), h('td', null, String(p.pid)), h('td', null, String(p.container_pid ?? '')),
    h('td', null, String(p.uid ?? '')), h('td', { class: 'path' }, [p.executable, p.arguments].filter(Boolean).join(' ')),
    h('td', null, p.last ? clock(p.last) : 'now')));
  return h('table', null, head, h('tbody', null, ...rows));
}
