// What has happened: jobs, and the events since the page was opened.

import { el, fill } from "../dom.js";
import { kept } from "../events.js";
import { when } from "../format.js";
import { jobList } from "../job_card.js";
import { empty, field, section } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";

export const title = "activity.title";

const PAUSE_MS = 100; // several events are drawn at once

export function show(container, context) {
  const kinds = el("select", { on: { change: draw } }, el("option", { value: "" }, t("activity.all")));
  const list = table({
    caption: t("activity.caption"),
    key: (row) => row.number,
    size: 25,
    empty: empty(t("activity.noEvents")),
    columns: [
      { title: t("activity.time"), cell: (row) => when(row.time) },
      { title: t("activity.event"), cell: (row) => row.type.replaceAll("_", " ") },
      { title: t("activity.about"), cell: (row) => el("bdi", null, row.model ?? row.job?.name ?? row.file ?? "") },
      { title: t("activity.details"), cell: (row) => row.error?.message ?? row.job?.state ?? "" },
    ],
  });
  const known = new Set();
  let drawing = null;

  function draw() {
    clearTimeout(drawing);
    drawing = null;
    for (const each of kept()) {
      if (!known.has(each.type)) {
        known.add(each.type);
        kinds.append(el("option", { value: each.type }, each.type.replaceAll("_", " ")));
      }
    }
    list.update(kept().filter((each) => !kinds.value || each.type === kinds.value).reverse());
  }

  context.listen(null, (event) => {
    if (!["running", "machine", "memory_measured"].includes(event.type)) drawing ??= setTimeout(draw, PAUSE_MS);
  });
  fill(
    container,
    section(t("activity.jobs"), jobList(context, () => true, { nothing: empty(t("activity.noJobs"), el("a", { class: "button", href: "#/discover" }, t("models.find"))) })),
    section(t("activity.events"), field(t("activity.kind"), kinds), list.element),
  );
  context.signal.addEventListener("abort", () => clearTimeout(drawing));
  draw();
}
