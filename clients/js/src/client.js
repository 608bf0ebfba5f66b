/** The gateway as an object. Owns requests and headers. */
/** @import { Approval, Event, Request, SessionPage, Settings, Starting } from "../types/wire.js" */
import { Connection } from "./connection.js";
import { AgentRQError, errorOf } from "./errors.js";
import { makeId } from "./ids.js";
import { Queue } from "./queue.js";
import { Session } from "./session.js";
import { SharedStream } from "./shared_stream.js";

/** How often a call with an idempotency key is tried. */
const ATTEMPTS = 3;

/** A gateway. All sessions that are followed through one of these share one connection. */
export class AgentRQ {
  #base;
  #settings;
  #stream;

  /**
   * @param {string | URL} base where the gateway is mounted; in browsers it may be relative
   * @param {Settings} [settings]
   */
  constructor(base, settings = {}) {
    const url = new URL(String(base), globalThis.document?.baseURI);
    if (!url.pathname.endsWith("/")) url.pathname += "/";
    this.#base = url;
    this.#settings = settings;
    this.#stream = new SharedStream(
      (sessions, deltas, signal) =>
        this.fetch("POST", "stream", { body: { sessions, ...(deltas && { deltas }) }, signal }),
      settings.onConnection,
    );
  }

  /**
   * Queues a session.
   * @param {string} provider
   * @param {string} prompt
   * @param {object} [options] as on the wire: `cwd`, `permissionMode`, …
   * @param {Starting} [about]
   */
  async start(provider, prompt, options = {}, { sessionId, idempotencyKey = makeId(), signal } = {}) {
    const body = { provider, prompt, ...(sessionId && { sessionId }), options };
    const made = await this.call("POST", "sessions", { body, signal, idempotencyKey });
    return this.session(made.sessionId);
  }

  /**
   * A handle; no request is made.
   * @param {string} id
   */
  session(id) {
    return new Session(this, this.#stream, id);
  }

  /**
   * A page of sessions, the newest first; `before` is the `next` of the page before.
   * @param {Request["query"]} [filters]
   * @param {AbortSignal} [signal]
   * @returns {Promise<SessionPage>}
   */
  sessions(filters = {}, signal) {
    return this.call("GET", "sessions", { query: filters, signal });
  }

  /**
   * What waits for an answer, the oldest first.
   * @returns {Promise<{approvals: Approval[]}>}
   */
  approvals() {
    return this.call("GET", "approvals");
  }

  workers() {
    return this.call("GET", "workers");
  }

  queues() {
    return this.call("GET", "queues");
  }

  /**
   * The statuses of all sessions. None is kept: after each `{type: "ready"}` or `"reset"` list the sessions anew.
   * @param {{signal?: AbortSignal}} [options]
   */
  async *statuses({ signal } = {}) {
    /** @type {Queue<Event>} */
    const queue = new Queue();
    const connection = new Connection(
      (cut) => this.fetch("GET", "stream", { query: { feed: "status" }, signal: cut }),
      {
        frame: ({ event, data }) => queue.push({ ...(event !== "status" && { type: event }), ...JSON.parse(data) }),
        done: (error) => queue.end(error),
      },
    );
    const cancel = () => queue.end();
    if (signal?.aborted) cancel();
    signal?.addEventListener("abort", cancel);
    try {
      yield* queue.take();
    } finally {
      signal?.removeEventListener("abort", cancel);
      connection.close();
    }
  }

  /** Opens the connection again at once: the network is back. */
  reconnect() {
    this.#stream.reconnect();
  }

  /**
   * A request, its answer as JSON.
   * @param {string} method
   * @param {string} path
   * @param {Request} [request]
   * @returns {Promise<any>}
   */
  async call(method, path, request = {}) {
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await this.fetch(method, path, request);
        if (!response.ok) throw await errorOf(response);
        return response.status === 204 ? undefined : await response.json();
      } catch (problem) {
        if (request.signal?.aborted) throw problem;
        const error = problem instanceof AgentRQError ? problem : unreachable(problem);
        const again = request.idempotencyKey && (error.status === 0 || error.status === 503);
        if (!again || attempt === ATTEMPTS) throw error;
        const wait = Math.min(error.retryAfterS ?? 0.2 * 2 ** attempt, 10) * 1000 * (0.5 + Math.random());
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Request} request
   */
  async fetch(method, path, { body, query = {}, signal, idempotencyKey }) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
    }
    const { headers: own, fetch = globalThis.fetch } = this.#settings;
    /** @type {Record<string, string>} */
    const headers = { ...(typeof own === "function" ? await own() : own) };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
    const text = body === undefined ? undefined : JSON.stringify(body);
    return fetch(url, { method, headers, body: text, signal, cache: "no-store" });
  }
}

/** @param {unknown} cause */
function unreachable(cause) {
  return new AgentRQError("unreachable", "The gateway cannot be reached", { cause });
}
