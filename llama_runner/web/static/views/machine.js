// The machine: what is in use now, and what llama_runner finds here or misses.

import * as api from "../api.js";
import { el, fill, renew } from "../dom.js";
import { bytes, count, percent } from "../format.js";
import { button, facts, meter, name, problem, section, tag, waiting } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";

export const title = "machine.title";

const TOOLS = ["cmake", "ninja", "git", "compiler_cache", "nvcc", "glslc"];

export function show(container, context) {
  const live = el("div", null);
  const found = el("div", { "aria-live": "polite" });
  const draw = (now) => renew(live, load(now));

  async function check() {
    waiting(found);
    try {
      fill(found, diagnosis(await api.get("/doctor", {}, context.signal)));
    } catch (error) {
      if (error.name !== "AbortError") fill(found, problem(error));
    }
  }

  const read = () => context.attempt(async () => draw(await api.get("/machine", {}, context.signal)));
  context.listen(["machine"], (event) => (event.type === "machine" ? draw(event) : read()));
  fill(container, section(t("machine.now"), live), section(t("machine.found"), button(t("machine.again"), check), found));
  read();
  check();
}

function load(now) {
  const share = (text, used, total) =>
    meter(text, used, total, t("machine.share", { used: bytes(used), total: bytes(total), percent: percent(used, total) }));
  return [
    now.cpu_percent !== null &&
      meter(t("machine.processor"), now.cpu_percent, 100, t("machine.cores", { percent: `${count(now.cpu_percent)} %`, cores: now.cores })),
    share(t("models.memory"), now.memory.total - now.memory.available, now.memory.total),
    now.disk && share(t("machine.disk"), now.disk.total - now.disk.free, now.disk.total),
    now.devices.map((each) => (each.total && each.free !== null
      ? share(each.name, each.total - each.free, each.total)
      : el("p", null, name(each.name), " ", t("machine.unknownMemory")))),
    now.devices.length === 0 && el("p", { class: "soft" }, t("machine.noDevice")),
  ];
}

const code = (text) => el("code", null, text);

function diagnosis(found) {
  const { system, cpu, memory, gpus, toolchains, disk, versions } = found;
  const problems = found.problems.map((each) => el("li", null, each.what, each.hint && el("div", null, t("parts.hint", { hint: each.hint }))));
  const compiler = toolchains?.compiler ?? {};
  const tools = [...Object.entries({ c: compiler.c, "c++": compiler.cxx }), ...TOOLS.map((each) => [each, toolchains?.[each]])];
  return [
    el("p", null, tag(t(problems.length > 0 ? "machine.problems" : "machine.good"), problems.length > 0 ? "bad" : "good"), " ", typeof found.verdict === "string" && found.verdict),
    problems.length > 0 && el("ul", { class: "problem" }, problems),
    facts([
      [t("machine.system"), [system.distribution ?? system.os, system.kernel, system.platform].filter(Boolean).join(" · ")],
      [t("machine.container"), system.container],
      [t("machine.processor"), t("machine.model", { model: cpu.model ?? "?", cores: cpu.logical })],
      [t("machine.features"), cpu.features?.join(", ") || null],
      [t("models.memory"), bytes(memory.total)],
      [t("machine.limit"), memory.cgroup_limit && bytes(memory.cgroup_limit)],
      [t("machine.devices"), devices(gpus)],
      ...Object.entries(disk).map(([place, each]) => [t("machine.diskOf", { place }), [
        name(each.path), " ", t("machine.free", { free: bytes(each.free) }), " ", !each.writable && tag(t("machine.readOnly"), "bad"),
      ]]),
      ...Object.entries(versions ?? {}).filter(([, version]) => typeof version === "string"),
    ]),
    toolchains && [backends(toolchains), toolTable(tools)],
  ];
}

const devices = (gpus) => {
  const all = Array.isArray(gpus) ? gpus : gpus?.devices ?? [];
  return all.map((each) => each.name ?? String(each)).join(", ") || t("machine.noDevice");
};

/** What llama.cpp can be compiled for, and the command that installs what is missing. */
function backends(toolchains) {
  const found = table({
    caption: t("machine.backends"),
    key: (row) => row.name,
    columns: [
      { title: t("models.name"), cell: (row) => [row.name, row.name === toolchains.best?.name && [" ", tag(t("machine.best"))]], sort: (row) => row.name },
      { title: t("models.state"), cell: (row) => (row.missing.length > 0 ? tag(t("machine.missing"), "warn") : tag(t("machine.ready"), "good")), sort: (row) => row.missing.length },
      { title: t("machine.lacks"), cell: (row) => row.missing.join(", ") },
      { title: t("machine.install"), cell: (row) => row.install && code(row.install) },
    ],
  });
  found.update(Object.entries(toolchains.backends ?? {}).map(([each, about]) => ({ name: each, ...about })));
  return found.element;
}

function toolTable(tools) {
  const found = table({
    caption: t("machine.tools"),
    key: (row) => row.name,
    columns: [
      { title: t("models.name"), cell: (row) => row.name, sort: (row) => row.name },
      { title: t("machine.version"), cell: (row) => (row.path ? row.version ?? "" : tag(t("machine.missing"))) },
      { title: t("machine.path"), cell: (row) => row.path && name(row.path) },
    ],
  });
  found.update(tools.map(([each, about]) => ({ name: each, ...about })));
  return found.element;
}
