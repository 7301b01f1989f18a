// Why a model is as it is: what a start would run and for which reasons, and how its file was made. `#/why/NAME`.

import * as api from "../api.js";
import { el, fill, renew } from "../dom.js";
import { follow } from "../refresh_on_events.js";
import { bytes, seconds, when } from "../format.js";
import { graph } from "../step_graph.js";
import { button, empty, facts, field, name, problem, section, tag, waiting } from "../widgets.js";
import { t } from "../texts.js";

export const title = "why.title";

const KINDS = { source: "plain", skip: "good", run: "busy", fetch: "busy", wait: "warn" };

export function show(container, context) {
  const [wanted] = context.parts;
  waiting(container);
  const choice = el("select", { on: { change: () => context.go("why", choice.value) } });
  const plan = el("div", { "aria-live": "polite" });
  const history = el("div", null);

  async function ask(place, path, query, draw) {
    try {
      renew(place, draw(await api.get(path, query, context.signal)));
    } catch (error) {
      if (error.name === "AbortError") return;
      renew(place, error.type === "no_such_model" ? el("p", { class: "soft" }, error.message) : problem(error));
    }
  }

  const path = `/models/${api.part(wanted ?? "")}`;
  let online = false; // once the Hub was asked, it is asked again: what it said would be gone
  const readPlan = () => ask(plan, `${path}/plan`, { online }, planned);
  const askHub = () => {
    online = true;
    return readPlan();
  };
  const read = async () => {
    const { models } = await api.get("/models", { limit: 5000 }, context.signal);
    if (models.length === 0) {
      fill(container, empty(t("models.none"), el("a", { class: "button", href: "#/discover" }, t("models.find"))));
      return;
    }
    const options = models.map((each) => el("option", { value: each.name }, each.name));
    renew(choice, wanted === undefined && el("option", { value: "" }, t("why.choose")), options);
    choice.value = wanted ?? "";
    if (!choice.isConnected) {
      fill(
        container,
        el("div", { class: "toolbar" }, field(t("why.model"), choice)),
        wanted !== undefined && [
          section(t("why.next"), plan, button(t("why.online"), askHub)),
          section(t("why.before"), history),
        ],
      );
    }
    if (wanted === undefined) return;
    await Promise.all([readPlan(), ask(history, `${path}/why`, {}, made)]);
  };
  follow(context, ["models_changed", "model_ready", "job", "config_changed", "programs_changed"], read);
}

/** What a start would do: a drawing, and the same as a list in the order in which it is done. */
function planned(found) {
  const { nodes, edges } = found.graph;
  const titles = new Map(nodes.map((node) => [node.id, node.kind]));
  const runs = nodes.filter((node) => ["run", "fetch", "wait"].includes(node.action));
  return [
    el("p", null, t(runs.length > 0 ? "why.steps" : "why.nothing", { count: runs.length })),
    found.missing.length > 0 && el("p", { class: "warning" }, t("why.missing", { what: found.missing.join(", ") })),
    (found.needs.fetch > 0 || found.needs.disk > 0) && el("p", null, t("why.needs", { fetch: bytes(found.needs.fetch), disk: bytes(found.needs.disk) })),
    graph({
      label: t("why.drawing"),
      nodes: nodes.map((node) => ({ id: node.id, kind: node.action, title: node.kind, text: t(`planActions.${node.action}`) })),
      edges,
    }),
    el("ol", { class: "steps" }, nodes.map((node) => {
      const from = edges.filter((edge) => edge.to === node.id).map((edge) => `${titles.get(edge.from)} (${edge.input})`);
      return el(
        "li",
        null,
        el("strong", null, node.kind),
        " ",
        tag(t(`planActions.${node.action}`), KINDS[node.action]),
        node.reasons.length > 0 && [" ", node.reasons.join("; ")],
        facts([
          [t("why.from"), from.join(", ") || null],
          [t("why.output"), node.output && name(node.output)],
          [t("why.key"), node.key && name(node.key)],
          [t("why.fetch"), node.fetch > 0 ? bytes(node.fetch) : null],
          [t("why.disk"), node.disk > 0 ? bytes(node.disk) : null],
        ]),
      );
    })),
    el("details", null, el("summary", null, t("why.launch")), el("pre", { tabindex: 0, "aria-label": t("why.launch") }, found.launch.argv.join("\n"))),
  ];
}

/** How the file was made. */
function made(found) {
  const { nodes, edges } = found.graph;
  const past = found.past.map((each) => el(
    "li",
    null,
    each.at && el("span", { class: "soft" }, when(each.at), " "),
    each.text,
    each.seconds && ` (${seconds(each.seconds)})`,
  ));
  const list = (key, texts) => texts.length > 0 && [el("h3", null, t(key)), el("ul", null, texts.map((each) => el("li", null, each)))];
  return [
    facts([
      [t("why.file"), [name(found.path), " ", !found.is_here && tag(t("machine.missing"), "warn")]],
      [t("why.digest"), name(found.digest)],
      [t("models.state"), found.up_to_date === null ? found.not_planned : t(found.up_to_date ? "why.upToDate" : "why.outOfDate")],
    ]),
    past.length > 0 && el("ol", null, past),
    list("why.changed", found.changed),
    list("why.again", found.again_if),
    nodes.length > 0 && graph({
      label: t("why.drawingMade"),
      nodes: nodes.map((node) => ({ id: node.id, kind: node.kind, title: node.step ?? node.kind, text: node.path.split("/").at(-1) })),
      edges,
    }),
    nodes.length > 0 && el("ul", null, nodes.map((node) => el(
      "li",
      null,
      el("strong", null, node.step ?? node.kind),
      facts([[t("why.output"), name(node.path)], [t("why.digest"), name(node.id)], [t("why.key"), node.key && name(node.key)]]),
    ))),
  ];
}
