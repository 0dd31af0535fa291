// The answer to "why can I not reach it?", for one port.

import { h } from './dom.js';

// explainer makes a button that finds out whether a port can be reached from other
// machines, and shows the way to it below. ask(params) requests /explain.
export function explainer(ask, target) {
  const answer = h('div', { role: 'status' });
  const button = h('button', { type: 'button' }, 'Can it be reached from outside?');
  button.addEventListener('click', async () => {
    button.disabled = true;
    answer.replaceChildren(h('p', null, 'portwatcher connects to the port.'));
    answer.replaceChildren(...await ask({ target }).then(way, (fault) => [h('p', { class: 'bad' }, `This could not be found out: ${fault.message}`)]));
    button.disabled = false;
  });
  return [button, answer];
}

function way({ links, reachable, remedy }) {
  const items = links.map(({ ok, text }) => h('li', { class: ok ? 'good' : 'bad' },
    h('span', { role: 'img', 'aria-label': ok ? 'works' : 'broken' }, ok ? '✓' : '✗'), h('span', null, text)));
  const parts = [h('p', null, reachable ? 'Yes: other machines can reach it.' : 'No: other machines cannot reach it.'), h('ol', null, ...items)];
  if (remedy) parts.push(h('p', { class: 'remedy' }, `→ ${remedy}`));
  return parts;
}
