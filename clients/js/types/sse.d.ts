/** Reads server-sent events. Pure: text in, frames out. */
/** @import { Frame } from "../types/wire.js" */
import type { Frame } from "../types/wire.js";
/** Frames may come in any pieces. */
export declare class FrameReader {
    #private;
    /**
     * @param {string} piece
     * @returns {Frame[]}
     */
    read(piece: string): Frame[];
}
