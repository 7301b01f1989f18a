// A job with its progress, and what can be done with it.

import * as api from "./api.js";
import { el, fill, renew } from "./dom.js";
import { amount, seconds, when } from "./format.js";
import { followedLog } from "./log.js";
import { button, name, problem, progress, tag } from "./widgets.js";
import { t } from "./texts.js";

const KINDS = { running: "busy", stopping: "busy", done: "good", failed: "bad", cancelled: "plain" };
const AGAIN = {
  download: (job) => api.post("/models", { name: job.name }),
  prepare: (job) => api.post(`/models/${api.part(job.name)}/prepare`),
};

/** Start the same work again; its new job takes the place of this one. */
async function goOn(job) {
  await AGAIN[job.kind](job);
  await api.remove(`/jobs/${job.id}`);
}

const isEnded = (job) => job.ended !== null;

function howFar(job) {
  const { progress: at } = job;
  if (isEnded(job)) return null;
  if (at === null) return progress(job.name, 0, 0);
  const rate = at.rate ? t("jobs.rate", { rate: amount(at.rate, at.unit) }) : null;
  const left = at.seconds_left !== null ? t("jobs.left", { time: seconds(at.seconds_left) }) : null;
  const done = at.total ? t("jobs.of", { done: amount(at.done, at.unit), total: amount(at.total, at.unit) }) : amount(at.done, at.unit);
  return [progress(job.name, at.done, at.total), el("p", { class: "soft" }, [at.step, done, rate, left].filter(Boolean).join(" · "))];
}

function buttons(job, context, showLog) {
  const make = (text, work, options) =>
    button(t(text), () => context.attempt(work), { key: text, label: t("models.actionOn", { action: t(text), name: job.name }), ...options });
  return el(
    "div",
    { class: "buttons" },
    job.state === "running" && make("jobs.cancel", () => api.post(`/jobs/${job.id}/cancel`)),
    ["failed", "cancelled"].includes(job.state) && AGAIN[job.kind] && make("jobs.again", () => goOn(job), { kind: "primary" }),
    job.state === "done" && AGAIN[job.kind] && el("a", { class: "button primary", href: `#/models/${api.part(job.name)}` }, t("jobs.toModel")),
    job.log && make("jobs.log", async () => showLog()),
    isEnded(job) && make("jobs.forget", () => api.remove(`/jobs/${job.id}`)),
  );
}

/** A card that shows a job; `update(job)` shows what is new. */
export function jobCard(job, context) {
  const log = el("div", null);
  const body = el("div", null);
  const showLog = () => fill(log, followedLog(`/jobs/${job.id}/log`, context));
  const message = (each) => el("p", { class: each.level === "warning" ? "warning" : "soft" }, each.text);
  const step = (each) => el("li", null, `${each.step}: ${t(`jobSteps.${each.state}`)}`, each.seconds !== null && ` (${seconds(each.seconds)})`);
  const update = (now) => renew(
    body,
    el("p", null, tag(t(`jobStates.${now.state}`), KINDS[now.state]), " ", el("span", { class: "soft" }, when(now.ended ?? now.began))),
    el("div", null, howFar(now)),
    el("div", null, now.error && problem(now.error), now.messages.map(message)),
    el("details", { hidden: now.steps.length === 0 }, el("summary", null, t("jobs.steps", { count: now.steps.length })), el("ul", null, now.steps.map(step))),
    buttons(now, context, showLog),
  );
  const element = el(
    "article",
    { class: "card", "data-job": job.id, "aria-label": `${t(`jobKinds.${job.kind}`)} ${job.name}` },
    el("h3", null, t(`jobKinds.${job.kind}`), " ", name(job.name), " "),
    body,
    log,
  );
  update(job);
  return { element, update };
}

/** All jobs that `wanted` takes, the newest first, as cards that follow the events. `onEnd(job)` is told of each end. */
export function jobList(context, wanted, { nothing = null, onEnd = () => {} } = {}) {
  const cards = new Map();
  const element = el("div", { class: "jobs" });

  function put(job, isNew) {
    const card = cards.get(job.id);
    if (card) {
      const ended = isEnded(job) && !card.ended;
      card.ended = isEnded(job);
      card.update(job);
      if (ended) onEnd(job);
      return;
    }
    if (!wanted(job)) return;
    if (cards.size === 0) fill(element);
    const made = { ...jobCard(job, context), ended: isEnded(job) };
    cards.set(job.id, made);
    if (isNew) element.prepend(made.element);
    else element.append(made.element);
    if (isNew && made.ended) onEnd(job);
  }

  function drop(id) {
    const card = cards.get(id)?.element;
    const hadFocus = card?.contains(document.activeElement);
    card?.remove();
    cards.delete(id);
    if (cards.size === 0) fill(element, nothing);
    if (hadFocus) (element.querySelector("button, a[href]") ?? document.querySelector("main")).focus({ preventScroll: true });
  }

  const read = () =>
    context.attempt(async () => {
      const { jobs } = await api.get("/jobs", {}, context.signal);
      for (const id of [...cards.keys()]) if (!jobs.some((job) => job.id === id)) drop(id);
      for (const job of jobs) put(job, false);
      if (cards.size === 0) fill(element, nothing);
    });
  context.listen(["job", "job_removed"], (event) => {
    if (event.type === "job") put(event.job, true);
    else if (event.type === "job_removed") drop(event.id);
    else read();
  });
  read();
  return element;
}
