/** Reads server-sent events. Pure: text in, frames out. */
/** @import { Frame } from "../types/wire.js" */

/** Frames may come in any pieces. */
export class FrameReader {
  #rest = "";
  #event = "";
  /** @type {string[]} */
  #data = [];
  #id = "";
  /** @type {number | undefined} */
  #retry;

  /**
   * @param {string} piece
   * @returns {Frame[]}
   */
  read(piece) {
    /** @type {Frame[]} */
    const frames = [];
    let text = this.#rest + piece;
    // A CR at the end may be half of a CRLF.
    const kept = text.endsWith("\r") ? "\r" : "";
    if (kept) text = text.slice(0, -1);
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    let start = 0;
    for (let end; (end = text.indexOf("\n", start)) >= 0; start = end + 1) {
      if (end > start) this.#line(text.slice(start, end));
      else this.#close(frames);
    }
    this.#rest = text.slice(start) + kept;
    return frames;
  }

  /** @param {string} line */
  #line(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id") this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.#retry = Number(value);
  }

  /** @param {Frame[]} frames */
  #close(frames) {
    if (this.#data.length || this.#event || this.#retry !== undefined) {
      /** @type {Frame} */
      const frame = { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id };
      if (this.#retry !== undefined) frame.retry = this.#retry;
      frames.push(frame);
    }
    this.#event = this.#id = "";
    this.#data = [];
    this.#retry = undefined;
  }
}
