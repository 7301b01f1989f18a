// An input for a value by its JSON Schema.

import { el } from "./dom.js";
import { t } from "./texts.js";

/** A value as a text. */
export const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

const NUMBER = /^-?\d+(\.\d+)?$/;

/** Return the input, a function that reads it once it is valid, and a text that helps. */
export function inputOf(schema, value) {
  const either = schema.anyOf ?? [schema];
  const words = either.flatMap((each) => each.enum ?? []);
  const takes = (type) => either.some((each) => each.type === type);
  const given = value === undefined ? "" : shown(value);
  if (schema.type === "boolean") return list([true, false], value);
  if (schema.enum && !schema.type) return list(schema.enum, value);
  if (either.length === 1 && (takes("integer") || takes("number"))) {
    const input = el("input", { type: "number", required: true, min: schema.minimum, max: schema.maximum, step: takes("integer") ? 1 : "any", value: given });
    return { input, read: () => Number(input.value) };
  }
  if (schema.type === "array" && schema.items?.type === "string") {
    const input = el("textarea", { rows: 5, spellcheck: "false" });
    input.value = (value ?? []).join("\n");
    return { input, help: t("configuration.lines"), read: () => input.value.split("\n").map((line) => line.trim()).filter(Boolean) };
  }
  if (takes("object") || takes("array") || takes("boolean")) {
    const input = el("textarea", { rows: 8, spellcheck: "false" });
    input.value = value === undefined ? "{}" : JSON.stringify(value, null, 2);
    input.addEventListener("input", () => input.setCustomValidity(isJson(input.value) ? "" : t("configuration.notJson")));
    return { input, help: t("configuration.json"), read: () => JSON.parse(input.value) };
  }
  const input = el("input", { type: "text", required: true, spellcheck: "false", value: given });
  const isNumber = takes("integer") || takes("number");
  const read = () => (isNumber && NUMBER.test(input.value.trim()) ? Number(input.value) : input.value);
  return { input, read, help: words.length > 0 ? t("configuration.words", { words: words.join(", ") }) : null };
}

function isJson(text) {
  try {
    JSON.parse(text);
  } catch {
    return false;
  }
  return true;
}

function list(values, value) {
  const input = el("select", null, values.map((each) => el("option", { value: JSON.stringify(each), selected: each === value }, shown(each))));
  return { input, read: () => JSON.parse(input.value) };
}
