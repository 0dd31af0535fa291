// The page: it connects the stream, the state and the views.

import { Alerts } from './alerts.js';
import { API, Problem, Unreachable } from './api.js';
import { Detail } from './detail.js';
import { Drift } from './drift.js';
import { enter, Frames, setAttribute, setText } from './dom.js';
import { format, parse } from './filters.js';
import { Header } from './header.js';
import { historyOf } from './history.js';
import { Login } from './login.js';
import { Model } from './model.js';
import { PortsView } from './ports.js';
import { Stream } from './stream.js';
import { Timeline } from './timeline.js';

const $ = (id) => document.getElementById(id);

// How often the lists are requested, in milliseconds. Ports come by events; their list only
// repairs what was missed.
const every = { containers: 15_000, ports: 60_000, status: 10_000 };
const unknownEvery = 1000; // the containers, while an event named an unknown one
const againAfter = 2000; // a failed request
// A browser has six connections to one server over HTTP/1.1, and the stream
// holds one: a hidden page closes it after a while.
const hiddenAtMost = 5 * 60_000;
// Milliseconds between two drawings; the longer one after a drawing of more
// than stormSize events, which nobody could read one by one.
const frameGap = 100;
const stormGap = 500;
const stormSize = 20;

class App {
  #all = true; // everything has to be drawn
  #version = '';
  #asked = { containers: -Infinity, ports: -Infinity, status: -Infinity };
  #asking = new Set();
  #loaded = new Set(); // the lists that were read at least once
  #resync = true; // the state is not the one that the stream goes on from
  #live = false;
  #arrived = 0; // events since the last drawing

