// The live connection: it reads the event stream, resumes after the last event
// that it passed on, and connects again by itself.
//
// Invariants: each event is passed on exactly one time and in order; between two connections
// there is a pause that grows from base to max, with jitter, until a
// connection has lasted; a connection without a byte (the server's heartbeat
// comes every 15 s) for `watchdog` milliseconds is given up.

import { Problem, Unreachable } from './api.js';
import { parseJSON } from './marks.js';
import { Parser } from './sse.js';

export class Stream {
  #api;
  #on;
  #options;
  #lastID = null; // of the last event that was passed on; null: nothing loaded yet
  #failures = 0;
  #run = 0; // the number of the loop that may go on; 0: none
  #runs = 0;
  #abort = null;
  #wake = null;
  #awaySince = null;

  // on: prepare() -> id to begin after (called when there is none),
  //     opened(hello), events([{type, ...}]), reset(), state({...}).
  constructor(api, on, options = {}) {
    this.#api = api;
    this.#on = on;
    this.#options = { path: 'api/v1/events', base: 1000, max: 30_000, watchdog: 35_000, lasting: 5000, ...options };
  }

  start() {
    if (this.#run) return;
    this.#run = ++this.#runs;
    this.#failures = 0;
    this.#loop(this.#run);
  }

  stop() {
    this.#run = 0;
    this.#abort?.abort();
    this.#wake?.();
  }

  retryNow() {
    this.#wake?.();
  }

  // restart begins from the state of now, as after a reset.
  restart() {
    this.#lastID = null;
    this.#abort?.abort(new Unreachable('the page loads everything anew'));
  }

  async #loop(run) {
    while (this.#run === run) {
      const began = performance.now();
      let pause;
      try {
        this.#on.state({ state: 'connecting', since: this.#awaySince });
        pause = await this.#connect();
      } catch (fault) {
        if (this.#run !== run) return;
        if (fault.status === 401) break; // start is called with another token
        if (!(fault instanceof Unreachable || fault instanceof Problem)) console.error(fault);
        pause = { reason: fault.message, retryAfter: fault.retryAfter };
      }
      this.#awaySince ??= new Date();
      if (performance.now() - began > this.#options.lasting) this.#failures = 0;
      if (this.#run === run) await this.#pause(pause);
    }
    if (this.#run === run) this.#run = 0;
  }

  async #pause({ reason, soon, retryAfter }) {
    const { base, max } = this.#options;
    const full = Math.min(max, base * 2 ** this.#failures);
    // The first try after an orderly end begins at once.
    let delay = soon && this.#failures === 0 ? 0 : full * (0.5 + Math.random() / 2);
    if (retryAfter > 0) delay = Math.max(delay, retryAfter * 1000);
    this.#failures++;
    if (delay === 0) return;
    this.#on.state({ state: 'waiting', since: this.#awaySince, next: Date.now() + delay, reason });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }

  // connect reads one connection to its end and returns why it ended.
  async #connect() {
    const abort = new AbortController();
    this.#abort = abort;
    let dog;
    const alive = () => {
      clearTimeout(dog);
      dog = setTimeout(() => abort.abort(new Unreachable('nothing was heard from the server')), this.#options.watchdog);
    };
    alive();
    try {
      if (this.#lastID === null) this.#lastID = await this.#on.prepare(abort.signal);
      alive();
      const after = String(this.#lastID);
      const response = await this.#api.fetch(`${this.#options.path}?after=${after}`, {
        headers: { Accept: 'text/event-stream', 'Last-Event-ID': after }, signal: abort.signal,
      });
      return await this.#read(response.body.pipeThrough(new TextDecoderStream()).getReader(), abort.signal, alive);
    } finally {
      clearTimeout(dog);
      abort.abort();
    }
  }

  async #read(reader, signal, alive) {
    const parser = new Parser();
    for (;;) {
      const { value, done } = await reader.read().catch((cause) => {
        signal.throwIfAborted();
        throw new Unreachable('the connection broke', { cause });
      });
      signal.throwIfAborted();
      if (done) return { reason: 'the server closed the connection' };
      alive();
      const end = this.#messages(parser.push(value));
      if (end) return end;
    }
  }

  // messages passes the messages on, and returns the reason if the connection ends.
  #messages(messages) {
    const events = [];
    let end = null;
    for (const message of messages) {
      if (message.retry) {
        this.#options.base = Math.min(message.retry, this.#options.max);
        continue;
      }
      const body = parseJSON(message.data);
      if (message.type === 'hello') {
        if (body.last_id < this.#lastID) end = this.#reset();
        else this.#hello(body);
      } else if (message.type === 'reset') {
        end = this.#reset();
      } else if (message.type === 'end') {
        end = { reason: body.reason ?? 'the server ended the stream', soon: true };
        if (body.resume_after >= this.#lastID) this.#lastID = body.resume_after;
      } else if (body.id > this.#lastID) {
        this.#lastID = body.id;
        events.push(body);
      }
      if (end) break;
    }
    if (events.length) this.#on.events(events);
    return end;
  }

  #hello(body) {
    this.#awaySince = null;
    this.#on.state({ state: 'live' });
    this.#on.opened(body);
  }

  #reset() {
    this.#lastID = null;
    this.#on.reset();
    return { reason: 'the server no longer has the events since the last one seen here', soon: true };
  }
}
