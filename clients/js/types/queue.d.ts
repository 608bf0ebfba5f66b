/** @template T */
export declare class Queue<T> {
    #private;
    /** @type {T[]} */
    items: T[];
    ended: boolean;
    /** @param {T} item */
    push(item: T): void;
    /** @param {unknown} [error] */
    end(error?: unknown): void;
    /** @param {() => void} [empty] before it waits */
    take(empty?: () => void): AsyncGenerator<Awaited<T>, void, unknown>;
}
