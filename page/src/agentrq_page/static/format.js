/** Times, amounts and sizes in words. Pure. */

/** @param {number} amount USD */
export const dollars = (amount) => (amount >= 1 || amount === 0 ? `$${amount.toFixed(2)}` : `$${amount.toFixed(4)}`);

/** @param {number} count */
export const compactNumber = (count) => new Intl.NumberFormat("en", { notation: "compact" }).format(count);

/**
 * How long, roughly: `12 s`, `3 min`, `2 h 5 min`, `4 d`.
 * @param {number} ms
 */
export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return ms < 10_000 && ms % 1000 ? `${(Math.max(0, ms) / 1000).toFixed(1)} s` : `${s} s`;
  if (s < 3600) return s < 600 && s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d`;
}

/**
 * A time as people say it: `just now`, `5 min ago`, `in 20 s`.
 * @param {number} time ms
 * @param {number} now ms
 */
export function relative(time, now) {
  const ms = now - time;
  if (Math.abs(ms) < 5000) return "just now";
  const s = Math.abs(ms) / 1000;
  const about =
    s < 60 ? `${Math.floor(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 86_400 ? `${Math.floor(s / 3600)} h` :
    `${Math.floor(s / 86_400)} d`; // prettier-ignore
  return ms > 0 ? `${about} ago` : `in ${about}`;
}

const two = (/** @type {number} */ number) => String(number).padStart(2, "0");

/** @param {number} time ms */
export function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime())
    ? "--:--:--"
    : `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** @param {number} time ms */
export function dateAndClock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "an unknown time";
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(time)}`;
}

/**
 * A table's entry by a name that may be anything, `constructor` too.
 * @template T
 * @param {Record<string, T>} table
 * @param {unknown} name
 * @returns {T | undefined}
 */
export const entryOf = (table, name) => (Object.hasOwn(table, String(name)) ? table[String(name)] : undefined);

/** @param {unknown} value */
export const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @param {unknown} value */
export function asText(value) {
  return typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value, null, 2);
}

/**
 * A tool's output as text: the texts of content blocks, else JSON.
 * @param {any} output
 * @returns {string}
 */
export function outputText(output) {
  const blocks = isRecord(output) && Array.isArray(output.content) ? output.content : output;
  if (Array.isArray(blocks) && blocks.length && blocks.every(isRecord)) {
    return blocks
      .map((block) => (typeof block.text === "string" ? block.text : `[${block.type ?? "data"}]`))
      .join("\n");
  }
  return asText(output);
}

const ESSENTIAL = ["command", "file_path", "path", "notebook_path", "pattern", "query", "url", "description", "prompt"];

/**
 * What a call is about, on one line.
 * @param {any} input
 */
export function essential(input) {
  const found =
    isRecord(input) && ESSENTIAL.map((name) => input[name]).find((value) => typeof value === "string" && value.trim());
  const text = found || (input && Object.keys(input).length ? JSON.stringify(input) : "");
  return shortened(String(text).replace(/\s+/g, " "), 160);
}

/**
 * @param {string} text
 * @param {number} most
 */
export const shortened = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);
