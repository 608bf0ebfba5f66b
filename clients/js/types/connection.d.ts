import type { Handle } from "../types/wire.js";
/** Calls `open` after every cut, with jitter and growing pauses, until `close()` or an answer 4xx. */
export declare class Connection {
    #private;
    /**
     * @param {(signal: AbortSignal) => Promise<Response>} open
     * @param {Handle} handle
     */
    constructor(open: (signal: AbortSignal) => Promise<Response>, handle: Handle);
    /** Opens it again at once. */
    restart(): void;
    close(): void;
}
