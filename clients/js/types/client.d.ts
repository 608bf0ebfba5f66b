import type { Approval, Event, Request, SessionPage, Settings, Starting } from "../types/wire.js";
import { Session } from "./session.js";
/** A gateway. All sessions that are followed through one of these share one connection. */
export declare class AgentRQ {
    #private;
    /**
     * @param {string | URL} base where the gateway is mounted; in browsers it may be relative
     * @param {Settings} [settings]
     */
    constructor(base: string | URL, settings?: Settings);
    /**
     * Queues a session.
     * @param {string} provider
     * @param {string} prompt
     * @param {object} [options] as on the wire: `cwd`, `permissionMode`, …
     * @param {Starting} [about]
     */
    start(provider: string, prompt: string, options?: object, { sessionId, idempotencyKey, signal }?: Starting): Promise<Session>;
    /**
     * A handle; no request is made.
     * @param {string} id
     */
    session(id: string): Session;
    /**
     * A page of sessions, the newest first; `before` is the `next` of the page before.
     * @param {Request["query"]} [filters]
     * @param {AbortSignal} [signal]
     * @returns {Promise<SessionPage>}
     */
    sessions(filters?: Request["query"], signal?: AbortSignal): Promise<SessionPage>;
    /**
     * What waits for an answer, the oldest first.
     * @returns {Promise<{approvals: Approval[]}>}
     */
    approvals(): Promise<{
        approvals: Approval[];
    }>;
    workers(): Promise<any>;
    queues(): Promise<any>;
    /**
     * The statuses of all sessions. None is kept: after each `{type: "ready"}` or `"reset"` list the sessions anew.
     * @param {{signal?: AbortSignal}} [options]
     */
    statuses({ signal }?: {
        signal?: AbortSignal;
    }): AsyncGenerator<Event, void, unknown>;
    /** Opens the connection again at once: the network is back. */
    reconnect(): void;
    /**
     * A request, its answer as JSON.
     * @param {string} method
     * @param {string} path
     * @param {Request} [request]
     * @returns {Promise<any>}
     */
    call(method: string, path: string, request?: Request): Promise<any>;
    /**
     * @param {string} method
     * @param {string} path
     * @param {Request} request
     */
    fetch(method: string, path: string, { body, query, signal, idempotencyKey }: Request): Promise<Response>;
}
