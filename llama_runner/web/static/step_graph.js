// A graph drawn as SVG: what a node is made from stands left of it. The same is told as text beside it.

import { el, svg } from "./dom.js";
import { visible } from "./format.js";

const WIDTH = 176;
const HEIGHT = 52;
const GAP = 40;
const MOST = 22;

const short = (text) => (text.length > MOST ? `${text.slice(0, MOST - 1)}…` : text);

/** How many edges lie before each node, at most. */
function columnsOf(nodes, edges) {
  const columns = new Map(nodes.map((node) => [node.id, 0]));
  for (let round = 0; round < nodes.length; round += 1) {
    for (const { from, to } of edges) {
      if (columns.has(from) && columns.has(to)) columns.set(to, Math.min(nodes.length, Math.max(columns.get(to), columns.get(from) + 1)));
    }
  }
  return columns;
}

/** Draw nodes `{ id, title, text, kind }` and edges `{ from, to, keyed }`; `label` is for screen readers. */
export function graph({ nodes, edges, label }) {
  const columns = columnsOf(nodes, edges);
  const places = new Map();
  const heights = [];
  const place = (column) => {
    const row = (heights[column] = (heights[column] ?? 0) + 1) - 1;
    return { x: 1 + column * (WIDTH + GAP), y: 1 + row * (HEIGHT + GAP / 2) };
  };
  for (const node of nodes) places.set(node.id, place(columns.get(node.id)));
  const lines = edges.filter(({ from, to }) => places.has(from) && places.has(to)).map(({ from, to, keyed }) => {
    const begin = places.get(from);
    let [x, y] = [begin.x + WIDTH, begin.y + HEIGHT / 2];
    let path = `M${x} ${y}`;
    // A line over several columns has a row of its own in those between, so that it passes behind no box.
    const between = [];
    for (let column = columns.get(from) + 1; column < columns.get(to); column += 1) between.push(place(column));
    for (const next of [...between, places.get(to)]) {
      const [middle, down] = [(x + next.x) / 2, next.y + HEIGHT / 2];
      path += `C${middle} ${y} ${middle} ${down} ${next.x} ${down}${next === places.get(to) ? "" : `h${WIDTH}`}`;
      [x, y] = [next.x + WIDTH, down];
    }
    return svg("path", { class: keyed ? "edge" : "edge loose", d: path });
  });
  const boxes = nodes.map((node) => {
    const { x, y } = places.get(node.id);
    return svg(
      "g",
      { class: `node ${node.kind}` },
      svg("title", null, `${node.title}: ${node.text}`),
      svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 6 }),
      svg("text", { x: x + 10, y: y + 21, class: "title" }, short(visible(node.title))),
      svg("text", { x: x + 10, y: y + 41 }, short(visible(node.text))),
    );
  });
  const width = heights.length * (WIDTH + GAP) - GAP + 2;
  const height = Math.max(0, ...heights) * (HEIGHT + GAP / 2) - GAP / 2 + 2;
  const drawing = svg("svg", { role: "img", "aria-label": label, width, height, viewBox: `0 0 ${width} ${height}` }, lines, boxes);
  return el("div", { class: "graph wide", tabindex: 0, role: "group", "aria-label": label }, drawing);
}
