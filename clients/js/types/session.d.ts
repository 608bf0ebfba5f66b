import type { AgentRQ } from "./client.js";
import type { SharedStream } from "./shared_stream.js";
import type { EventPage, Following, Prompting, Sending, Sent, State } from "../types/wire.js";
/** Made by `AgentRQ.start` and `AgentRQ.session`. */
export declare class Session {
    #private;
    id: string;
    /**
     * @param {AgentRQ} gateway
     * @param {SharedStream} stream
     * @param {string} id
     */
    constructor(gateway: AgentRQ, stream: SharedStream, id: string);
    /**
     * What is kept after a cursor, then live until the end, each event once. With `deltas` also the pieces of texts, which
     * have no cursor. `{type: "reset"}` says that what comes next is the oldest kept.
     * @param {Following} options
     */
    events(options?: Following): AsyncGenerator<import("../types/wire.js").Event, void, unknown>;
    /**
     * A page of what is kept.
     * @param {{after?: string, before?: string, limit?: number}} [page]
     * @param {AbortSignal} [signal]
     * @returns {Promise<EventPage>}
     */
    page(page?: {
        after?: string;
        before?: string;
        limit?: number;
    }, signal?: AbortSignal): Promise<EventPage>;
    /**
     * @param {AbortSignal} [signal]
     * @returns {Promise<State>}
     */
    state(signal?: AbortSignal): Promise<State>;
    /**
     * Carried out once for an `id`, so it is repeated when the network fails.
     * @param {string} text
     * @param {Prompting} [about]
     * @returns {Promise<Sent>}
     */
    prompt(text: string, { mode, id, ...sending }?: Prompting): Promise<Sent>;
    /**
     * @param {string} requestId
     * @param {unknown} answer `"allow"`, `"deny"` or the object that the contract describes
     * @param {Sending} [sending]
     * @returns {Promise<Sent>}
     */
    answer(requestId: string, answer: unknown, sending?: Sending): Promise<Sent>;
    /** @param {Sending} [sending] */
    interrupt(sending?: Sending): Promise<Sent>;
    /** @param {Sending} [sending] */
    stop(sending?: Sending): Promise<Sent>;
    /**
     * @param {string} model
     * @param {Sending} [sending]
     */
    setModel(model: string, sending?: Sending): Promise<Sent>;
    /**
     * @param {string} permissionMode
     * @param {Sending} [sending]
     */
    setPermissionMode(permissionMode: string, sending?: Sending): Promise<Sent>;
    /** Deletes the session and all that is kept of it. */
    remove(): Promise<any>;
}
