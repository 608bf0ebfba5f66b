import type { Entry, Event, OpenBlock, Status } from "../types/wire.js";
/** Grows by `apply`. Texts that are whole stand in `entries`, those being written in `open`. */
export declare class Transcript {
    #private;
    /** @type {Entry[]} */
    entries: Entry[];
    /** @type {Map<string, OpenBlock>} by block id */
    open: Map<string, OpenBlock>;
    /** @type {Map<string, Entry>} requests that nobody has answered, by request id */
    waiting: Map<string, Entry>;
    /** @type {string | null} the last event's */
    cursor: string | null;
    /** @type {Status | null} */
    status: Status | null;
    /**
     * Takes an event, once.
     * @param {Event} event
     * @returns {Entry | OpenBlock | null} what of `entries` or `open` has changed
     */
    apply(event: Event): Entry | OpenBlock | null;
}
