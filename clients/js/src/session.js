/** One session behind the gateway. */
/** @import { AgentRQ } from "./client.js" */
/** @import { SharedStream } from "./shared_stream.js" */
/** @import { EventPage, Following, Prompting, Sending, Sent, State } from "../types/wire.js" */
import { makeId } from "./ids.js";

/** Made by `AgentRQ.start` and `AgentRQ.session`. */
export class Session {
  #gateway;
  #stream;
  #path;

  /**
   * @param {AgentRQ} gateway
   * @param {SharedStream} stream
   * @param {string} id
   */
  constructor(gateway, stream, id) {
    this.#gateway = gateway;
    this.#stream = stream;
    this.#path = `sessions/${encodeURIComponent(id)}`;
    this.id = id;
  }

  /**
   * What is kept after a cursor, then live until the end, each event once. With `deltas` also the pieces of texts, which
   * have no cursor. `{type: "reset"}` says that what comes next is the oldest kept.
   * @param {Following} options
   */
  events(options = {}) {
    return this.#stream.follow(this.id, options);
  }

  /**
   * A page of what is kept.
   * @param {{after?: string, before?: string, limit?: number}} [page]
   * @param {AbortSignal} [signal]
   * @returns {Promise<EventPage>}
   */
  page(page = {}, signal) {
    return this.#gateway.call("GET", `${this.#path}/events`, { query: page, signal });
  }

  /**
   * @param {AbortSignal} [signal]
   * @returns {Promise<State>}
   */
  state(signal) {
    return this.#gateway.call("GET", this.#path, { signal });
  }

  /**
   * Carried out once for an `id`, so it is repeated when the network fails.
   * @param {string} text
   * @param {Prompting} [about]
   * @returns {Promise<Sent>}
   */
  prompt(text, { mode, id = makeId(), ...sending } = {}) {
    return this.#send("prompts", { text, ...(mode && { mode }) }, sending, id);
  }

  /**
   * @param {string} requestId
   * @param {unknown} answer `"allow"`, `"deny"` or the object that the contract describes
   * @param {Sending} [sending]
   * @returns {Promise<Sent>}
   */
  answer(requestId, answer, sending) {
    return this.#send(`answers/${encodeURIComponent(requestId)}`, answer, sending);
  }

  /** @param {Sending} [sending] */
  interrupt(sending) {
    return this.#send("interrupt", {}, sending);
  }

  /** @param {Sending} [sending] */
  stop(sending) {
    return this.#send("stop", {}, sending);
  }

  /**
   * @param {string} model
   * @param {Sending} [sending]
   */
  setModel(model, sending) {
    return this.#send("model", { model }, sending);
  }

  /**
   * @param {string} permissionMode
   * @param {Sending} [sending]
   */
  setPermissionMode(permissionMode, sending) {
    return this.#send("permission-mode", { permissionMode }, sending);
  }

  /** Deletes the session and all that is kept of it. */
  remove() {
    return this.#gateway.call("DELETE", this.#path);
  }

  /**
   * @param {string} what
   * @param {unknown} body
   * @param {Sending} [sending]
   * @param {string} [idempotencyKey]
   * @returns {Promise<Sent>}
   */
  #send(what, body, { wait, signal } = {}, idempotencyKey) {
    return this.#gateway.call("POST", `${this.#path}/${what}`, { body, query: { wait }, signal, idempotencyKey });
  }
}
