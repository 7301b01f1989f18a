// Find a model on the Hub, see what fits this machine, download it.

import * as api from "../api.js";
import { el, fill } from "../dom.js";
import { bytes, count, when } from "../format.js";
import { jobList } from "../job_card.js";
import { button, empty, field, name, notify, problem, section, tag, waiting } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";

export const title = "discover.title";

const MOST = 20;
const FITS = { fits: "good", "less context": "warn", "does not fit": "bad" };

export function show(container, context) {
  const words = el("input", { type: "search", required: true, value: context.query.get("q") ?? "" });
  const wanted = el("input", { type: "text", required: true, spellcheck: "false", placeholder: "ORG/MODEL:Q4_K_M" });
  const found = el("div", { "aria-live": "polite" });
  const machine = el("p", { class: "soft" });
  let searching = new AbortController();

  const download = (model) =>
    context.attempt(async () => {
      await api.post("/models", { name: model });
      notify(t("discover.started", { name: model }));
    });

  async function search() {
    searching.abort();
    const mine = (searching = new AbortController());
    waiting(found);
    try {
      const { results } = await api.get("/search", { query: words.value, limit: MOST }, mine.signal);
      const cards = results.map((each) => resultCard(each, context, download));
      const more = cards.length === MOST && el("p", { class: "soft" }, t("discover.most", { count: MOST }));
      fill(found, cards.length > 0 ? el("div", null, cards, more) : empty(t("discover.none")));
    } catch (error) {
      if (error.name !== "AbortError") fill(found, problem(error));
    }
  }

  function submit(event) {
    event.preventDefault();
    if (new URLSearchParams(context.query).get("q") === words.value) search();
    else location.hash = `#/discover?q=${encodeURIComponent(words.value)}`;
  }

  async function add(event) {
    event.preventDefault();
    await download(wanted.value.trim());
  }

  context.signal.addEventListener("abort", () => searching.abort());
  context.attempt(async () => {
    const now = await api.get("/machine", {}, context.signal);
    const devices = now.devices.map((each) => t("discover.device", { name: each.name, free: bytes(each.free) }));
    fill(machine, [t("discover.machine", { free: bytes(now.memory.available), disk: bytes(now.disk?.free) }), ...devices].join(" "));
  });
  // what was cancelled or has failed goes on from here too
  const downloads = jobList(context, (job) => job.state !== "done" && ["download", "prepare"].includes(job.kind), {
    onEnd: (job) => job.state === "done" && notify(t("discover.done", { name: job.name })),
  });
  container.append(
    el("form", { class: "toolbar", role: "search", on: { submit } }, field(t("discover.words"), words), el("button", { class: "primary" }, t("discover.search"))),
    machine,
    downloads,
    found,
    section(
      t("discover.byName"),
      el("form", { class: "toolbar", on: { submit: add } }, field(t("discover.name"), wanted), el("button", null, t("discover.download"))),
      el("p", { class: "soft" }, t("discover.nameHelp")),
    ),
  );
  if (words.value) search();
}

function resultCard(model, context, download) {
  const advice = el("div", { "aria-live": "polite" });
  const about = [
    t("discover.downloads", { count: count(model.downloads) }),
    t("discover.likes", { count: count(model.likes) }),
    model.updated && t("discover.updated", { when: when(model.updated) }),
  ].filter(Boolean);
  const rows = model.quantizations.map((each) => ({ ...each, repo: model.repo }));
  const choices = table({
    caption: t("discover.quantizationsOf", { name: model.repo }),
    key: (each) => each.name,
    size: 30,
    columns: [
      { title: t("models.quantizations"), cell: (each) => each.name, sort: (each) => each.name },
      { title: t("discover.size"), class: "number", cell: (each) => bytes(each.size), sort: (each) => each.size },
      { title: t("discover.here"), cell: (each) => (each.fits ? tag(t("discover.fits"), "good") : tag(t("discover.tooLarge"), "bad")), sort: (each) => (each.fits ? 0 : 1) },
      { title: t("models.actions"), cell: (each) => downloadButton(`${each.repo}:${each.name}`, each.fits) },
    ],
  });
  choices.update(rows);

  function downloadButton(wanted, fits = true) {
    const label = t("models.actionOn", { action: t("discover.download"), name: wanted });
    return button(t("discover.download"), () => download(wanted), { label, kind: fits ? "primary" : null });
  }

  const ask = () =>
    context.attempt(async () => {
      waiting(advice);
      try {
        fill(advice, recommendation(await api.get("/recommend", { model: model.repo }, context.signal)));
      } catch (error) {
        fill(advice);
        throw error;
      }
    });
  return el(
    "article",
    { class: "card", "aria-label": model.repo },
    el("h2", null, name(model.repo)),
    el("p", null, tag(model.license ? t("discover.license", { license: model.license }) : t("discover.noLicense"), model.license ? "plain" : "warn"), " ", model.gated && tag(t("discover.gated"), "warn")),
    el("p", { class: "soft" }, about.join(" · ")),
    model.gated && el("p", { class: "soft" }, t("discover.gatedHelp")),
    model.problem && el("p", { class: "warning" }, model.problem),
    rows.length > 0 ? choices.element : el("div", { class: "buttons" }, downloadButton(model.repo)),
    el("div", { class: "buttons" }, button(t("discover.recommend"), ask, { label: t("models.actionOn", { action: t("discover.recommend"), name: model.repo }) })),
    advice,
  );
}

function recommendation(found) {
  const rows = table({
    caption: t("discover.advice", { context: count(found.wanted_context), available: bytes(found.available) }),
    key: (each) => `${each.quantization} ${each.file} ${each.cache_type}`,
    columns: [
      { title: t("models.quantizations"), cell: (each) => each.quantization },
      { title: t("discover.size"), class: "number", cell: (each) => bytes(each.bytes), sort: (each) => each.bytes },
      { title: t("models.memory"), class: "number", cell: (each) => bytes(each.memory), sort: (each) => each.memory },
      { title: t("discover.context"), class: "number", cell: (each) => count(each.context), sort: (each) => each.context },
      { title: t("discover.speed"), class: "number", cell: (each) => (each.tokens_per_second ? count(each.tokens_per_second) : ""), sort: (each) => each.tokens_per_second ?? 0 },
      { title: t("discover.here"), cell: (each) => tag(t(`fits.${each.fits.replaceAll(" ", "_")}`), FITS[each.fits]) },
    ],
  });
  rows.update(found.rows);
  const best = found.recommended?.quantization;
  return [el("p", null, best ? t("discover.best", { quantization: best, why: found.why }) : found.why), rows.element];
}
