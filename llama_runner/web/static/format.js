// Numbers, times and foreign text as people read them. Pure.

const NUMBERS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const TIMES = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];

// Control characters and marks that change the direction of a text. Line ends and tabs stay.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** A text without characters that hide or reorder others: they are shown by their number. */
export function visible(text) {
  return String(text).replace(INVISIBLE, (found) => `\\u${found.codePointAt(0).toString(16).padStart(4, "0")}`);
}

export function count(number) {
  return number === null || number === undefined ? "-" : NUMBERS.format(number);
}

export function bytes(number) {
  if (number === null || number === undefined) return "-";
  let unit = 0;
  let rest = Math.abs(number);
  while (rest >= 999.5 && unit < UNITS.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  const shown = unit > 0 && rest < 9.95 ? rest.toFixed(1) : Math.round(rest);
  return `${number < 0 ? "-" : ""}${shown} ${UNITS[unit]}`;
}

export function seconds(number) {
  if (number === null || number === undefined) return "-";
  if (number < 1) return `${Math.round(number * 1000)} ms`;
  if (number < 60) return `${NUMBERS.format(number)} s`;
  if (number < 3600) return `${Math.floor(number / 60)} min ${Math.round(number % 60)} s`;
  return `${Math.floor(number / 3600)} h ${Math.floor((number % 3600) / 60)} min`;
}

export function percent(part, whole) {
  return whole > 0 ? `${Math.floor((100 * part) / whole)} %` : "-";
}

/** A moment: a text of ISO 8601, or seconds since 1970. */
export function when(moment) {
  if (moment === null || moment === undefined) return "-";
  const found = new Date(typeof moment === "number" ? moment * 1000 : moment);
  return Number.isNaN(found.getTime()) ? String(moment) : TIMES.format(found);
}

/** A number of `unit` as jobs count: bytes, or tensors, chunks, files. */
export function amount(number, unit) {
  return unit === "bytes" ? bytes(number) : `${count(number)} ${unit}`.trim();
}
