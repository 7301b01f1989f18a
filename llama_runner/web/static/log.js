// The last lines of a log, and those to come.

import { el, fill, renewText } from "./dom.js";
import { visible } from "./format.js";
import { field } from "./widgets.js";
import { t } from "./texts.js";

const MOST = 2000; // lines; what is older is forgotten, but not while somebody reads it
const LONGEST = 2000; // characters of a line
const PAUSE_MS = 100;

/** Follow a log at a path of the management API until the view is left. Returns an element with a filter. */
export function followedLog(path, context, lines = 200) {
  let found = [];
  let first = 0; // of those that are shown
  let drawing = null;
  const content = document.createTextNode("");
  const words = el("input", { type: "search", on: { input: draw } });
  const text = el("pre", { tabindex: 0, role: "log", "aria-live": "off", "aria-label": t("log.title") }, content);
  const told = el("p", { class: "soft", role: "status" });
  const source = new EventSource(`/api/v1${path}?follow=true&lines=${lines}`);

  function draw() {
    clearTimeout(drawing);
    drawing = null;
    const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
    const wanted = words.value.toLowerCase();
    if (atEnd) first = Math.max(0, found.length - MOST);
    const latest = found.slice(first);
    renewText(content, visible((wanted ? latest.filter((line) => line.toLowerCase().includes(wanted)) : latest).join("\n")));
    if (atEnd) text.scrollTop = text.scrollHeight;
  }

  function end(key) {
    source.close();
    fill(told, t(key));
  }

  source.addEventListener("line", (message) => {
    const line = JSON.parse(message.data).text;
    found.push(line.length > LONGEST ? `${line.slice(0, LONGEST)}…` : line);
    if (found.length >= 2 * MOST) { // seldom, as it copies
      first = Math.max(0, first - (found.length - MOST));
      found = found.slice(-MOST);
    }
    drawing ??= setTimeout(draw, PAUSE_MS);
  });
  source.addEventListener("end", () => end("log.ended"));
  source.addEventListener("error", () => end(found.length > 0 ? "log.lost" : "log.none"));
  context.signal.addEventListener("abort", () => {
    source.close();
    clearTimeout(drawing);
  });
  return el("div", { class: "log" }, field(t("log.filter"), words), text, told);
}