  constructor() {
    this.api = new API((problem) => this.#unauthorized(problem));
    const load = historyOf(this.api);
    const changed = () => this.frames.request();
    const hrefs = {
      container: (entry) => this.#href(entry.info.name, ''),
      port: (entry, row) => this.#href(entry.info.name, `${row.port}/${row.protocol}`),
      event: (container, port) => this.#href(container.name, port),
    };
    this.model = new Model();
    this.frames = new Frames(() => this.#draw(), frameGap);
    this.header = new Header((change) => this.#change(change));
    this.ports = new PortsView($('groups'), hrefs);
    this.timeline = new Timeline({
      list: $('events'), scroll: document.querySelector('#timeline .scroll'), older: $('older'), reach: $('reach'), pause: $('pause'), rate: $('rate'),
    }, { load, changed, href: hrefs.event });
    this.detail = new Detail($('detail'), { load, explain: (params) => this.api.get('explain', params), changed, hrefs, closed: () => this.#closeDetail() });
    this.drift = new Drift({
      none: $('drift-none'), list: $('drifts'), pastList: $('drifts-past'), past: $('drift-past'), count: $('drift-count'),
    }, { load: (params) => this.api.get('drift', params), changed, href: hrefs.event });
    this.alerts = new Alerts({
      none: $('alerts-none'), open: $('alerts-open'), receivers: $('alerts-receivers'), rules: $('alerts-rules'), deliveries: $('alerts-deliveries'), count: $('alerts-count'),
    }, { load: () => this.api.get('alerts'), changed, href: hrefs.event });
    this.login = new Login($('login'), (token) => this.#useToken(token));
    this.stream = new Stream(this.api, {
      prepare: async (signal) => (await this.api.get('events', { limit: 1 }, { signal })).last_id,
      opened: (hello) => this.#opened(hello),
      events: (events) => this.#events(events),
      reset: () => this.#reset(),
      state: (state) => this.#connection(state),
    });
  }

  start() {
    this.#readURL();
    addEventListener('popstate', () => this.#readURL());
    addEventListener('online', () => this.stream.retryNow());
    // A page that is kept for the way back must not hold its connection.
    addEventListener('pagehide', () => this.#rest());
    addEventListener('pageshow', () => this.#wake());
    document.addEventListener('visibilitychange', () => {
      clearTimeout(this.hiding);
      if (document.hidden) this.hiding = setTimeout(() => this.#rest(), hiddenAtMost);
      else this.#wake();
    });
    document.addEventListener('click', (event) => this.#click(event));
    document.addEventListener('keydown', (event) => this.#key(event));
    $('retry').addEventListener('click', () => this.stream.retryNow());
    $('forget').addEventListener('click', () => this.#forget());
    setInterval(() => this.#tick(), 1000);
    this.#wake();
  }

  // rest ends the connection, wake goes on from there; neither while a token
  // is asked for.
  #rest() {
    if (this.login.asking) return;
    this.stream.stop();
    this.#connection({ state: 'connecting' });
  }

  #wake() {
    if (!this.login.asking) this.stream.start();
  }

  // The URL.

  #readURL() {
    const { filter, errors } = parse(location.search);
    this.filter = filter;
    this.header.notice('url', errors.length ? `Left out of the address: ${errors.join('; ')}` : '');
    this.#filterChanged();
  }

  // href is the URL of the details alone; a click keeps the filters of then.
  #href(container, port) {
    return `?container=${encodeURIComponent(container)}${port ? `&port=${port}` : ''}`;
  }

  #change(change) {
    this.filter = { ...this.filter, ...change };
    history.replaceState(history.state, '', format(this.filter));
    this.#filterChanged();
  }

  #filterChanged() {
    this.header.drawFilter(this.filter);
    this.timeline.setFilter(this.filter);
    this.alerts.show(this.filter.view === 'alerts');
    this.detail.show(this.filter.container, this.filter.port);
    this.#all = true;
    this.frames.request();
  }

  #click(event) {
    const link = event.target.closest?.('a[data-detail]');
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    const to = parse(new URL(link.href).search).filter;
    const depth = (history.state?.depth ?? 0) + 1;
    history.pushState({ depth }, '', format({ ...this.filter, container: to.container, port: to.port }));
    this.#readURL();
  }

  // closeDetail goes back to where the details were opened from, or, where
  // they were opened by their own URL, to the page without them.
  #closeDetail() {
    if (history.state?.depth) {
      history.go(-history.state.depth);
      return;
    }
    this.#change({ container: '', port: '' });
  }

  // The keyboard.

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (event.key === '/' && !event.target.matches('input')) {
      event.preventDefault();
      $('q').focus();
      $('q').select();
    } else if (event.key === 'p' && !event.target.matches('input, select')) {
      this.timeline.setPaused(!this.timeline.paused);
    } else if (event.key === 'ArrowDown' && event.target === $('q')) {
      event.preventDefault();
      enter(this.filter.view === 'events' ? $('events') : $('groups'));
    } else if (event.key === 'Escape' && event.target === $('q')) {
      if (this.filter.q) this.#change({ q: '' });
      else $('q').blur();
    }
  }

  // The connection.

  #connection(state) {
    this.#live = state.state === 'live';
    this.header.setConnection(state);
  }

  #opened({ host, version }) {
    if (host) this.header.setHost(host);
    if (this.#version && version && version !== this.#version) {
      this.header.notice('version', `portwatcher is now version ${version}.`, { text: 'Load its page', run: () => location.reload() });
    }
    this.#version ||= version;
    this.#asked.containers = this.#asked.status = -Infinity; // what it does not stream may differ
    if (this.#resync) {
      this.#asked.ports = -Infinity;
      this.timeline.reload();
      this.detail.reload();
      this.drift.reload();
    }
    this.#resync = false;
    this.#askAsDue();
  }

  #reset() {
    this.#resync = true;
    this.header.notice('reset', 'The server no longer had the events since the last one seen here. Everything was loaded anew.');
  }

  #events(events) {
    for (const event of events) this.model.apply(event);
    this.#arrived += events.length;
    this.timeline.add(events);
    this.detail.add(events);
    this.drift.add(events);
    this.frames.request();
    if (this.model.unknown) this.#askAsDue();
  }

  // askAsDue asks for the lists whose time has come.
  #askAsDue() {
    if (!this.#live) return;
    const now = performance.now();
    this.drift.askAsDue(now);
    this.alerts.askAsDue(now);
    const due = (name, time = every[name]) => now - this.#asked[name] >= time;
    if (due('containers', this.model.unknown ? unknownEvery : undefined)) this.#ask('containers', (answer) => this.model.setContainers(answer));
    if (due('ports')) this.#ask('ports', (answer) => this.model.setPorts(answer));
    if (due('status')) this.#ask('status', (answer) => this.#status(answer));
  }

  async #ask(name, take) {
    if (this.#asking.has(name)) return;
    this.#asking.add(name);
    this.#asked[name] = performance.now();
    if (name === 'ports') this.model.expect();
    try {
      take(await this.api.get(name));
      if (!this.#loaded.has(name)) this.#all = true; // an empty list changes the counters too
      this.#loaded.add(name);
      this.header.notice(`load-${name}`, '');
      this.frames.request();
    } catch (fault) {
      if (!(fault instanceof Problem || fault instanceof Unreachable)) throw fault;
      this.#asked[name] = performance.now() - every[name] + againAfter;
      // The state of the connection shows these.
      if (fault.status !== 401 && this.#live) this.header.notice(`load-${name}`, `The ${name} could not be read: ${fault.message}. Trying again.`);
    } finally {
      this.#asking.delete(name);
    }
  }

  #status({ host, ready, not_ready: why, engine, journal, version, alerts }) {
    this.alerts.summary(alerts);
    this.header.notice('alerts', alerts?.dead ? `${alerts.dead.toLocaleString('en')} alert ${alerts.dead === 1 ? 'message was' : 'messages were'} given up: see Alerts.` : '');
    if (host) this.header.setHost(host);
    this.#version ||= version;
    let blind = ready ? '' : `portwatcher does not see everything now: ${why ?? 'it is not ready'}`;
    if (!blind && engine && !engine.connected) blind = `portwatcher has no connection to the engine: ${engine.error ?? 'it tries again'}`;
    this.header.notice('blind', blind);
    this.header.notice('journal', journal?.error ? `The journal cannot be written: ${journal.error}` : '');
  }

  // The token.

  #unauthorized(problem) {
    this.stream.stop();
    this.#connection({ state: 'unauthorized' });
    this.login.ask(this.api.token ? `The token was not accepted: ${problem.message}` : '');
    this.api.token = '';
    this.#showForget();
  }

  #useToken(token) {
    this.api.token = token;
    this.#showForget();
    this.stream.start();
  }

