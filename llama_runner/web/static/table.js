// A table: sorted by a click on a column, in pages, with rows that stay the same elements.

import { el, renew } from "./dom.js";
import { count } from "./format.js";
import { newId } from "./widgets.js";
import { t } from "./texts.js";

/**
 * Make a table.
 *
 * `columns`: `{ title, cell(row), sort?(row), class? }`. `cell` returns a text or an element, `sort` a number or a text.
 * `key(row)` identifies a row, whose elements stay the same ones where they do not change.
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
  const nothing = el("div", null, empty);
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

  function line(row) {
    const signature = JSON.stringify(row);
    const before = drawn.get(key(row));
    if (before?.signature === signature) return before;
    if (!before) {
      const cells = columns.map((column) => el("td", { role: "cell", class: column.class, "data-title": column.title }, column.cell(row)));
      return { signature, node: el("tr", { role: "row" }, cells) };
    }
    columns.forEach((column, at) => renew(before.node.children[at], column.cell(row)));
    return { signature, node: before.node };
  }

  /** Show these lines, and touch no others: one that is taken out and put in again loses a press and the focus. */
  function put(lines) {
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    const place = [...body.children].findIndex((node) => node.contains(focused));
    const nodes = new Set(lines.map((each) => each.node));
    for (const node of [...body.children]) if (!nodes.has(node)) node.remove();
    let at = body.firstElementChild;
    for (const node of nodes) {
      if (node === at) at = at.nextElementSibling;
      else body.insertBefore(node, at);
    }
    if (!focused || document.activeElement === focused) return;
    const beside = body.children[Math.min(place, body.children.length - 1)]?.querySelector("a[href], button");
    (focused.isConnected ? focused : beside)?.focus({ preventScroll: true });
  }

  function draw() {
    page = Math.min(page, lastPage());
    const part = ordered().slice(page * size, (page + 1) * size);
    const now = new Map(part.map((row) => [key(row), line(row)]));
    drawn.clear();
    for (const [id_, each] of now) drawn.set(id_, each);
    put([...now.values()]);
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
    nothing.hidden = rows.length > 0;
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
