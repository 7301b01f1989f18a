// Where the page begins: its frame, signing in, the router, the connection.

import * as api from "./api.js";
import { el, fill, renew } from "./dom.js";
import * as events from "./events.js";
import { button, noticeArea, notify, problem } from "./widgets.js";
import { signInForm } from "./sign_in.js";
import { t } from "./texts.js";
import { FIRST, VIEWS } from "./views/navigation.js";

const VERSION = new URL(import.meta.url).pathname.split("/")[2];

const main = el("main", { id: "main", tabindex: -1 });
const connection = el("p", { id: "connection", role: "status" }, t("app.connecting"));
const account = el("div", { id: "account" });
const links = new Map(
  Object.entries(VIEWS)
    .filter(([, view]) => view.inNavigation !== false)
    .map(([name, view]) => [name, el("a", { href: `#/${name}` }, t(view.title))]),
);
let leave = () => {};
let isFirst = true;

fill(
  document.body,
  el("a", { class: "skip", href: "#main", on: { click: skip } }, t("app.skip")),
  el("header", null, el("a", { class: "brand", href: "#/" }, t("app.name")), connection, account),
  el("nav", { "aria-label": t("app.views") }, el("ul", null, [...links.values()].map((link) => el("li", null, link)))),
  main,
  noticeArea(),
);

function skip(event) {
  event.preventDefault();
  main.focus();
}

/** What the hash says: `#/models/a%2Fb?state=ready` is the view "models" with the parts ["a/b"] and a query. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const view = Object.hasOwn(VIEWS, parts[0]) ? parts[0] : FIRST;
  return { view, parts: parts.slice(1), query: new URLSearchParams(query) };
}

/** What a view gets. What it began ends when it is left. */
function contextOf(found, endings, signal) {
  return {
    parts: found.parts,
    query: found.query,
    signal,
    /** Call a handler with events of these types, and with `reset`. */
    listen(types, handler) {
      endings.push(events.listen(types, handler));
    },
    /** Do something; an error becomes a notice with its hint. Returns undefined then. */
    async attempt(work) {
      try {
        return await work();
      } catch (error) {
        if (error.name === "AbortError" || signal.aborted) return undefined;
        if (!(error instanceof api.ApiError)) console.error(error);
        if (error.status !== 401) notify(error.message, { error: true, hint: error.hint });
        return undefined;
      }
    },
    /** Go to another view. */
    go(view, ...parts) {
      location.hash = ["#", view, ...parts.map(encodeURIComponent)].join("/");
    },
  };
}

function showView() {
  leave();
  const found = place();
  const view = VIEWS[found.view];
  const endings = [];
  const ending = new AbortController();
  const container = el("div", { class: `view ${found.view}` });
  const heading = el("h1", { tabindex: -1 }, t(view.title));
  leave = () => {
    ending.abort();
    for (const end of endings.splice(0)) end?.();
  };
  document.title = t("app.title", { view: t(view.title) });
  for (const [name, link] of links) {
    if (name === found.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  fill(main, heading, container);
  if (!isFirst) heading.focus();
  isFirst = false;
  try {
    endings.push(view.show(container, contextOf(found, endings, ending.signal)));
  } catch (error) {
    console.error(error);
    fill(container, problem({ message: t("app.failed", { message: error.message }) }));
  }
}

/** Ask who the browser is; show the page, or ask for the key. Returns whether there is no need of one. */
async function enter() {
  let found;
  try {
    found = await api.session();
  } catch {
    return true;
  }
  if (found.version !== VERSION) askForReload();
  const way = found.signed_in ? button(t("signIn.out"), signOut) : found.has_keys && button(t("signIn.action"), async () => askForKey(found));
  renew(account, !found.needed || found.signed_in ? way : null);
  if (found.needed) askForKey(found);
  return !found.needed;
}

/** Show the form for the key in place of a view. */
function askForKey({ needed, has_keys: hasKeys }) {
  if (document.body.classList.contains("signed-out")) return; // it is shown, and somebody may write into it
  leave();
  leave = () => {};
  if (needed) {
    events.stop();
    document.body.classList.add("signed-out");
  }
  document.title = t("app.title", { view: t("signIn.title") });
  fill(main, signInForm(begin, { needed, hasKeys }));
}

let asked = false;

function askForReload() {
  if (asked) return;
  asked = true;
  notify(t("app.updated"), { error: true, action: button(t("app.reload"), () => location.reload()) });
}

async function signOut() {
  await api.signOut().catch((error) => notify(error.message, { error: true, hint: error.hint }));
  if (await enter()) showView();
  else notify(t("signIn.signedOut"));
}

async function begin() {
  if (!(await enter())) return;
  document.body.classList.remove("signed-out");
  events.start(enter);
  showView();
}

api.onSignedOut(() => enter());
events.watch((state) => {
  connection.className = state;
  fill(connection, state === "closed" ? t("app.closed") : t(`app.${state}`));
});
window.addEventListener("hashchange", () => {
  if (location.hash !== "#main" && !document.body.classList.contains("signed-out")) showView();
});
begin();
