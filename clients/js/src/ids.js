/** Cursors (`<epoch>-<seq>`) and keys. */

/**
 * Whether cursor `a` comes after `b`; every cursor comes after an absent one.
 * @param {string} a
 * @param {string | null | undefined} b
 */
export function isAfter(a, b) {
  if (!b) return true;
  const [epochA = 0, seqA = 0] = a.split("-").map(Number);
  const [epochB = 0, seqB = 0] = b.split("-").map(Number);
  return epochA !== epochB ? epochA > epochB : seqA > seqB;
}

/** An idempotency key; `crypto.randomUUID` is missing on plain HTTP. */
export function makeId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
