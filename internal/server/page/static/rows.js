// The rows of one container: what listens, joined with what is declared.

import { addressText, exposureKind, isLoopback, isWildcard } from './format.js';

const rank = { loopback: 0, network: 1, 'published-local': 2, lan: 3, published: 4, host: 5 };

// rowsOf returns the container's rows by port, protocol and address:
// {key, protocol, port, addresses, processes, kind, published, forward, opened, state,
//  outside, declared, undeclared, silent, exposed, fresh, closed, drift, at, text}.
// at is addresses as it is shown.
// state is "open", "closed" (a moment ago) or "declared" (nobody listens).
export function rowsOf(entry) {
  const rows = new Map();
  for (const open of entry.endpoints.values()) join(rows, open, 'open');
  for (const ghost of entry.ghosts.values()) join(rows, ghost, 'closed');
  const declared = new Map();
  for (const d of entry.info.declared ?? []) declared.set(`${d.protocol} ${d.port}`, { ...d, heard: false });
  for (const row of rows.values()) {
    if (row.state !== 'open') continue;
    const d = declared.get(`${row.protocol} ${row.port}`);
    row.undeclared = !d && entry.listed && entry.id !== '';
    if (d && !row.namespace && !row.addresses.every(isLoopback)) d.heard = true;
  }
  for (const d of declared.values()) {
    if (!d.heard) silence(rows, d);
  }
  const sorted = [...rows.values()].sort(byPort);
  for (const row of sorted) finish(row, entry);
  return sorted;
}

// join adds an endpoint: the IPv4 and the IPv6 wildcard of one port are a row.
function join(rows, open, state) {
  const place = isWildcard(open.address) ? '*' : open.address;
  const namespace = open.namespace ?? ''; // empty in the container's own
  const key = `${open.protocol} ${open.port} ${place} ${namespace}`;
  const kind = exposureKind(open);
  const outside = Boolean(open.outside);
  const row = rows.get(key);
  if (!row) {
    rows.set(key, {
      key, state, kind, outside, namespace, protocol: open.protocol, port: open.port, addresses: [open.address],
      ipv6Only: Boolean(open.ipv6_only),
      processes: open.processes ?? [], published: open.published ?? [], forward: open.forward, opened: open.opened_at, fresh: open.fresh,
      closed: open.closed_at, drift: state === 'open' ? open.drift : undefined, expected: open.expected,
    });
    return;
  }
  if (row.state !== state) return; // what is open wins over what was
  row.addresses = [...new Set([...row.addresses, open.address])].sort();
  row.ipv6Only = false; // the IPv4 wildcard is open too
  row.processes = [...new Map([...row.processes, ...(open.processes ?? [])].map((p) => [p.pid, p])).values()];
  row.published = [...new Set([...row.published, ...(open.published ?? [])])];
  row.forward ??= open.forward;
  if (rank[kind] > rank[row.kind]) row.kind = kind;
  row.outside ||= outside;
  row.drift ??= open.drift;
  if (open.opened_at < row.opened) row.opened = open.opened_at;
}

// silence adds a row for a declared port where nothing listens, except on loopback.
function silence(rows, d) {
  const key = `${d.protocol} ${d.port} * `; // as join has it
  const published = d.published ?? [];
  const outside = !published.every(isLoopback);
  const row = {
    key, state: 'declared', protocol: d.protocol, port: d.port, addresses: [], processes: [], published,
    kind: published.length ? exposureKind({ exposure: 'published', outside }) : '', outside,
    exposed: published.length === 0, silent: published.length > 0,
  };
  // Only a row of a port that has just closed can be here: see heard.
  if (row.silent || !rows.has(key)) rows.set(key, row);
}

function byPort(a, b) {
  return a.port - b.port || a.protocol.localeCompare(b.protocol) || (a.key < b.key ? -1 : 1);
}

function finish(row, { info }) {
  row.at = addressText({ address: row.addresses.join(', '), ipv6_only: row.ipv6Only, namespace: row.namespace });
  row.text = [
    info.name, info.image, info.project, info.service, `${row.port}/${row.protocol}`, row.at, ...row.published, row.forward?.container.name,
    ...row.processes.flatMap((p) => [p.name, p.executable, `pid:${p.pid}`]), row.exposed ? 'exposed' : row.kind, row.drift,
  ].filter(Boolean).join('\n').toLowerCase();
}