  #forget() {
    this.api.token = '';
    location.reload();
  }

  #showForget() {
    $('forget').hidden = this.api.token === '';
  }

  // Drawing.

  #draw() {
    this.frames.gap = this.#arrived > stormSize ? stormGap : frameGap;
    this.#arrived = 0;
    const changed = this.model.settle();
    const all = this.#all;
    this.#all = false;
    if (changed.size || all) {
      if (this.#loaded.has('ports')) this.header.drawTotals(this.model.totals());
      this.header.drawProjects(this.model.entries.values(), this.filter.project);
      this.ports.draw(this.model, this.filter, changed, all);
      this.ports.tick(this.model.now());
    }
    this.#drawEmpty();
    this.drift.draw(this.filter, this.model.now());
    this.alerts.draw(this.model.now());
    this.timeline.draw();
    this.detail.draw(this.model);
    this.detail.tick(this.model.now());
  }

  #drawEmpty() {
    const empty = $('empty');
    const loaded = this.#loaded.has('ports') && this.#loaded.has('containers');
    empty.hidden = this.ports.shown > 0;
    setAttribute($('ports'), 'aria-busy', !loaded ? 'true' : 'false');
    const none = this.model.entries.size === 0;
    const text = !loaded ? 'Nothing is loaded yet.' : none ? 'No container is running.' : 'Nothing fits the filters.';
    setText(empty, text);
  }

  #tick() {
    this.header.tick();
    this.timeline.tick();
    this.drift.tick(this.model.now());
    this.alerts.tick(this.model.now());
    this.model.sweep();
    this.ports.tick(this.model.now());
    this.detail.tick(this.model.now());
    if (this.model.dirty.size || this.detail.open) this.frames.request();
    this.#askAsDue();
    this.#showForget();
  }
}

const app = new App();
app.start();
