// Elements. Text becomes text nodes only, so that no name of a model is ever read as HTML.

import { visible } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const SAFE_LINK = /^(#|\/(?!\/)|https?:\/\/)/;

const handlers = new WeakMap();

function handle(event) {
  return handlers.get(event.currentTarget)?.[event.type]?.(event);
}

/** Let an element call these handlers, by event, instead of earlier ones. */
function setHandlers(node, found) {
  handlers.set(node, found);
  for (const event of Object.keys(found ?? {})) node.addEventListener(event, handle);
}

function make(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      setHandlers(node, value);
    } else if (name.startsWith("on") || name === "style" || name === "srcdoc") {
      throw new Error(`${name} is not allowed`);
    } else if (name === "href" && !SAFE_LINK.test(value)) {
      continue;
    } else {
      node.setAttribute(name, value === true ? "" : name === "value" || name === "href" ? value : visible(value));
    }
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
}

/** An element. `props` are attributes; `on` has handlers by event. `null` and `false` are left out. */
export function el(tag, props, ...children) {
  return make(document.createElement(tag), props, children);
}

/** The same for a drawing. */
export function svg(tag, props, ...children) {
  return make(document.createElementNS(SVG, tag), props, children);
}

/** Replace what an element contains. */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

/**
 * Replace what an element contains by new children, so that elements which stay as they are remain the same ones.
 *
 * For what is shown again after events: a press, the focus, an opened `details`, a scroll position and a selection are
 * not lost. Elements with the same `data-focus` are the same. A focus whose element is gone goes to a button beside it.
 */
export function renew(node, ...children) {
  const focused = node.contains(document.activeElement) && document.activeElement !== node ? document.activeElement : null;
  const wanted = document.createElement(node.tagName);
  append(wanted, children);
  renewChildren(node, wanted);
  if (focused && !focused.isConnected) {
    const same = focused.dataset.focus && node.querySelector(`[data-focus="${CSS.escape(focused.dataset.focus)}"]`);
    (same || node.querySelector("button, a[href]"))?.focus({ preventScroll: true });
  }
  return node;
}

function renewChildren(node, wanted) {
  let at = node.firstChild;
  for (const next of [...wanted.childNodes]) {
    let same = at;
    while (same && !areSame(same, next)) same = same.nextSibling;
    if (!same) {
      node.insertBefore(next, at);
      continue;
    }
    while (at !== same) at = removed(at);
    at = same.nextSibling;
    if (same.nodeType === Node.TEXT_NODE) renewText(same, next.data);
    else renewElement(same, next);
  }
  while (at) at = removed(at);
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

const areSame = (one, other) => one.nodeName === other.nodeName && one.dataset?.focus === other.dataset?.focus;

function renewElement(node, wanted) {
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  for (const { name } of [...node.attributes]) {
    // what the user opened stays open; a button whose handler runs is not to be used yet
    if (!wanted.hasAttribute(name) && name !== "open" && name !== "aria-disabled") node.removeAttribute(name);
  }
  setHandlers(node, handlers.get(wanted));
  renewChildren(node, wanted);
}

/** Change a text by what is gone at its beginning and new at its end, if that is all: a selection stays. */
export function renewText(node, wanted) {
  const before = node.data;
  if (before === wanted) return;
  const gone = wanted.startsWith(before) ? 0 : before.indexOf(wanted.slice(0, 100));
  if (gone < 0 || !wanted.startsWith(before.slice(gone))) {
    node.data = wanted;
    return;
  }
  if (gone > 0) node.deleteData(0, gone);
  node.appendData(wanted.slice(before.length - gone));
}
