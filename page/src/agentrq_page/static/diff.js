/** What an edit changes, line by line. Pure. */
import { asText, isRecord } from "./format.js";

/** @typedef {{sign: " " | "+" | "-" | "@", text: string}} Line */
/** @typedef {{path: string, lines: Line[]}} FileChange */

/** Longer texts are shown as all removed and all added: the comparison takes time with the product of both. */
const MOST_LINES = 600;

/**
 * Whether a value has no member but these.
 * @param {any} value
 * @param {string[]} names
 */
const hasOnly = (value, names) => isRecord(value) && Object.keys(value).every((name) => names.includes(name));

/**
 * The changes that a call's input describes, and the names of the members that they show wholly.
 * @param {any} input
 * @returns {{changes: FileChange[], names: string[]}}
 */
export function changesOf(input) {
  if (!isRecord(input)) return { changes: [], names: [] };
  const path = String(input.file_path ?? input.path ?? input.filepath ?? input.notebook_path ?? "");
  if (typeof input.old_string === "string" && typeof input.new_string === "string") {
    return {
      changes: [{ path, lines: compared(input.old_string, input.new_string) }],
      names: ["old_string", "new_string"],
    };
  }
  if (
    Array.isArray(input.edits) &&
    input.edits.every((/** @type {any} */ edit) => hasOnly(edit, ["old_string", "new_string"]))
  ) {
    const lines = input.edits.flatMap((/** @type {any} */ edit) =>
      compared(String(edit.old_string ?? ""), String(edit.new_string ?? "")),
    );
    return { changes: [{ path, lines }], names: ["edits"] };
  }
  for (const name of ["diff", "patch", "unified_diff"]) {
    if (typeof input[name] === "string") return { changes: [{ path, lines: unified(input[name]) }], names: [name] };
  }
  if (typeof input.content === "string" && path) {
    return { changes: [{ path, lines: added(input.content) }], names: ["content"] };
  }
  const listed = isRecord(input.changes)
    ? Object.entries(input.changes).map(([name, change]) => (isRecord(change) ? { path: name, ...change } : change))
    : input.changes;
  if (!Array.isArray(listed) || !listed.every((change) => hasOnly(change, ["path", "kind", "type", "diff"]))) {
    return { changes: [], names: [] };
  }
  const changes = listed.map(({ path: file, kind, type, diff }) => {
    const about = asText(isRecord(kind) && hasOnly(kind, ["type"]) ? kind.type : (kind ?? type));
    return { path: `${asText(file)}${about && ` (${about})`}`, lines: diff === undefined ? [] : unified(asText(diff)) };
  });
  return { changes, names: ["changes"] };
}

/**
 * @param {string} text
 * @returns {Line[]}
 */
const added = (text) => text.split("\n").map((line) => ({ sign: "+", text: line }));

/**
 * @param {string} text
 * @returns {Line[]}
 */
function unified(text) {
  const lines = text.replace(/\n$/, "").split("\n");
  const isDiff = lines.some((line) => line.startsWith("@@"));
  return lines.map((line) => {
    if (!isDiff) return { sign: "+", text: line };
    if (/^(@@|---|\+\+\+|Index:|diff |===)/.test(line)) return { sign: "@", text: line };
    const sign = line[0] === "+" || line[0] === "-" ? line[0] : " ";
    return { sign, text: sign === " " ? line.replace(/^ /, "") : line.slice(1) };
  });
}

/**
 * @param {string} before
 * @param {string} after
 * @returns {Line[]}
 */
export function compared(before, after) {
  const old = before === "" ? [] : before.split("\n");
  const made = after === "" ? [] : after.split("\n");
  let head = 0;
  while (head < old.length && head < made.length && old[head] === made[head]) head++;
  let tail = 0;
  while (tail < Math.min(old.length, made.length) - head && old.at(-1 - tail) === made.at(-1 - tail)) tail++;
  const same = (/** @type {string[]} */ lines) => lines.map((text) => ({ sign: /** @type {const} */ (" "), text }));
  const middle = common(old.slice(head, old.length - tail), made.slice(head, made.length - tail));
  return [...same(old.slice(0, head)), ...middle, ...same(old.slice(old.length - tail))];
}

/**
 * By the longest common subsequence.
 * @param {string[]} old
 * @param {string[]} made
 * @returns {Line[]}
 */
function common(old, made) {
  /** @type {Line[]} */
  const lines = [];
  const removed = (/** @type {string} */ text) => lines.push({ sign: "-", text });
  const put = (/** @type {string} */ text) => lines.push({ sign: "+", text });
  if (old.length > MOST_LINES || made.length > MOST_LINES) {
    old.forEach(removed);
    made.forEach(put);
    return lines;
  }
  const width = made.length + 1;
  const lengths = new Uint16Array((old.length + 1) * width);
  const at = (/** @type {number} */ row, /** @type {number} */ column) => lengths[row * width + column] ?? 0;
  for (let row = old.length - 1; row >= 0; row--) {
    for (let column = made.length - 1; column >= 0; column--) {
      lengths[row * width + column] =
        old[row] === made[column] ? at(row + 1, column + 1) + 1 : Math.max(at(row + 1, column), at(row, column + 1));
    }
  }
  let row = 0;
  let column = 0;
  while (row < old.length || column < made.length) {
    if (row < old.length && old[row] === made[column] && column < made.length) {
      lines.push({ sign: " ", text: old[row++] ?? "" });
      column++;
    } else if (row < old.length && (column >= made.length || at(row + 1, column) >= at(row, column + 1))) {
      removed(old[row++] ?? "");
    } else put(made[column++] ?? "");
  }
  return lines;
}
