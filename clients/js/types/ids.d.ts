/** Cursors (`<epoch>-<seq>`) and keys. */
/**
 * Whether cursor `a` comes after `b`; every cursor comes after an absent one.
 * @param {string} a
 * @param {string | null | undefined} b
 */
export declare function isAfter(a: string, b: string | null | undefined): boolean;
/** An idempotency key; `crypto.randomUUID` is missing on plain HTTP. */
export declare function makeId(): string;
