// Elements. Text becomes text nodes only, so that no name of a model is ever read as HTML.

import { visible } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const SAFE_LINK = /^(#|\/(?!\/)|https?:\/\/)/;

function make(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
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
