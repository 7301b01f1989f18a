// The builds of llama.cpp: which one is in use, installing and compiling others, going back, updates.

import * as api from "../api.js";
import { confirm } from "../dialog.js";
import { el, fill, renew } from "../dom.js";
import { follow } from "../refresh_on_events.js";
import { bytes, count, when } from "../format.js";
import { jobList } from "../job_card.js";
import { button, empty, facts, field, name, notify, section, tag, waiting } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";

export const title = "programs.title";

const DEVICES = ["auto", "cpu", "cpu-portable", "cuda", "hip", "metal", "openblas", "vulkan"];

const FORCED = ["build_is_chosen", "usage_error"]; // a build that later runs take

export function show(container, context) {
  waiting(container);
  const chosen = el("p", null);
  const updates = el("div", { "aria-live": "polite" });
  const builds = table({
    caption: t("programs.caption"),
    key: (row) => row.path,
    empty: empty(t("programs.none")),
    columns: [
      { title: t("models.name"), cell: nameCell, sort: (row) => row.name },
      { title: t("programs.backend"), cell: (row) => row.backend, sort: (row) => row.backend },
      { title: t("machine.version"), cell: (row) => row.version ?? "", sort: (row) => row.build ?? 0 },
      { title: t("programs.origin"), cell: (row) => row.origin, sort: (row) => row.origin },
      { title: t("discover.size"), class: "number", cell: (row) => bytes(row.bytes), sort: (row) => row.bytes },
      { title: t("programs.made"), cell: (row) => when(row.made), sort: (row) => row.made },
      { title: t("models.actions"), cell: (row) => actions(row, context) },
    ],
  });

  const read = async () => {
    const found = await api.get("/programs", {}, context.signal);
    builds.update(found.programs.map((row) => ({ ...row, isNext: row.name === found.next, isUnused: found.unused.includes(row.name) })));
    renew(chosen, found.in_use === "auto" ? t("programs.automatic") : [t("programs.chosen"), " ", name(found.in_use)]);
  };
  const compare = (offline) => context.attempt(async () => {
    waiting(updates);
    try {
      fill(updates, newer(await api.get("/programs/updates", { offline }, context.signal), offline, context));
    } catch (error) {
      fill(updates);
      throw error;
    }
  });
  const jobs = jobList(context, (job) => ["build", "install"].includes(job.kind));
  const back = async () => {
    await api.post("/programs/rollback");
    notify(t("programs.rolledBack"));
  };

  fill(
    container,
    chosen,
    el(
      "div",
      { class: "buttons" },
      button(t("programs.back"), () => context.attempt(back)),
      button(t("programs.useAutomatic"), () => context.attempt(() => activate("auto"))),
    ),
    jobs,
    builds.element,
    section(t("programs.updates"), updates, button(t("programs.look"), () => compare(false))),
    section(t("programs.install"), el("p", { class: "soft" }, t("programs.installHelp")), installForm(context)),
    section(t("programs.build"), el("p", { class: "soft" }, t("programs.buildHelp")), buildForm(context)),
  );
  follow(context, ["programs_changed", "job", "model_ready", "model_stopped"], read);
  compare(true);
}

function nameCell(row) {
  const servers = row.servers.map((each) => each.alias).join(", ");
  return [
    name(row.name),
    row.in_use && [" ", tag(t("programs.inUse"), "good")],
    !row.in_use && row.isNext && [" ", tag(t("programs.next"), "good")],
    row.isUnused && [" ", tag(t("programs.unused"))],
    servers && el("div", { class: "soft" }, t("programs.runs"), " ", el("bdi", null, servers)),
    row.problem && el("p", { class: "warning" }, row.problem),
  ];
}

function actions(row, context) {
  const make = (text, work, options) =>
    button(t(text), () => context.attempt(work), { key: text, label: t("models.actionOn", { action: t(text), name: row.name }), ...options });
  return el(
    "div",
    { class: "buttons" },
    !row.in_use && make("programs.activate", () => activate(row.name)),
    make("programs.remove", () => remove(row), { kind: "danger" }),
  );
}

async function activate(wanted) {
  const found = await api.post(`/programs/${api.part(wanted)}/activate`);
  notify(found.in_use === "auto" ? t("programs.automatic") : t("programs.activated", { name: found.in_use }));
}

async function remove(row) {
  const lines = [t("programs.removeFrees", { bytes: bytes(row.bytes) }), name(row.path)];
  if (!(await confirm({ title: t("models.removeTitle", { name: row.name }), lines, action: t("programs.remove") }))) return;
  const path = `/programs/${api.part(row.name)}`;
  try {
    await api.remove(path);
  } catch (error) {
    if (!FORCED.includes(error.type)) throw error;
    const wanted = { title: t("models.removeTitle", { name: row.name }), lines: [error.message], action: t("models.removeAnyway") };
    if (!(await confirm(wanted))) return;
    await api.remove(path, { force: true });
  }
  notify(t("models.removed", { name: row.name, bytes: bytes(row.bytes) }));
}

/** How far the version in use is behind another one; null where that is not known. */
const distance = (behind) => behind !== null && ` (${t(behind > 0 ? "programs.behind" : "programs.newest", { count: count(behind) })})`;

function newer(found, offline, context) {
  const { pin, index, releases } = found;
  const install = () => context.attempt(() => api.post("/programs/install", { release: releases.tag }));
  const unknown = (why) => (offline ? t("programs.notAsked") : why);
  return [
    facts([
      [t("programs.pin"), t("programs.pinned", { build: pin.build, package: `${pin.package} ${pin.version}` })],
      [t("programs.index"), index.newest ? [index.newest, distance(index.behind)] : unknown(index.why)],
      [t("programs.releases"), releases.tag ? [name(releases.tag), distance(releases.behind), " ", releases.published && el("span", { class: "soft" }, when(releases.published))] : unknown(releases.why)],
    ]),
    releases.notes.map((each) => el("p", { class: "soft" }, each)),
    index.behind > 0 && el("p", { class: "soft" }, t("programs.upgrade")),
    releases.tag && !releases.archive && el("p", { class: "warning" }, t("programs.noArchive", { tag: releases.tag })),
    releases.behind > 0 && releases.archive && button(t("programs.installTag", { tag: releases.tag }), install, { kind: "primary" }),
  ];
}

const deviceList = () => el("select", null, DEVICES.map((each) => el("option", { value: each }, each)));

function installForm(context) {
  const release = el("input", { type: "text", required: true, value: "latest", spellcheck: "false" });
  const device = deviceList();
  return form(context, t("programs.installAction"), [field(t("programs.release"), release), field(t("programs.device"), device)], () =>
    api.post("/programs/install", { release: release.value.trim(), ...(device.value === "auto" ? {} : { device: device.value }) }));
}

function buildForm(context) {
  const device = deviceList();
  const jobs = el("input", { type: "number", min: 1, max: 1024 });
  const force = el("input", { type: "checkbox" });
  const inputs = [field(t("programs.device"), device), field(t("programs.jobs"), jobs), field(t("programs.force"), force)];
  return form(context, t("programs.buildAction"), inputs, () =>
    api.post("/programs/build", { device: device.value, force: force.checked, ...(jobs.value ? { jobs: Number(jobs.value) } : {}) }));
}

/** A form that starts a job. */
function form(context, action, inputs, start) {
  const submit = (event) => {
    event.preventDefault();
    context.attempt(start);
  };
  return el("form", { class: "toolbar", on: { submit } }, inputs, el("button", null, action));
}
