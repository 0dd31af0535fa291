// Words and numbers as people read them.

import { bare, isolated } from './marks.js';

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
  const program = programOf(process);
  if (!process.name) return `pid ${process.pid}${program && ` (${program})`}`;
  return `${process.name} (${program && `${program}, `}${process.pid})`;
}

const maxName = 15; // bytes of a process's name, which the kernel cuts

// programOf is the file name of the executable, "" where the name shows it already.
function programOf(process) {
  const [name, executable] = [bare(process.name ?? ''), process.executable ?? ''];
  const program = bare(executable.slice(executable.lastIndexOf('/') + 1));
  const cut = program.startsWith(name) && new TextEncoder().encode(name).length > maxName - 4; // in the middle of a character
  return program === name || cut ? '' : isolated(program);
}

const namesShown = 2; // the title and the details have all of them

// processesText is short for many: "nginx (1827) +3, php-fpm (1900)".
export function processesText(processes) {
  const groups = new Map();
  for (const process of processes) {
    const key = `${process.name}\n${programOf(process)}`;
    groups.set(key, [...(groups.get(key) ?? []), process]);
  }
  const texts = [...groups.values()].map(([first, ...others]) => processText(first) + (others.length ? ` +${others.length}` : ''));
  const more = texts.length - namesShown;
  return texts.slice(0, namesShown).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

// isLoopback takes an "address:port" or a bare address.
export function isLoopback(address) {
  return address.startsWith('127.') || address === '::1' || address.startsWith('[::1]');
}

export const isWildcard = (address) => address === '0.0.0.0' || address === '::';

// addressText is the address of an endpoint or event. "::" may accept IPv4 too.
export const addressText = ({ address, ipv6_only, namespace }) =>
  (ipv6_only ? `${address} (IPv6 only)` : address ?? '') + (namespace ? ` in ${namespace}` : '');

// gapText describes what was missed, and why.
export function gapText({ lost, reason }) {
  const missed = lost ? `${count(lost, 'opening or closing was', 'openings and closings were')} missed` : 'Something may have been missed';
  return `${missed}: ${reason ?? 'no reason was given'}`;
}

// burstText is what a burst stands for: "31,245 ports opened and 31,244 closed
// within 1.0 s: 912 ports or more, among them 20000 to 20911, tcp on 127.0.0.1".
export function burstText(event) {
  const { opened = 0, closed = 0, first, last } = event;
  const seconds = (Date.parse(last) - Date.parse(first)) / 1000;
  const within = Number.isNaN(seconds) ? '' : ` within ${lasted(seconds)}`;
  const common = [portsText(event), !(event.port && event.protocol) && event.protocol].filter(Boolean).join(', ');
  const place = [common, event.address && `on ${addressText(event)}`].filter(Boolean).join(' ');
  return `${count(opened, 'port')} opened and ${closed.toLocaleString('en')} closed${within}${place && `: ${place}`}`;
}

function portsText({ port, protocol, ports = [], port_count: number = 0 }) {
  if (port) return protocol ? `${port}/${protocol}` : String(port);
  if (!number) return '';
  if (number === 1 && ports.length) return String(ports[0]);
  const known = number <= ports.length;
  const range = ports.length ? `, ${known ? '' : 'among them '}${ports[0]} to ${ports.at(-1)}` : '';
  return `${count(number, 'port')}${known ? '' : ' or more'}${range}`;
}

// The exposures, with a sign that differs without colour, and an explanation.
const exposures = {
  published: { sign: '↗', text: 'published', title: 'A port of the host forwards here: it can be reached from outside.' },
  'published-local': { sign: '⌂', text: 'published', title: 'A port of the host forwards here, from the host itself only.' },
  lan: { sign: '↗', text: 'lan', title: 'Other machines reach it at an address of its own, without a published port.' },
  host: { sign: '↗', text: 'host', title: "It listens in the host's own network: it can be reached from outside." },
  network: { sign: '⇄', text: 'network', title: "Everything on the container's networks can reach it." },
  loopback: { sign: '○', text: 'loopback', title: 'Only processes in the same network namespace can reach it.' },
};

// exposureKind splits published ports by whether anything but the host reaches
// them.
export function exposureKind({ exposure, outside }) {
  return exposure === 'published' && outside === false ? 'published-local' : exposure ?? '';
}

// ofExposure shows a kind that is missing in exposures as it is.
export const ofExposure = (kind) => exposures[kind] ?? { sign: '', text: kind, title: '' };
