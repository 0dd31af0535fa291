// The head of the page: connection, counters, search and filters, notices.

import { h, place, setAttribute, setText } from './dom.js';
import { age, second } from './format.js';
import { choices, filtering, noProject } from './filters.js';

const $ = (id) => document.getElementById(id);

// The counters, each with the filter that shows what it counts.
const counters = [
  { name: 'containers', text: (n) => (n === 1 ? 'container' : 'containers'), filter: {} },
  { name: 'open', text: (n) => (n === 1 ? 'port open' : 'ports open'), filter: { state: 'listening' } },
  { name: 'outside', text: () => 'reachable from outside', filter: { exposure: 'outside' }, sign: '↗' },
  { name: 'silent', text: () => 'published, nobody listens', filter: { state: 'silent' }, warn: true },
  { name: 'undeclared', text: () => 'not declared', filter: { state: 'undeclared' } },
  { name: 'drifting', text: () => 'not as expected', filter: { state: 'drifting' }, optional: true, warn: true },
  { name: 'unwatched', text: () => 'not watched', filter: { state: 'unwatched' }, optional: true },
];

export class Header {
  #connection = { state: 'connecting', since: null };
  #counters = new Map();
  #projects = '';
  #announced = '';
  #notices = new Map(); // by name

  // change(partial) asks for a filter.
  constructor(change) {
    this.change = change;
    for (const name of ['protocol', 'exposure', 'state', 'type']) {
      const select = $(name);
      select.append(...Object.entries(choices[name]).map(([value, text]) => h('option', { value }, text)));
    }
    for (const name of ['project', 'protocol', 'exposure', 'state', 'type']) {
      $(name).addEventListener('change', (event) => change({ [name]: event.target.value }));
    }
    $('q').addEventListener('input', (event) => change({ q: event.target.value }));
    $('filters').addEventListener('submit', (event) => event.preventDefault());
    $('clear').addEventListener('click', () => change(Object.fromEntries(filtering.map((name) => [name, '']))));
    for (const button of document.querySelectorAll('.views button')) {
      button.addEventListener('click', () => change({ view: button.dataset.view }));
    }
    this.#makeCounters();
  }

  #makeCounters() {
    for (const counter of counters) {
      const number = h('span', { class: 'number' }, '–');
      const words = h('span', { class: 'words' }, counter.text(0));
      const button = h('button', { type: 'button', 'aria-pressed': 'false', 'data-counter': counter.name, class: counter.warn && 'warn' },
        counter.sign && h('span', { class: 'sign', 'aria-hidden': 'true' }, counter.sign), number, ' ', words);
      button.hidden = Boolean(counter.optional);
      button.addEventListener('click', () => {
        const pressed = button.getAttribute('aria-pressed') === 'true';
        const view = ['drift', 'alerts'].includes(document.body.dataset.view) ? { view: 'ports' } : {}; // what is counted is there
        this.change({ state: '', exposure: '', ...(pressed ? {} : counter.filter), ...view });
      });
      this.#counters.set(counter.name, { ...counter, button, number, words });
    }
    $('counters').append(...[...this.#counters.values()].map(({ button }) => button));
  }

  drawFilter(filter) {
    if ($('q').value !== filter.q) $('q').value = filter.q;
    this.#offerProject(filter.project);
    for (const name of ['project', 'protocol', 'exposure', 'state', 'type']) {
      $(name).value = filter[name];
      $(name).classList.toggle('set', filter[name] !== '');
    }
    $('clear').disabled = filtering.every((name) => filter[name] === '');
    document.body.dataset.view = filter.view;
    for (const button of document.querySelectorAll('.views button')) {
      button.setAttribute('aria-pressed', String(button.dataset.view === filter.view));
    }
    for (const { button, filter: own } of this.#counters.values()) {
      const keys = Object.keys(own);
      const pressed = keys.length > 0 && keys.every((key) => filter[key] === own[key]);
      button.setAttribute('aria-pressed', String(pressed));
    }
  }

  // offerProject keeps a project of the URL in the list though no container
  // has it now.
  #offerProject(name) {
    const select = $('project');
    if (![...select.options].some((option) => option.value === name)) select.append(h('option', { value: name }, name));
  }

  drawTotals(totals) {
    for (const [name, { button, number, words, text, warn, optional }] of this.#counters) {
      const n = totals[name];
      setText(number, n.toLocaleString('en'));
      setText(words, text(n));
      if (warn) button.classList.toggle('some', n > 0);
      if (optional) button.hidden = n === 0;
    }
  }

  drawProjects(entries, chosen) {
    const names = new Set([...entries].map((entry) => entry.info.project ?? ''));
    const sorted = [...names].filter(Boolean).sort((a, b) => a.localeCompare(b));
    const values = ['', ...sorted, ...(names.has('') && sorted.length ? [noProject] : [])];
    const key = JSON.stringify(values);
    if (key === this.#projects) return;
    this.#projects = key;
    const label = (value) => ({ '': 'Any project', [noProject]: 'Outside Compose' })[value] ?? value;
    $('project').replaceChildren(...values.map((value) => h('option', { value }, label(value))));
    this.#offerProject(chosen);
    $('project').value = chosen;
  }

  setHost(host) {
    setText($('host'), host);
    this.host = host;
    this.#title();
  }

  setConnection(connection) {
    this.#connection = connection;
    this.tick();
    this.#title();
    // Only changes are announced, not each second of the countdown.
    const text = { live: 'Connected. The page is live.', waiting: 'The connection is lost. Trying again.', unauthorized: 'A token is needed.' }[connection.state];
    if (!text || text === this.#announced || (connection.state === 'live' && !this.#announced)) {
      if (connection.state === 'live') this.#announced = text;
      return;
    }
    this.#announced = text;
    setText($('announce'), text);
  }

  #title() {
    const away = this.#connection.state === 'live' ? '' : '(not live) ';
    document.title = `${away}${this.host ? `${this.host} · ` : ''}portwatcher`;
  }

  // tick brings the countdown up to date.
  tick() {
    const { state, since, next, reason } = this.#connection;
    const element = $('connection');
    // An attempt in between does not change the appearance.
    const lost = since && state !== 'live';
    setAttribute(element, 'data-state', lost ? 'waiting' : state);
    if (reason || !lost) setAttribute(element, 'title', reason ?? null);
    $('retry').hidden = !lost;
    const away = since ? `server away since ${second(since)}` : '';
    let text = { live: 'live', connecting: since ? `${away}, connecting` : 'connecting', unauthorized: 'a token is needed' }[state];
    if (state === 'waiting') text = `${away}, reconnecting in ${age(Math.max(1, (next - Date.now() + 999) / 1000))}`;
    setText($('connection-text'), text);
  }

  // notice shows a text under the name, or takes it away where it is empty.
  // action is a button: {text, run}.
  notice(name, text, action) {
    const before = this.#notices.get(name);
    if ((before?.text ?? '') === text) return;
    if (!text) this.#notices.delete(name);
    else {
      const element = h('p', { class: `notice ${name}`, role: 'status' }, h('span', null, text),
        action && h('button', { type: 'button', on: { click: action.run } }, action.text));
      this.#notices.set(name, { text, element });
    }
    place($('notices'), [...this.#notices.values()].map(({ element }) => element));
  }
}
