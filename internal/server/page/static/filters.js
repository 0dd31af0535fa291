// The filters and their life in the URL: /?q=web&project=shop&exposure=outside.

import { addressText, exposureKind } from './format.js';

// choices are the allowed values; the first is the default, which is left out
// of the URL. project may have any value.
export const choices = {
  protocol: { '': 'Any protocol', tcp: 'TCP', udp: 'UDP' },
  exposure: { '': 'Any exposure', outside: 'From outside', published: 'Published', host: 'Host', lan: 'Lan', network: 'Network', loopback: 'Loopback' },
  state: { '': 'Any state', listening: 'Listening', silent: 'Published, nobody listens', undeclared: 'Listening, not declared', drifting: 'Not as expected', unwatched: 'Not watched' },
  type: { '': 'All events', opened: 'Opened', closed: 'Closed', changed: 'Changed', burst: 'Bursts', gap: 'Gaps', drift: 'Drift', transient: 'Transient' },
  view: { ports: 'Ports', events: 'Events', drift: 'Drift', alerts: 'Alerts' },
};

const names = ['q', 'project', 'protocol', 'exposure', 'state', 'type', 'view', 'container', 'port'];

// filtering are those that Clear takes away.
export const filtering = ['q', 'project', 'protocol', 'exposure', 'state', 'type'];

// noProject is the value of project for containers outside Compose.
export const noProject = '(none)';

// parse reads a query string and returns {filter, errors}: what is not allowed
// is left at its default and named.
export function parse(search) {
  const query = new URLSearchParams(search);
  const filter = Object.fromEntries(names.map((name) => [name, choices[name] ? Object.keys(choices[name])[0] : '']));
  const errors = [];
  for (const [name, value] of query) {
    const bad = fault(name, value);
    if (bad) errors.push(bad);
    else filter[name] = value;
  }
  if (filter.port && !filter.container) {
    errors.push('port: it belongs to a container, which is not given');
    filter.port = '';
  }
  return { filter, errors };
}

function fault(name, value) {
  if (!names.includes(name)) return `${name}: unknown; allowed are ${names.join(', ')}`;
  if (choices[name] && !Object.hasOwn(choices[name], value)) {
    return `${name}: "${value}": allowed are ${Object.keys(choices[name]).filter(Boolean).join(', ')}`;
  }
  if (name === 'port' && value && !validPort(value)) return `port: "${value}": allowed are 1 to 65535, with /tcp or /udp`;
  return '';
}

function validPort(value) {
  const [, number] = /^(\d{1,5})\/(tcp|udp)$/.exec(value) ?? [];
  return number >= 1 && number <= 65535;
}

// format is the inverse of parse: the shortest query string, or the page's own address; relative
// to the page, which a proxy may serve under a path.
export function format(filter) {
  const query = new URLSearchParams();
  for (const name of names) {
    const byDefault = choices[name] ? Object.keys(choices[name])[0] : '';
    if (filter[name] !== byDefault) query.set(name, filter[name]);
  }
  return query.size ? `?${query}`.replaceAll('%2F', '/') : './';
}

// words is the search text as lower-case words, all of which must be found.
export const words = (filter) => filter.q.toLowerCase().split(/\s+/).filter(Boolean);

// found reports whether the text has each word. A word like 80/tcp matches a whole
// port, and pid:17 a whole pid.
export function found(text, terms) {
  return terms.every((word) => {
    if (!/^\d+\/(tcp|udp)$|^pid:\d+$/.test(word)) return text.includes(word);
    return `\n${text}\n`.includes(`\n${word}\n`);
  });
}

const inProject = (filter, project) => !filter.project || filter.project === (project || noProject);

const exposed = (filter, kind, outside) => !filter.exposure || (filter.exposure === 'outside' ? outside : kind.startsWith(filter.exposure));

// matchRow reports whether a row of a container matches.
export function matchRow(row, entry, filter, terms) {
  if (!inProject(filter, entry.info.project)) return false;
  if (filter.protocol && row.protocol !== filter.protocol) return false;
  if (filter.exposure && (row.exposed || !exposed(filter, row.kind, row.outside))) return false;
  if (filter.state === 'listening' && row.state === 'declared') return false;
  if (filter.state === 'silent' && !row.silent) return false;
  if (filter.state === 'undeclared' && !row.undeclared) return false;
  if (filter.state === 'drifting' && !row.drift) return false;
  return found(row.text, terms);
}

// matchEmpty reports whether a container matches without any of its rows.
export function matchEmpty(entry, filter, terms) {
  if (filter.protocol || filter.exposure || (filter.state && filter.state !== 'unwatched')) return false;
  const { name, image, project, service } = entry.info;
  return inProject(filter, project) && found([name, image, project, service].filter(Boolean).join('\n').toLowerCase(), terms);
}

// matchEvent reports whether an event matches in the time line. A gap without a container
// concerns them all, and a burst of both protocols concerns each.
export function matchEvent(event, filter, terms) {
  if (filter.type && (filter.type === 'transient' ? !event.transient : event.type !== filter.type)) return false;
  const container = event.container;
  if (event.type === 'gap' && !container) return true;
  if (!inProject(filter, container?.project)) return false;
  if (event.type !== 'gap') {
    if (filter.protocol && event.protocol !== filter.protocol && !(event.type === 'burst' && !event.protocol)) return false;
    if (filter.exposure && !exposed(filter, exposureKind(event), event.outside)) return false;
  }
  return found(eventText(event), terms);
}

function eventText(event) {
  const { name, image, project, service } = event.container ?? {};
  return [
    name, image, project, service, ...portsOf(event), addressText(event), ...(event.published ?? []),
    ...(event.processes ?? []).flatMap((p) => [p.name, p.executable, `pid:${p.pid}`]), event.exposure, event.drift, event.reason,
  ].filter(Boolean).join('\n').toLowerCase();
}

// portsOf lists the ports of an event as "80/tcp"; those of a burst as far as
// it lists them.
function portsOf({ port, protocol, ports = [] }) {
  const numbers = port ? [port] : ports;
  return numbers.flatMap((number) => (protocol ? [`${number}/${protocol}`] : [`${number}/tcp`, `${number}/udp`]));
}

// mayBeOf reports whether an event concerns a port such as "80/tcp", or a burst that may
// contain it: the list of a burst's ports may be incomplete.
export function mayBeOf(event, port) {
  if (portsOf(event).includes(port)) return true;
  const complete = event.type !== 'burst' || event.port || event.port_count <= (event.ports?.length ?? 0);
  return !complete && (!event.protocol || port.endsWith(`/${event.protocol}`));
}

// matchDrift reports whether a drift of the list matches.
export function matchDrift(drift, filter, terms) {
  if (!inProject(filter, drift.container?.project)) return false;
  if (filter.protocol && drift.protocol !== filter.protocol) return false;
  if (filter.exposure && !exposed(filter, exposureKind(drift), drift.outside)) return false;
  return found(`${drift.target}\n${drift.expected ?? ''}\n${eventText(drift)}`.toLowerCase(), terms);
}

// query returns the part of the filter that the server applies on /events.
export function query(filter) {
  const outside = filter.exposure === 'outside';
  return {
    project: filter.project === noProject ? '' : filter.project,
    protocol: filter.protocol, exposure: outside ? '' : filter.exposure, outside: outside ? 'true' : '',
    type: filter.type === 'transient' ? '' : filter.type,
    transient: filter.type === 'transient' ? 'true' : '',
  };
}
