// Small helpers for the document. What comes from containers is untrusted, so
// text only ever becomes text nodes and attributes, never markup.

// h makes an element. Props: "class", "on" (an object of listeners), and any
// attribute; null, undefined and false leave an attribute out.
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    } else {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// setText writes only what differs: an equal write would still cost a layout.
export function setText(element, text) {
  if (element.firstChild?.data !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// place makes nodes the children of parent, in this order. A node that stays
// is not moved as long as the order of those that stay does not change, so it
// keeps its focus and its scroll position. Focus in a removed child goes to
// the nearest link of a neighbour.
export function place(parent, nodes) {
  const wanted = new Set(nodes);
  for (let child = parent.firstChild; child;) {
    const next = child.nextSibling;
    if (!wanted.has(child)) {
      rescueFocus(child);
      child.remove();
    }
    child = next;
  }
  let at = parent.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
}

function rescueFocus(leaving) {
  if (!leaving.contains(document.activeElement)) return;
  const links = navigable(leaving.closest('[data-roving]') ?? document.body);
  const first = links.findIndex((link) => leaving.contains(link));
  const rest = links.slice(Math.max(first, 0)).find((link) => !leaving.contains(link));
  focusOn(rest ?? links[first - 1]);
}

function navigable(root) {
  return [...root.querySelectorAll('a[data-nav]')];
}

function focusOn(link) {
  if (!link) return;
  link.tabIndex = 0;
  link.focus();
  link.scrollIntoView({ block: 'nearest' });
}

// roving makes the a[data-nav] links below root one stop of the tab order,
// with the arrow keys, Home and End to move between them. The links are made
// with tabindex -1. It returns a function to call after the links changed.
export function roving(root) {
  root.setAttribute('data-roving', '');
  root.addEventListener('focusin', (event) => {
    const link = event.target.closest('a[data-nav]');
    if (!link) return;
    for (const other of root.querySelectorAll('a[data-nav][tabindex="0"]')) {
      if (other !== link) other.tabIndex = -1;
    }
    link.tabIndex = 0;
  });
  root.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.closest('a[data-nav]')) return;
    const links = navigable(root);
    const at = links.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    focusOn(links[to]);
  });
  return () => {
    if (root.querySelector('a[data-nav][tabindex="0"]')) return;
    const first = root.querySelector('a[data-nav]');
    if (first) first.tabIndex = 0;
  };
}

// enter moves the focus to the link of root that the tab key would reach.
export function enter(root) {
  focusOn(root.querySelector('a[data-nav][tabindex="0"]') ?? root.querySelector('a[data-nav]'));
}

// Frames calls draw in an animation frame after request, at most once in gap
// milliseconds (which may be changed), and not at all while the page is hidden: then the next frame
// draws everything that came meanwhile.
export class Frames {
  #draw;
  #last = -Infinity;
  #pending = false;

  constructor(draw, gap) {
    this.#draw = draw;
    this.gap = gap;
  }

  request() {
    if (this.#pending) return;
    this.#pending = true;
    const wait = this.#last + this.gap - performance.now();
    if (wait > 0) setTimeout(() => this.#frame(), wait);
    else this.#frame();
  }

  #frame() {
    requestAnimationFrame((now) => {
      this.#pending = false;
      this.#last = now;
      this.#draw();
    });
  }
}
