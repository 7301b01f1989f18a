// Asks for the key of the gateway once. It is kept nowhere: the gateway sets a cookie that scripts cannot read.

import * as api from "./api.js";
import { el, fill } from "./dom.js";
import { field, problem } from "./widgets.js";
import { t } from "./texts.js";

/** A form; `done` is called once the gateway knows the key. `needed`: nothing can be seen without one. */
export function signInForm(done, { needed, hasKeys }) {
  const key = el("input", { type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const told = el("div", null);
  const plain = location.protocol !== "https:" && el("p", { class: "warning" }, t("signIn.plain"));
  async function submit(event) {
    event.preventDefault();
    try {
      await api.signIn(key.value);
    } catch (error) {
      key.value = "";
      key.focus();
      fill(told, problem(error));
      return;
    }
    await done();
  }
  return el(
    "form",
    { class: "sign-in", on: { submit } },
    el("h1", null, t("signIn.title")),
    el("p", null, t(needed ? "signIn.lead" : "signIn.leadHere")),
    !hasKeys && el("p", { class: "warning" }, t("signIn.noKeys")),
    field(t("signIn.key"), key, t("signIn.keyHelp")),
    plain,
    told,
    el("div", { class: "buttons" }, el("button", { class: "primary" }, t("signIn.action"))),
  );
}
