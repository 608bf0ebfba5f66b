/** One session that is looked at: its events, its transcript, and which parts of it have to be drawn anew. */
import { AgentRQError, isAfter, Transcript } from "@agentrq/client";
import { signal } from "@preact/signals";
import { gateway, tell } from "./gateway.js";

/** Entries that are drawn together. */
export const CHUNK = 40;
/** Of a long session the newest events come first, then all from the beginning. */
const TAIL = 600;
const PAGE = 1000;
/** Events that are taken in between two frames. */
const SLICE_MS = 12;

/** @typedef {import("../../../../clients/js/types/wire.js").Event} Event */
/** @typedef {import("../../../../clients/js/types/wire.js").Entry} Entry */

export class SessionStore {
  transcript = new Transcript();
  /** @type {Event[]} all durable events that are known, in order */
  events = [];
  /** Rises with every change that is drawn. */
  version = signal(0);
  /** @type {import("@preact/signals").Signal<number>[]} one for each `CHUNK` entries: it rises when they change */
  chunks = [];
  chunkCount = signal(0);
  /** @type {import("@preact/signals").Signal<any>} */
  state = signal(null);
  /** Whether earlier events are still on their way. */
  loading = signal(false);
  /** @type {import("@preact/signals").Signal<string>} why there is nothing more to see */
  failed = signal("");
  /** When what the agent does now began (ms). */
  since = signal(Date.now());
  #abort = new AbortController();
  /** @type {Map<Entry, number>} */
  #places = new Map();
  /** @type {WeakMap<object, number>} */
  #versions = new WeakMap();
  /** @type {Set<number>} */
  #changed = new Set();
  #isScheduled = false;

  /** @param {string} id */
  constructor(id) {
    this.id = id;
    this.session = gateway.session(id);
    this.#run().catch((problem) => {
      if (this.#abort.signal.aborted) return;
      this.failed.value = problem?.message ?? String(problem);
      tell(problem);
    });
  }

  close() {
    this.#abort.abort();
  }

  /** @param {object} entry */
  versionOf(entry) {
    return this.#versions.get(entry) ?? 0;
  }

  async #run() {
    const { signal: aborted } = this.#abort;
    const state = await this.session.state(aborted);
    this.state.value = state;
    const [epoch = 0, seq = 0] = String(state.cursor ?? "0-0")
      .split("-")
      .map(Number);
    const isLong = seq > 2 * TAIL;
    const follow = this.#follow(isLong ? `${epoch}-${seq - TAIL}` : null);
    if (isLong) this.#loadBefore(`${epoch}-${seq - TAIL}`).catch(tell);
    await follow;
    this.state.value = await this.session.state(aborted).catch(() => this.state.value);
  }

  /** @param {string | null} after */
  async #follow(after) {
    let last = performance.now();
    for await (const event of this.session.events({ after, deltas: true, signal: this.#abort.signal })) {
      if (event.type === "reset") this.#begin([]);
      else this.#take(event);
      // A long history must not hold the page up: it is drawn between slices.
      if (performance.now() - last > SLICE_MS) {
        await new Promise((resolve) => setTimeout(resolve));
        last = performance.now();
      }
    }
  }

  /**
   * Reads what is before the tail, then draws all from the beginning: only so every result finds its call.
   * @param {string} end
   */
  async #loadBefore(end) {
    this.loading.value = true;
    /** @type {Event[]} */
    let earlier = [];
    /** @type {string | undefined} */
    let after;
    try {
      for (let isWhole = false; !isWhole; ) {
        const events = await this.#page(after);
        if (!events) [earlier, after] = [[], undefined]; // trimmed meanwhile: from the oldest kept
        else {
          const before = events.filter(({ cursor }) => !isAfter(cursor ?? "", end));
          earlier = earlier.concat(before);
          after = events.at(-1)?.cursor;
          isWhole = before.length < events.length || !events.length;
        }
      }
      await this.#rebuild([...earlier, ...this.events]);
    } finally {
      this.loading.value = false;
    }
  }

  /**
   * A page of what is kept after a cursor; null where that is not kept any more.
   * @param {string} [after]
   */
  async #page(after) {
    try {
      return (await this.session.page({ after, limit: PAGE }, this.#abort.signal)).events;
    } catch (problem) {
      if (after && problem instanceof AgentRQError && problem.status === 410) return null;
      throw problem;
    }
  }

  /** @param {Event[]} events */
  async #rebuild(events) {
    const made = new Transcript();
    let taken = 0;
    for (let last = performance.now(); taken < events.length; taken++) {
      made.apply(/** @type {Event} */ (events[taken]));
      if (performance.now() - last > SLICE_MS) {
        await new Promise((resolve) => setTimeout(resolve));
        last = performance.now();
      }
    }
    // What came meanwhile, and the texts that are being written.
    const seen = new Set(events);
    for (const event of this.events) if (!seen.has(event)) (events.push(event), made.apply(event));
    made.open = this.transcript.open;
    this.events = events;
    this.#begin(events, made);
  }

  /**
   * @param {Event[]} events
   * @param {Transcript} [transcript]
   */
  #begin(events, transcript = new Transcript()) {
    this.events = events;
    this.transcript = transcript;
    this.#places = new Map(transcript.entries.map((entry, place) => [entry, place]));
    for (let chunk = 0; chunk * CHUNK < Math.max(transcript.entries.length, 1); chunk++) this.#changed.add(chunk);
    this.#schedule();
  }

  /** @param {Event} event */
  #take(event) {
    if (event.cursor) this.events.push(event);
    const changed = this.transcript.apply(event);
    if (!changed) return;
    if ("cursor" in changed) {
      let place = this.#places.get(changed);
      if (place === undefined) {
        place = this.transcript.entries.length - 1;
        this.#places.set(changed, place);
      }
      this.#versions.set(changed, this.versionOf(changed) + 1);
      this.#changed.add(Math.floor(place / CHUNK));
      if (event.timestamp) this.since.value = event.timestamp;
    }
    if (event.status && this.state.value) {
      this.state.value = { ...this.state.value, status: event.status, reason: event.reason, error: event.error };
    }
    if (event.type === "cost" && this.state.value) {
      this.state.value = { ...this.state.value, ...event.content?.sessionTotal };
    }
    if (event.type === "init" && this.state.value) {
      const { model = this.state.value.model, cwd = this.state.value.cwd } = event.content ?? {};
      this.state.value = { ...this.state.value, model, cwd };
    }
    this.#schedule();
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    // A page in the background gets no frames; a timer serves it.
    if (document.hidden) setTimeout(() => this.#draw(), 200);
    else requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#isScheduled = false;
    const count = Math.ceil(this.transcript.entries.length / CHUNK);
    while (this.chunks.length < count) this.chunks.push(signal(0));
    for (const chunk of this.#changed) {
      const version = this.chunks[chunk];
      if (version) version.value++;
    }
    this.#changed.clear();
    this.chunkCount.value = count;
    this.version.value++;
  }
}
