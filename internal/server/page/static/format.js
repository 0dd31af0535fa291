// Words and numbers as people read them.

const two = (n) => String(n).padStart(2, '0');

// clock is the time of day in the browser's zone, to the millisecond; where it
// is not today's, the date and the time to the second.
export function clock(time, now = new Date()) {
  const t = time instanceof Date ? time : new Date(time);
  if (t.toDateString() !== now.toDateString()) return second(t, now);
  return `${ofDay(t)}.${String(t.getMilliseconds()).padStart(3, '0')}`;
}

const ofDay = (t) => `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;

export function date(time) {
  const t = time instanceof Date ? time : new Date(time);
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
}

// second is clock without the second's parts.
export function second(time, now = new Date()) {
  const t = time instanceof Date ? time : new Date(time);
  return t.toDateString() === now.toDateString() ? ofDay(t) : `${date(t)} ${ofDay(t)}`;
}

// age is a duration in whole units, two at most: "42 s", "3 min", "2 h 5 min".
export function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min} min`;
  const hours = Math.floor(min / 60);
  if (hours < 24) return min % 60 ? `${hours} h ${min % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

// lasted is a measured duration: short ones keep their fraction.
export function lasted(seconds) {
  if (seconds < 0.001) return '< 1 ms';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return age(seconds);
}

export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
}

export function processText(process) {
  return process.name ? `${process.name} (${process.pid})` : `pid ${process.pid}`;
}

const namesShown = 2; // the title and the details have all of them

// processesText is short for many: "nginx (1827) +3, php-fpm (1900)".
export function processesText(processes) {
  const groups = new Map();
  for (const process of processes) groups.set(process.name, [...(groups.get(process.name) ?? []), process]);
  const texts = [...groups.values()].map(([first, ...others]) => processText(first) + (others.length ? ` +${others.length}` : ''));
  const more = texts.length - namesShown;
  return texts.slice(0, namesShown).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

// isLoopback tells of an "address:port" or a bare address.
export function isLoopback(address) {
  return address.startsWith('127.') || address === '::1' || address.startsWith('[::1]');
}

export const isWildcard = (address) => address === '0.0.0.0' || address === '::';

// addressText is where an endpoint or event listens: "::" takes IPv4 too, or it
// is not known whether.
export const addressText = ({ address, ipv6_only }) => (ipv6_only ? `${address} (IPv6 only)` : address ?? '');

// The exposures, with the sign that tells them apart without colour and the
// sentence for those who ask.
const exposures = {
  published: { sign: '↗', text: 'published', title: 'A port of the host forwards here: it can be reached from outside.' },
  'published-local': { sign: '⌂', text: 'published', title: 'A port of the host forwards here, from the host itself only.' },
  host: { sign: '↗', text: 'host', title: "It listens in the host's own network: it can be reached from outside." },
  network: { sign: '⇄', text: 'network', title: "Everything on the container's networks can reach it." },
  loopback: { sign: '○', text: 'loopback', title: 'Only processes in the same network namespace can reach it.' },
};

// exposureKind splits published ports by whether anything but the host reaches
// them.
export function exposureKind(exposure, published) {
  if (exposure === 'published' && published?.length && published.every(isLoopback)) return 'published-local';
  return exposure ?? '';
}

export const fromOutside = (kind) => kind === 'published' || kind === 'host';

// ofExposure names a kind that is not known here as it came.
export const ofExposure = (kind) => exposures[kind] ?? { sign: '', text: kind, title: '' };
