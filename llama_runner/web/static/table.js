// A table: sorted by a click on a column, in pages, with rows that stay the same elements while they do not change.

import { el, fill } from "./dom.js";
import { count } from "./format.js";
import { newId } from "./widgets.js";
import { t } from "./texts.js";

/**
 * Make a table.
 *
 * `columns`: `{ title, cell(row), sort?(row), class? }`. `cell` returns a text or an element, `sort` a number or a text.
 * `key(row)` identifies a row; a row is drawn again only where its JSON changed, so that the focus stays in it.
 * Returns `{ element, update(rows) }`.
 */
export function table({ caption, columns, key, size = 50, empty }) {
  let rows = [];
  let page = 0;
  let sorted = { column: -1, down: false };
  const drawn = new Map();
  const body = el("tbody", { role: "rowgroup" });
  const id = newId("table");
  const heads = columns.map((column, at) =>
    el(
      "th",
      { scope: "col", role: "columnheader", class: column.class },
      column.sort ? el("button", { type: "button", class: "sort", on: { click: () => sort(at) } }, column.title) : column.title,
    ),
  );
  const shown = el("p", { class: "shown", role: "status" });
  const steps = [
    ["table.first", () => 0],
    ["table.previous", () => page - 1],
    ["table.next", () => page + 1],
    ["table.last", (last) => last],
  ].map(([text, to]) => el("button", { type: "button", on: { click: () => turn(to(lastPage())) } }, t(text)));
  const pager = el("nav", { class: "pager", "aria-label": t("table.pages", { caption }) }, ...steps, shown);
  const whole = el(
    "table",
    { role: "table", "aria-labelledby": id },
    el("caption", { id }, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)),
    body,
  );
  const nothing = el("div", null);
  const element = el("div", { class: "table" }, whole, pager, nothing);

  const lastPage = () => Math.max(0, Math.ceil(rows.length / size) - 1);

  function sort(at) {
    sorted = { column: at, down: sorted.column === at && !sorted.down };
    page = 0;
    draw();
  }

  function turn(to) {
    page = Math.min(Math.max(0, to), lastPage());
    draw();
    whole.scrollIntoView({ block: "nearest" });
  }

  function ordered() {
    const by = columns[sorted.column]?.sort;
    if (!by) return rows;
    const sign = sorted.down ? -1 : 1;
    return [...rows].sort((one, other) => {
      const [a, b] = [by(one) ?? "", by(other) ?? ""];
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    });
  }

  function line(row, id_) {
    const signature = JSON.stringify(row);
    const before = drawn.get(id_);
    if (before?.signature === signature) return before;
    const cells = columns.map((column) =>
      el("td", { role: "cell", class: column.class, "data-title": column.title }, column.cell(row)),
    );
    return { signature, node: el("tr", { role: "row" }, cells), before: before?.node };
  }

  function draw() {
    page = Math.min(page, lastPage());
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    const part = ordered().slice(page * size, (page + 1) * size);
    const now = new Map(part.map((row) => [key(row), line(row, key(row))]));
    const owner = focused && [...drawn].find(([, each]) => each.node.contains(focused))?.[0];
    drawn.clear();
    for (const [id_, each] of now) drawn.set(id_, each);
    const nodes = [...now.values()].map((each) => each.node);
    if (nodes.length !== body.children.length || nodes.some((node, at) => body.children[at] !== node)) fill(body, nodes);
    if (focused) {
      const again = now.get(owner)?.node.querySelector(`[data-focus="${CSS.escape(focused.dataset.focus ?? "")}"]`);
      (focused.isConnected ? focused : again)?.focus();
    }
    heads.forEach((head, at) => {
      if (at === sorted.column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    pager.hidden = rows.length <= size;
    const first = page * size + 1;
    shown.textContent = t("table.shown", {
      first: count(first),
      last: count(Math.min(rows.length, first + size - 1)),
      total: count(rows.length),
    });
    [page === 0, page === 0, page === lastPage(), page === lastPage()].forEach((at, step) => (steps[step].disabled = at));
    whole.hidden = rows.length === 0;
    fill(nothing, rows.length === 0 ? empty : null);
  }

  draw();
  return {
    element,
    update(found) {
      rows = found;
      draw();
    },
  };
}
