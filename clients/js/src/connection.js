/** Keeps one server-sent stream open. Knows nothing of sessions. */
/** @import { Handle } from "../types/wire.js" */
import { AgentRQError, errorOf } from "./errors.js";
import { FrameReader } from "./sse.js";

/** Three comments of the gateway are missing. */
const SILENCE_MS = 45_000;
const LONGEST_WAIT_MS = 30_000;
/** Until the gateway says it (`retry:`). */
const RETRY_MS = 1000;

/** Calls `open` after every cut, with jitter and growing pauses, until `close()` or an answer 4xx. */
export class Connection {
  #open;
  #handle;
  #closed = false;
  #restarted = false;
  #failures = 0;
  #retry = RETRY_MS;
  #cut = new AbortController();
  /** @type {() => void} */
  #wake = () => {};

  /**
   * @param {(signal: AbortSignal) => Promise<Response>} open
   * @param {Handle} handle
   */
  constructor(open, handle) {
    this.#open = open;
    this.#handle = handle;
    this.#run();
  }

  /** Opens it again at once. */
  restart() {
    this.#restarted = true;
    this.#cut.abort();
    this.#wake();
  }

  close() {
    this.#closed = true;
    this.restart();
  }

  async #run() {
    const say = this.#handle.state ?? (() => {});
    let error, asked;
    while (!this.#closed) {
      await null; // what the same tick still asks for goes into the same request
      this.#restarted = false;
      asked = undefined;
      this.#cut = new AbortController();
      say("connecting");
      try {
        if ((await this.#read(this.#cut, say)) === "complete") break;
      } catch (problem) {
        if (problem instanceof AgentRQError && isFinal(problem)) {
          error = problem;
          break;
        }
        if (this.#restarted) continue;
        this.#failures += 1;
        if (problem instanceof AgentRQError) asked = problem.retryAfterS;
      }
      if (this.#restarted) continue;
      const least = asked === undefined ? this.#retry * 2 ** Math.max(0, this.#failures - 1) : asked * 1000;
      const wait = Math.min(LONGEST_WAIT_MS, least) * (0.75 + Math.random() / 2);
      say("waiting", wait);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        this.#wake = () => (clearTimeout(timer), resolve(null));
      });
    }
    say("closed");
    if (!this.#closed) this.#handle.done(error);
  }

  /**
   * @param {AbortController} cut
   * @param {(state: "open") => void} say
   */
  async #read(cut, say) {
    let timer = setTimeout(() => cut.abort(), SILENCE_MS);
    try {
      const response = await this.#open(cut.signal);
      if (response.status === 204) return "complete";
      if (!response.ok || !response.body) throw await errorOf(response);
      say("open");
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const frames = new FrameReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || cut.signal.aborted) return "cut";
        clearTimeout(timer);
        timer = setTimeout(() => cut.abort(), SILENCE_MS);
        for (const frame of frames.read(decoder.decode(value, { stream: true }))) {
          this.#failures = 0;
          if (frame.retry !== undefined) this.#retry = frame.retry;
          if (frame.data) this.#handle.frame(frame);
          if (cut.signal.aborted) return "cut";
        }
      }
    } finally {
      clearTimeout(timer);
      cut.abort();
    }
  }
}

/**
 * Whether asking again is useless.
 * @param {AgentRQError} error
 */
function isFinal({ status }) {
  return status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429;
}
