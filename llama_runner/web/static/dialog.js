// Questions before something is lost. The browser keeps the focus inside of a modal dialog.

import { el } from "./dom.js";
import { t } from "./texts.js";

let number = 0;

/** Ask, and return whether the answer is yes. `lines` say what will be lost, or have inputs; `action` is the word of the button. */
export function confirm({ title, lines = [], action, danger = true }) {
  return new Promise((resolve) => {
    const id = `dialog-${(number += 1)}`;
    const text = el("div", { id: `${id}-text` }, lines.map((line) => (line instanceof Node ? line : el("p", null, line))));
    const input = text.querySelector("input, select, textarea");
    const no = el("button", { type: "button", autofocus: !input, on: { click: () => box.close("no") } }, t("dialog.cancel"));
    const yes = el("button", { class: danger ? "danger" : "primary" }, action);
    function submit(event) {
      event.preventDefault();
      box.close("yes");
    }
    const box = el(
      "dialog",
      { "aria-labelledby": `${id}-title`, "aria-describedby": `${id}-text` },
      el("h2", { id: `${id}-title` }, title),
      el("form", { on: { submit } }, text, el("div", { class: "buttons" }, no, yes)),
    );
    input?.setAttribute("autofocus", "");
    const before = document.activeElement;
    box.addEventListener("close", () => {
      box.remove();
      (before?.isConnected ? before : document.querySelector("main")).focus();
      resolve(box.returnValue === "yes");
    });
    document.body.append(box);
    box.showModal();
  });
}
