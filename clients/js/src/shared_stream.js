/** One connection for all sessions that are followed. Owns cursors; a cut loses and doubles nothing. */
/** @import { Event, Following, Frame, Settings } from "../types/wire.js" */
import { Connection } from "./connection.js";
import { AgentRQError } from "./errors.js";
import { isAfter } from "./ids.js";
import { Queue } from "./queue.js";

/** Events that wait for a slow reader; the rest stays at the gateway until the reader has caught up. */
const MOST_WAITING = 5000;

/** One reader of one session. While `paused` it takes nothing, and the gateway is not asked for its session. */
class Follower {
  /** @type {Queue<Event>} */
  queue = new Queue();
  paused = false;

  /**
   * @param {string} sessionId
   * @param {string | null} cursor
   * @param {boolean} deltas
   */
  constructor(sessionId, cursor, deltas) {
    this.sessionId = sessionId;
    this.cursor = cursor;
    this.deltas = deltas;
  }

  get active() {
    return !this.paused && !this.queue.ended;
  }

  /** @param {Event} event */
  push(event) {
    const { cursor } = event;
    const isReset = event.type === "reset";
    if (!this.active || (!isReset && (cursor ? !isAfter(cursor, this.cursor) : !this.deltas))) return;
    this.paused = this.queue.items.length >= MOST_WAITING;
    if (this.paused) return;
    this.cursor = isReset ? null : (cursor ?? this.cursor);
    this.queue.push(event);
  }

  /** @param {unknown} [error] */
  end(error) {
    if (!this.paused) this.queue.end(error); // else what was left out comes first
  }
}

export class SharedStream {
  #open;
  #state;
  /** @type {Set<Follower>} */
  #followers = new Set();
  /** @type {Connection | undefined} */
  #connection;

  /**
   * @param {(sessions: Record<string, string | null>, deltas: boolean, cut: AbortSignal) => Promise<Response>} open
   * @param {Settings["onConnection"]} [state]
   */
  constructor(open, state) {
    this.#open = open;
    this.#state = state;
  }

  /**
   * @param {string} sessionId
   * @param {Following} options
   */
  async *follow(sessionId, { after = null, deltas = false, signal }) {
    const follower = new Follower(sessionId, after, deltas);
    const cancel = () => {
      follower.queue.items = [];
      follower.queue.end();
    };
    if (signal?.aborted) return;
    signal?.addEventListener("abort", cancel);
    this.#followers.add(follower);
    this.#changed();
    try {
      yield* follower.queue.take(() => {
        if (follower.paused) {
          follower.paused = false;
          this.#changed();
        }
      });
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#followers.delete(follower);
      // One that ended by the gateway's word is asked for no more: the others need not be cut.
      if (!follower.queue.ended || signal?.aborted || !this.#followers.size) this.#changed();
    }
  }

  reconnect() {
    this.#connection?.restart();
  }

  #changed() {
    if (![...this.#followers].some((follower) => follower.active)) {
      this.#connection?.close();
      this.#connection = undefined;
    } else if (this.#connection) this.#connection.restart();
    else {
      this.#connection = new Connection((cut) => this.#request(cut), {
        frame: (frame) => this.#frame(frame),
        done: (error) => {
          this.#connection = undefined;
          for (const follower of this.#followers) follower.end(error);
        },
        state: this.#state,
      });
    }
  }

  /** @param {AbortSignal} cut */
  #request(cut) {
    /** @type {Record<string, string | null>} */
    const sessions = Object.create(null); // an id may be __proto__
    let deltas = false;
    for (const follower of this.#followers) {
      if (!follower.active) continue;
      const { sessionId, cursor } = follower;
      const other = sessions[sessionId];
      if (other === undefined || (other && !isAfter(cursor ?? "0-0", other))) sessions[sessionId] = cursor;
      deltas ||= follower.deltas;
    }
    return this.#open(sessions, deltas, cut);
  }

  /** @param {Frame} frame */
  #frame({ event, data }) {
    const content = JSON.parse(data);
    for (const follower of this.#followers) {
      if (follower.sessionId !== content.sessionId) continue;
      const wasPaused = follower.paused;
      if (event === "end") follower.end();
      else if (event !== "reset") follower.push(content);
      else if (content.reason === "gone") follower.end(new AgentRQError("session_gone", "The session was removed"));
      else follower.push({ type: "reset", ...content });
      if (follower.paused !== wasPaused) this.#changed();
    }
  }
}
