// The view "alerts": what lasts, receivers, rules, and what was delivered.

import { h, place, setText } from './dom.js';
import { age, count, exposureKind, second } from './format.js';
import { badge } from './row.js';

const every = 5000; // milliseconds between two requests while the view is shown

export class Alerts {
  #answer = null;
  #rows = new Map(); // by content
  #asked = -Infinity;
  #asking = false;
  #shown = false;
  #fault = '';

  // parts: none, open, receivers, rules, deliveries, count. load() asks /alerts; changed() asks for a
  // draw; href(container, port) is the URL of the details.
  constructor(parts, { load, changed, href }) {
    Object.assign(this, { parts, load, changed, href });
  }

  // show has the view read as long as it is shown.
  show(shown) {
    if (shown && !this.#shown) this.#asked = -Infinity;
    this.#shown = shown;
  }

  // summary takes the part of the status about alerts.
  summary({ enabled, conditions = 0, dead = 0 } = {}) {
    setText(this.parts.count, enabled && conditions + dead > 0 ? String(conditions + dead) : '');
  }

  async askAsDue(now = performance.now()) {
    if (!this.#shown || this.#asking || now - this.#asked < every) return;
    this.#asking = true;
    this.#asked = now;
    try {
      this.#answer = await this.load();
      this.#fault = '';
    } catch (fault) {
      this.#fault = `The alerts could not be read: ${fault.message}`;
    }
    this.#asking = false;
    this.changed();
  }

  draw(now) {
    if (!this.#shown) return;
    const { enabled, open = [], receivers = [], rules = [], deliveries = [] } = this.#answer ?? {};
    setText(this.parts.none, this.#text(enabled, open));
    const rows = new Map();
    const fill = (parent, items, make) => place(parent, items.map((item) => {
      const key = `${parent.id} ${JSON.stringify(item)}`;
      const known = rows.get(key) ?? this.#rows.get(key) ?? make(item, this.href);
      rows.set(key, known);
      known.tick?.(now);
      return known.element;
    }));
    fill(this.parts.open, open, openRow);
    fill(this.parts.receivers, enabled ? receivers : [], receiverRow);
    fill(this.parts.rules, enabled ? rules : [], ruleRow);
    fill(this.parts.deliveries, deliveries, deliveryRow);
    this.#rows = rows;
  }

  #text(enabled, open) {
    if (this.#fault) return this.#fault;
    if (!this.#answer) return 'Nothing is loaded yet.';
    if (!enabled) return 'Nobody is alerted: the settings have no receiver. ALERT_WEBHOOK or ALERT_EMAIL is enough, and the file of settings has the rest under alerts.';
    const { standard, held, dropped } = this.#answer;
    return [
      open.length ? `${count(open.length, 'condition')} ${open.length === 1 ? 'lasts' : 'last'} or ${open.length === 1 ? 'waits' : 'wait'}.` : 'No condition lasts.',
      standard && 'The rules are the standard ones.',
      held && `${count(held, 'alert')} held back by quiet hours or the bound on the rate.`,
      dropped && `${count(dropped, 'alert')} dropped: too many waited.`,
    ].filter(Boolean).join(' ');
  }

  tick(now) {
    for (const row of this.#rows.values()) row.tick?.(now);
  }
}

const item = (state, head, ...rest) => h('li', { class: `alert ${state}` }, h('div', { class: 'head' }, ...head), ...rest);
const mark = (text, warn) => h('span', { class: `mark${warn ? ' warn' : ''}` }, text);
const facts = (pairs) => {
  const shown = Object.entries(pairs).filter(([, value]) => value !== '' && value !== undefined && value !== 0);
  return shown.length ? h('dl', null, ...shown.flatMap(([name, value]) => [h('dt', null, name), h('dd', null, typeof value === 'number' ? value.toLocaleString('en') : value)])) : null;
};

function openRow({ rule, severity, since, waiting, to, event }, href) {
  const begin = Date.parse(since);
  const time = h('span', { class: 'since' });
  const head = [mark(severity, severity !== 'info'), subject(event, href), event.exposure && badge(exposureKind(event)), waiting && mark('waits'), time];
  const element = item(severity, head, facts({ Rule: rule, Receivers: to.join(', ') }));
  return { element, tick: (now) => setText(time, `since ${second(begin)}, ${age((now - begin) / 1000)}`) };
}

function subject(event, href) {
  const container = event.container;
  if (!container) return h('span', { class: 'subject' }, event.host ?? 'this host');
  const port = event.port && event.protocol ? `${event.port}/${event.protocol}` : '';
  const name = container.project && container.service ? `${container.project}/${container.service}` : container.name;
  const text = port ? `${name} ${port}` : name;
  return container.id ? h('a', { class: 'subject', href: href(container, port), 'data-detail': true }, text) : h('span', { class: 'subject' }, text);
}

function receiverRow(r) {
  const time = r.last_delivered ? `delivered ${second(r.last_delivered)}` : '';
  const state = r.problem || r.dead ? 'warning' : '';
  const head = [h('span', { class: 'subject' }, r.name), mark(r.removed ? 'removed from the settings' : r.kind, r.removed), h('span', { class: 'since' }, time)];
  return { element: item(state, head, facts({
    Pending: r.pending, 'Given up': r.dead, 'Held back': r.held, Delivered: r.delivered, 'Failed tries': r.failed_tries, Problem: r.problem,
  })) };
}

function ruleRow(r) {
  const head = [h('span', { class: 'subject' }, r.name), mark(r.severity), r.for_seconds > 0 && mark(`for ${age(r.for_seconds)}`), h('span', { class: 'since' }, `to ${r.to.join(', ')}`)];
  return { element: item(r.failed ? 'warning' : '', head, h('pre', { tabindex: '0' }, r.when), facts({ Matched: r.matched, Failed: r.failed })) };
}

const states = { pending: 'pending', delivered: 'delivered', dead: 'given up' };

function deliveryRow(d) {
  const state = { pending: d.tried ? 'warning' : '', delivered: 'info', dead: 'critical' }[d.state];
  const head = [mark(states[d.state], d.state === 'dead' || state === 'warning'), h('span', { class: 'subject' }, d.title), d.digest && mark('digest'), h('span', { class: 'since' }, `${second(d.made)} to ${d.receiver}`)];
  const tries = d.tries.map((t) => h('li', null, h('time', null, second(t.time)), ' ',
    [t.delivered ? 'delivered' : 'failed', t.status, t.error || t.response].filter(Boolean).join(' · ')));
  const due = d.due && d.state === 'pending' ? `, the next at ${second(d.due)}` : '';
  return { element: item(state, head, h('details', null, h('summary', null, `${count(d.tried, 'try', 'tries')}${due}`), h('ol', { class: 'tries' }, ...tries))) };
}
