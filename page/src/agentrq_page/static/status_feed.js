/** The feed of what happens to all sessions, for every view that shows more than one. Owns one connection, the pace. */
import { gateway, tell } from "./gateway.js";

/** Changes are told together, so often at most. */
const PACE_MS = 400;
/** After the feed was refused. */
const RETRY_MS = 5000;

/**
 * What has happened since the last time: to which sessions (null: to any), and whether requests came or went.
 * @typedef {{ids: Set<string> | null, requests: boolean}} Changes
 */

/** @type {Set<(changes: Changes) => void>} */
const listeners = new Set();
/** @type {Changes} */
let changes = { ids: new Set(), requests: false };
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @param {(changes: Changes) => void} listener */
export function onChanges(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tellLater() {
  timer ??= setTimeout(() => {
    timer = undefined;
    const told = changes;
    changes = { ids: new Set(), requests: false };
    for (const listener of listeners) listener(told);
  }, PACE_MS);
}

/** Reads the feed for as long as the page is open. */
export async function readFeed() {
  for (;;) {
    try {
      for await (const { type, status, sessionId } of gateway.statuses()) {
        if (type === "ready" || type === "reset") changes = { ids: null, requests: true };
        else {
          changes.ids?.add(sessionId);
          changes.requests ||= status !== "running";
        }
        tellLater();
      }
    } catch (problem) {
      tell(problem);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
