// One event as a line of a list.

import { h } from './dom.js';
import { addressText, burstText, clock, exposureKind, gapText, isWildcard, lasted, processesText, processText } from './format.js';
import { hostName } from './model.js';
import { badge, driftMark, forwardMark, forwardText, publishedText } from './row.js';

const signs = { opened: '+', closed: '−', changed: '~', burst: '±', gap: '!', drift: '≠' };

// eventRow makes the item. href(container, port) gives the details' URL; where
// short, the container is not named (its own history).
export function eventRow(event, href, short = false) {
  const type = Object.hasOwn(signs, event.type) ? event.type : 'other';
  const sign = h('span', { class: 'sign', 'aria-hidden': 'true' }, signs[type] ?? '·');
  const time = h('time', { datetime: event.time, title: event.time }, clock(event.time));
  const word = h('span', { class: 'type' }, event.type);
  return h('li', { class: `event ${type}` }, sign, h('div', { class: 'what' }, link(event, href, short), time),
    h('div', { class: 'how' }, word, ...detailsOf(event)));
}

function link(event, href, short) {
  const name = event.container?.name ?? (event.type === 'gap' ? 'all containers' : hostName);
  const port = event.port && event.protocol ? `${event.port}/${event.protocol}` : '';
  const named = !(short && port);
  // A long name is cut, the port never.
  const parts = [named && h('span', { class: 'name', title: name }, name), port && h('span', { class: 'port' }, named ? ` ${port}` : port)].filter(Boolean);
  if (!event.container && event.type === 'gap') return h('span', { class: 'subject' }, ...parts);
  return h('a', { class: 'subject', href: href(event.container ?? { name: hostName }, port), 'data-nav': true, 'data-detail': true, tabindex: '-1' }, ...parts);
}

function detailsOf(event) {
  if (event.type === 'gap') return [gapText(event)];
  if (event.type === 'burst') return [h('span', { class: 'counted' }, burstText(event)), ...processesOf(event), ...driftOf(event)];
  if (event.type === 'drift') return driftParts(event);
  const kind = exposureKind(event);
  // The published address replaces a wildcard address.
  const outer = event.type !== 'closed' && event.outside && isWildcard(event.address) && event.published;
  const parts = outer ? [] : [h('span', { class: 'at' }, addressText(event))];
  parts.push(...processesOf(event));
  if (event.type === 'closed') {
    if (event.open_seconds !== undefined) parts.push(h('span', { class: 'lasted' }, `after ${lasted(event.open_seconds)}`));
  } else if (event.exposure) {
    parts.push(badge(kind));
    if (event.published?.length) parts.push(h('span', { class: 'at-host', title: event.published.join(', ') }, publishedText(event.published)));
  }
  if (event.forward && event.type !== 'closed') parts.push(forwardMark(event.forward));
  if (event.change === 'forward') parts.push(h('span', { class: 'lasted' }, `was ${event.previous_forward ? forwardText(event.previous_forward) : 'not published'}`));
  if (event.change === 'exposure') parts.push(h('span', { class: 'lasted' }, `was ${wasText(event)}`));
  if (event.transient) parts.push(h('span', { class: 'mark', title: 'It opened and closed between two scans.' }, 'transient'));
  if (event.source === 'restart') parts.push(h('span', { class: 'mark', title: 'Found at the start: it happened while portwatcher did not run.' }, 'while away'));
  return [...parts, ...driftOf(event)];
}

const driftOf = ({ drift }) => (drift ? [driftMark(drift)] : []);

// driftParts are those of a drift that began or ended by itself.
function driftParts(event) {
  const parts = [h('span', { class: 'state' }, event.ended ? 'ended' : 'began'), ...driftOf(event)];
  if (event.address) parts.push(h('span', { class: 'at' }, addressText(event)));
  if (event.exposure) parts.push(badge(exposureKind(event)));
  if (event.expected) parts.push(h('span', { class: 'lasted' }, `expected: ${event.expected}`));
  if (event.reason) parts.push(h('span', { class: 'lasted' }, event.reason));
  return parts;
}

function wasText({ previous_exposure: exposure = 'not known', previous_published: published = [] }) {
  return published.length ? `${exposure} ${publishedText(published)}` : exposure;
}

function processesOf({ processes = [] }) {
  if (!processes.length) return [];
  return [h('span', { class: 'by', title: processes.map(processText).join(', ') }, processesText(processes))];
}
