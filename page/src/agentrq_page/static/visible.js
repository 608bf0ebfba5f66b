/** Makes characters visible that would hide or reorder what an agent printed. Pure. */
import { html } from "./html.js";

/**
 * Controls but tab and newline; marks that change the direction of writing; invisible characters. Joiners (U+200C,
 * U+200D) are not among them: words and emoji need them.
 */
const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b" +
    "\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\u{e0000}-\\u{e0fff}]",
  "gu",
);

/** @param {string} character */
const code = (character) => `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

/**
 * A text for a place that takes text only (a title, an attribute).
 * @param {unknown} text
 */
export function visibleText(text) {
  return String(text).replace(HIDDEN, (character) => `⟨${code(character)}⟩`);
}

/**
 * A text as vnodes, its hidden characters marked.
 * @param {unknown} value
 */
export function visible(value) {
  const text = typeof value === "string" ? value : value === undefined ? "" : String(value);
  if (text.search(HIDDEN) < 0) return text;
  const parts = [];
  let start = 0;
  for (const found of text.matchAll(HIDDEN)) {
    parts.push(text.slice(start, found.index));
    parts.push(
      html`<span class="hidden-character" title="A character that is not shown by itself">${code(found[0])}</span>`,
    );
    start = found.index + found[0].length;
  }
  return [...parts, text.slice(start)];
}
