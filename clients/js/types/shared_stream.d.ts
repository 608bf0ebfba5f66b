import type { Event, Following, Settings } from "../types/wire.js";
export declare class SharedStream {
    #private;
    /**
     * @param {(sessions: Record<string, string | null>, deltas: boolean, cut: AbortSignal) => Promise<Response>} open
     * @param {Settings["onConnection"]} [state]
     */
    constructor(open: (sessions: Record<string, string | null>, deltas: boolean, cut: AbortSignal) => Promise<Response>, state?: Settings["onConnection"]);
    /**
     * @param {string} sessionId
     * @param {Following} options
     */
    follow(sessionId: string, { after, deltas, signal }: Following): AsyncGenerator<Event, void, unknown>;
    reconnect(): void;
}
