/** The feed of all statuses, for every view that shows more than one session. Owns one connection and the pace. */
import { gateway, tell } from "./gateway.js";

/** Changes are told together, so often at most. */
const PACE_MS = 400;
/** After the feed was refused. */
const RETRY_MS = 5000;

/** @typedef {(ids: Set<string> | null) => void} Listener null: the feed has just begun, any session may have changed */

/** @type {Set<Listener>} */
const listeners = new Set();
/** @type {Set<string> | null} */
let changed = new Set();
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @param {Listener} listener */
export function onStatus(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tellLater() {
  timer ??= setTimeout(() => {
    timer = undefined;
    const ids = changed;
    changed = new Set();
    for (const listener of listeners) listener(ids);
  }, PACE_MS);
}

/** Reads the feed for as long as the page is open. */
export async function readStatuses() {
  for (let isFirst = true; ;) {
    try {
      for await (const event of gateway.statuses()) {
        if (event.type === "reset") {
          if (!isFirst) changed = null;
          isFirst = false;
        } else changed?.add(event.sessionId);
        tellLater();
      }
    } catch (problem) {
      tell(problem);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
