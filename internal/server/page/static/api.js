// The client of api/v1, relative to the page: a proxy may serve both under a path. The token is kept in sessionStorage, until the tab is
// closed, and travels in the Authorization header only.

import { parseJSON } from './marks.js';

// Several instances may be under paths of one origin.
const storageKey = `portwatcher.token ${location.pathname}`;

// Problem is an answer that is no success, with what RFC 9457 carries.
export class Problem extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter; // seconds, or NaN
  }
}

// Unreachable means that no answer came, or not all of it.
export class Unreachable extends Error {}

export class API {
  // onUnauthorized is called with the Problem when the token is refused.
  constructor(onUnauthorized) {
    this.onUnauthorized = onUnauthorized;
  }

  get token() {
    return sessionStorage.getItem(storageKey) ?? '';
  }

  set token(value) {
    if (value) sessionStorage.setItem(storageKey, value);
    else sessionStorage.removeItem(storageKey);
  }

  // fetch answers with a response that is a success, or throws a Problem or
  // an Unreachable.
  async fetch(path, { headers = {}, signal } = {}) {
    const token = this.token;
    const all = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
    const response = await fetch(path, { headers: all, signal, cache: 'no-store', redirect: 'error' }).catch((cause) => {
      if (signal?.aborted && signal.reason instanceof Unreachable) throw signal.reason;
      throw new Unreachable(cause.name === 'TimeoutError' ? 'the server does not answer' : 'the server cannot be reached', { cause });
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    // The token may have been replaced in the meantime.
    if (response.status === 401 && token === this.token) this.onUnauthorized(problem);
    throw problem;
  }

  // get reads JSON, within 20 s.
  async get(path, params = {}, { signal } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(params)) {
      if (value !== '' && value !== undefined && value !== null) query.set(name, value);
    }
    const bound = AbortSignal.timeout(20_000);
    const response = await this.fetch(`api/v1/${path}${query.size ? `?${query}` : ''}`, {
      headers: { Accept: 'application/json' },
      signal: signal ? AbortSignal.any([signal, bound]) : bound,
    });
    return response.text().then(parseJSON).catch((cause) => {
      throw new Unreachable(`the answer to ${path} is cut off or no JSON`, { cause });
    });
  }
}

async function problemOf(response) {
  let detail = `${response.status} ${response.statusText}`.trim();
  if (response.headers.get('Content-Type')?.startsWith('application/problem+json')) {
    const body = await response.text().then(parseJSON).catch(() => ({})); // cut off: the status is enough
    detail = body.detail || body.title || detail;
  }
  return new Problem(response.status, detail, Number.parseInt(response.headers.get('Retry-After'), 10));
}
