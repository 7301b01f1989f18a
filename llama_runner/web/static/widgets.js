// Pieces that several views are made of.

import { el, fill } from "./dom.js";
import { percent } from "./format.js";
import { t } from "./texts.js";

let number = 0;

/** A new id, to join a label with what it names. */
export const newId = (word) => `${word}-${(number += 1)}`;

/** A button. It cannot be used again before its handler has ended. `label` is for screen readers, with the name of what it acts on. */
export function button(text, handler, { kind, label, key, disabled } = {}) {
  async function click({ currentTarget: pressed }) {
    if (pressed.getAttribute("aria-disabled") === "true") return;
    pressed.setAttribute("aria-disabled", "true");
    try {
      await handler();
    } finally {
      pressed.removeAttribute("aria-disabled");
    }
  }
  return el("button", { type: "button", class: kind, "aria-label": label, "data-focus": key, disabled, on: { click } }, text);
}

/** A word about something: `kind` is good, warn, bad, busy or plain. */
export const tag = (text, kind = "plain") => el("span", { class: `tag ${kind}` }, text);

/** A name of somebody else, kept apart from the direction of the text around it. */
export const name = (text) => el("bdi", { class: "name" }, text);

/** What a view shows where there is nothing. */
export const empty = (text, ...actions) => el("div", { class: "empty" }, el("p", null, text), ...actions);

/** A label with its input, and help below. */
export function field(text, input, help) {
  const id = input.id || newId("field");
  input.id = id;
  if (help) input.setAttribute("aria-describedby", `${id}-help`);
  return el(
    "div",
    { class: "field" },
    el("label", { for: id }, text),
    input,
    help && el("p", { class: "help", id: `${id}-help` }, help),
  );
}

/** An error with its hint and the last lines of its log. */
export function problem(error) {
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("p", null, el("strong", null, error.message ?? String(error))),
    error.hint && el("p", null, t("parts.hint", { hint: error.hint })),
    error.log?.length > 0 && el("pre", { tabindex: 0, "aria-label": t("parts.log") }, error.log.join("\n")),
  );
}

/** How far something is. Without a total it is not known. */
export function progress(label, done, total) {
  const known = total > 0;
  return el(
    "div",
    { class: "progress" },
    el("progress", { "aria-label": label, max: known ? total : null, value: known ? Math.min(done, total) : null }),
    known && el("span", { "aria-hidden": "true" }, percent(done, total)),
  );
}

/** How much of something is in use, as a bar with its numbers as text. */
export function meter(label, used, total, text) {
  const bar = el("meter", { "aria-label": label, min: 0, max: total || 1, value: used, high: total * 0.9, optimum: 0 });
  return el("div", { class: "meter" }, el("span", null, label), bar, el("span", null, text));
}

/** Pairs of a term and its value. */
export const facts = (pairs) =>
  el("dl", null, pairs.filter(([, value]) => value !== null && value !== undefined).map(([term, value]) => [
    el("dt", null, term),
    el("dd", null, value),
  ]));

/** A part of a view with a heading. */
export const section = (title, ...children) => el("section", null, el("h2", null, title), ...children);

const MOST_NOTICES = 5;
const NOTICE_MS = 8000;

const notices = el("div", { id: "notices", role: "status", "aria-live": "polite" });

/** Where notices stand. */
export const noticeArea = () => notices;

/** Tell something. What went wrong stays until it is closed. */
export function notify(text, { error = false, hint, action } = {}) {
  const close = el("button", { type: "button", "aria-label": t("parts.close"), on: { click: () => box.remove() } }, "×");
  const box = el("div", { class: error ? "notice bad" : "notice" }, el("p", null, text), hint && el("p", null, hint), action, close);
  notices.prepend(box); // those below stay where they are
  const older = [...notices.children].slice(1).reverse();
  if (older.length >= MOST_NOTICES) (older.find((each) => !each.classList.contains("bad")) ?? older[0]).remove();
  if (!error) setTimeout(end, NOTICE_MS);

  /** Remove it, but not while somebody is at it. */
  function end() {
    if (box.matches(":hover, :focus-within")) setTimeout(end, NOTICE_MS);
    else box.remove();
  }
}

/** Show `node` once there is something: until then what is being done. */
export const waiting = (container) => fill(container, el("p", { class: "waiting" }, t("parts.waiting")));
