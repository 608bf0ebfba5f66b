/** From events to what a person reads. Pure: the same events give the same transcript, whatever was cut. */
/** @import { Entry, Event, OpenBlock, Status } from "../types/wire.js" */
import { isAfter } from "./ids.js";

/** What lies deeper stands at this depth. */
const DEEPEST = 8;
/** So many are remembered: their pieces may still come. */
const CLOSED = 64;

/** Grows by `apply`. Texts that are whole stand in `entries`, those being written in `open`. */
export class Transcript {
  /** @type {Entry[]} */
  entries = [];
  /** @type {Map<string, OpenBlock>} by block id */
  open = new Map();
  /** @type {Map<string, Entry>} requests that nobody has answered, by request id */
  waiting = new Map();
  /** @type {string | null} the last event's */
  cursor = null;
  /** @type {Status | null} */
  status = null;
  /** @type {Map<string, Entry>} */
  #tools = new Map();
  /** @type {Map<Entry, Entry>} what an entry lies in */
  #parents = new Map();
  /** @type {string[]} */
  #closed = [];

  /**
   * Takes an event, once.
   * @param {Event} event
   * @returns {Entry | OpenBlock | null} what of `entries` or `open` has changed
   */
  apply(event) {
    if (event.type === "reset") {
      this.entries = [];
      this.cursor = null;
      for (const kept of [this.open, this.waiting, this.#tools, this.#parents]) kept.clear();
      return null;
    }
    if (!event.cursor) return this.#piece(event);
    if (!isAfter(event.cursor, this.cursor)) return null;
    if (this.cursor && event.cursor.split("-")[0] !== this.cursor.split("-")[0]) this.open.clear();
    this.cursor = event.cursor;
    const { type, timestamp = 0 } = event;
    if (event.status !== undefined) {
      this.status = event.status;
      if (event.status === "done" || event.status === "error") this.open.clear();
      return this.#add(event, "session", pick(event, "status", "reason", "error"));
    }
    if (event.outcome !== undefined) {
      return this.#add(event, "receipt", pick(event, "commandId", "command", "outcome", "reason"));
    }
    const content = event.content ?? {};
    if (type === "tool_result") {
      const call = this.#tools.get(content.toolUseId);
      if (!call) return this.#add(event, type, content);
      call.result = { output: content.output, isError: content.isError === true, timestamp };
      return this.#outermost(call);
    }
    if (type === "approval_resolved") {
      const request = this.waiting.get(content.requestId);
      if (!request) return this.#add(event, type, content);
      this.waiting.delete(content.requestId);
      request.resolved = { decision: content.decision, by: content.by, timestamp };
      return this.#outermost(request);
    }
    if ((type === "text" || type === "thinking") && content.blockId !== undefined) this.#close(content.blockId);
    const kind = type === "tool_call" ? "tool" : type === "approval_request" || type === "question" ? "request" : type;
    return this.#add(event, kind ?? "unknown", content);
  }

  /**
   * @param {Event} event
   * @param {string} kind
   * @param {any} content
   */
  #add({ cursor = "", timestamp = 0, parentId }, kind, content) {
    /** @type {Entry} */
    const entry = { kind, cursor, timestamp, content };
    if (parentId !== undefined) entry.parentId = parentId;
    let parent = parentId === undefined ? undefined : this.#tools.get(parentId);
    if (parent && this.#path(parent).length >= DEEPEST) parent = this.#parents.get(parent);
    if (parent) {
      this.#parents.set(entry, parent);
      (parent.children ??= []).push(entry);
    } else this.entries.push(entry);
    if (kind === "tool") this.#tools.set(content.toolUseId, entry);
    if (kind === "request") this.waiting.set(content.requestId, entry);
    return this.#outermost(entry);
  }

  /** @param {Event} event */
  #piece({ type, parentId, content }) {
    if (type !== "text_delta" && type !== "thinking_delta") return null;
    const { blockId, text, offset, abandoned } = content;
    if (this.#closed.includes(blockId)) return null;
    let block = this.open.get(blockId) ?? null;
    if (abandoned) {
      this.#close(blockId);
      return block;
    }
    const have = block?.length ?? 0;
    if (offset > have) return null; // pieces before it are missing; the whole text follows
    const length = characters(text);
    if (offset + length <= have) return null;
    if (!block) {
      block = { kind: type === "text_delta" ? "text" : "thinking", blockId, text: "", length: 0 };
      if (parentId !== undefined) block.parentId = parentId;
      this.open.set(blockId, block);
    }
    block.text += offset === have ? text : [...text].slice(have - offset).join("");
    block.length = offset + length;
    return block;
  }

  /** @param {string} blockId */
  #close(blockId) {
    this.open.delete(blockId);
    if (this.#closed.push(blockId) > CLOSED) this.#closed.shift();
  }

  /** @param {Entry} entry */
  #outermost(entry) {
    return this.#path(entry).at(-1) ?? entry;
  }

  /**
   * An entry and what it lies in, inside out.
   * @param {Entry} entry
   */
  #path(entry) {
    const path = [entry];
    for (let parent; (parent = this.#parents.get(entry)); path.push(parent)) entry = parent;
    return path;
  }
}

/** @param {string} text */
function characters(text) {
  return /[\ud800-\udfff]/.test(text) ? [...text].length : text.length;
}

/**
 * @param {Event} event
 * @param {(keyof Event)[]} names
 */
function pick(event, ...names) {
  return Object.fromEntries(names.filter((name) => name in event).map((name) => [name, event[name]]));
}
