/** Terminal output as vnodes: colours of the 16, bold, underlined; every other sequence is dropped. Pure. */
import { html } from "./html.js";
import { visible } from "./visible.js";

/** CSI, OSC and other strings, two-character escapes. */
const SEQUENCE = /\x1b\[([0-9;:?<=>!]*)[ -/]*([@-~])|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?/g;
/** The 16 colours, for finding the nearest one of the 256 and of true colour. */
const PALETTE = [
  [0, 0, 0], [205, 0, 0], [0, 205, 0], [205, 205, 0], [0, 0, 238], [205, 0, 205], [0, 205, 205], [229, 229, 229],
  [127, 127, 127], [255, 0, 0], [0, 255, 0], [255, 255, 0], [92, 92, 255], [255, 0, 255], [0, 255, 255],
  [255, 255, 255],
]; // prettier-ignore

/** @param {number[]} rgb */
function nearest(rgb) {
  const distance = (/** @type {number[]} */ other) =>
    other.reduce((sum, part, at) => sum + (part - (rgb[at] ?? 0)) ** 2, 0);
  return PALETTE.reduce((best, colour, at) => (distance(colour) < distance(PALETTE[best] ?? []) ? at : best), 0);
}

/** @param {number} index of the 256 */
function of256(index) {
  if (index < 16) return index;
  if (index > 231) return nearest(Array(3).fill(8 + 10 * (index - 232)));
  const parts = [Math.floor((index - 16) / 36), Math.floor((index - 16) / 6) % 6, (index - 16) % 6];
  return nearest(parts.map((part) => (part ? 55 + 40 * part : 0)));
}

/** @typedef {{colour: number | null, bold: boolean, italic: boolean, underline: boolean}} Style */

/** @type {Style} */
const PLAIN = { colour: null, bold: false, italic: false, underline: false };

/**
 * @param {Style} style
 * @param {string} codes
 * @returns {Style}
 */
function restyled(style, codes) {
  const made = { ...style };
  const list = codes.split(/[;:]/).map(Number);
  for (let at = 0; at < list.length; at++) {
    const code = list[at] ?? 0;
    if (code === 0) Object.assign(made, PLAIN);
    else if (code === 1) made.bold = true;
    else if (code === 3) made.italic = true;
    else if (code === 4) made.underline = true;
    else if (code === 22) made.bold = false;
    else if (code === 23) made.italic = false;
    else if (code === 24) made.underline = false;
    else if (code >= 30 && code <= 37) made.colour = code - 30;
    else if (code >= 90 && code <= 97) made.colour = code - 82;
    else if (code === 39) made.colour = null;
    else if (code === 38 || code === 48) {
      const of = list[at + 1] === 5 ? of256(list[at + 2] ?? 0) : nearest(list.slice(at + 2, at + 5));
      if (code === 38) made.colour = of;
      at += list[at + 1] === 5 ? 2 : 4;
    }
  }
  return made;
}

/**
 * A line that was written over (`\r`) shows its last version, and that there were others.
 * @param {string} text
 */
function withoutOverwritten(text) {
  if (!text.includes("\r")) return text;
  return text
    .replace(/\r+\n/g, "\n")
    .split("\n")
    .map((line) => {
      const versions = line.split("\r").filter(Boolean);
      return versions.length > 1 ? `[${versions.length - 1} × overwritten] ${versions.at(-1)}` : (versions[0] ?? "");
    })
    .join("\n");
}

/** @param {string} given */
export function ansi(given) {
  const text = withoutOverwritten(given);
  if (!text.includes("\x1b")) return visible(text);
  /** @type {any[]} */
  const parts = [];
  let style = PLAIN;
  let start = 0;
  /** @param {string} piece */
  const put = (piece) => {
    if (!piece) return;
    const { colour, bold, italic, underline } = style;
    const names = [
      colour === null ? "" : `ansi-${colour}`,
      bold && "bold",
      italic && "italic",
      underline && "underline",
    ];
    const plain = style === PLAIN;
    parts.push(plain ? visible(piece) : html`<span class=${names.filter(Boolean).join(" ")}>${visible(piece)}</span>`);
  };
  for (const found of text.matchAll(SEQUENCE)) {
    put(text.slice(start, found.index));
    if (found[2] === "m") style = restyled(style, found[1] ?? "");
    start = found.index + found[0].length;
  }
  put(text.slice(start));
  return parts;
}
