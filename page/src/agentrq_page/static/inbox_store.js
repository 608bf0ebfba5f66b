/** Everything that waits for an answer, and what became of it: by whom, also where somebody else was first. */
import { computed, signal } from "@preact/signals";
import { gateway, tell } from "./gateway.js";
import { onChanges } from "./status_feed.js";

/** Beside the feed, which a request of a session that waits already may not be in, so often. */
const POLL_MS = 10_000;
/** Decisions that the history keeps. */
const MOST_DECISIONS = 200;

/**
 * @typedef {{
 *   sessionId: string, requestId: string, type: string, content: any, cursor?: string, cwd?: string, provider?: string,
 *   askedAt?: number, deadline?: number, resolved?: {decision: string, by: string, timestamp: number},
 * }} Waiting
 */

/** @type {import("@preact/signals").Signal<Waiting[] | null>} those that wait, the oldest first */
export const waiting = signal(null);
/** @type {import("@preact/signals").Signal<Waiting[]>} those decided since the page was opened, the newest first */
export const decided = signal([]);
/** @type {import("@preact/signals").Signal<Set<string>>} those put off by *Not now* */
export const putOff = signal(new Set());
export const count = computed(() => waiting.value?.length ?? 0);

export const keyOf = (/** @type {{sessionId: string, requestId: string}} */ { sessionId, requestId }) =>
  `${sessionId} ${requestId}`;

/** @type {Map<string, AbortController>} sessions that are followed for their decisions */
const followed = new Map();

/** Reads what waits; what no longer does is looked up in its session. */
export async function readWaiting() {
  try {
    const { approvals } = await gateway.approvals();
    const found = approvals.map(asWaiting);
    const known = new Set(decided.value.map(keyOf));
    waiting.value = found.filter((one) => !known.has(keyOf(one)));
    for (const one of waiting.value) follow(one);
  } catch (problem) {
    waiting.value ??= [];
    tell(problem);
  }
}

/**
 * @param {any} approval
 * @returns {Waiting}
 */
function asWaiting(approval) {
  const { sessionId, requestId, type, kind, name, input, questions, suggestions } = approval;
  const isQuestion = type === "question" || kind === "question" || Array.isArray(questions);
  const content = approval.content ?? { requestId, name, input, questions, suggestions };
  return { ...approval, sessionId, requestId, type: isQuestion ? "question" : "approval_request", content };
}

/**
 * Follows the session of a request, so that the page knows at once when and by whom it was decided.
 * @param {Waiting} one
 */
async function follow({ sessionId, cursor }) {
  if (followed.has(sessionId) || !cursor) return;
  const abort = new AbortController();
  followed.set(sessionId, abort);
  try {
    for await (const event of gateway.session(sessionId).events({ after: cursor, signal: abort.signal })) {
      if (event.type !== "approval_resolved") continue;
      const { requestId, decision, by } = event.content;
      settle(sessionId, requestId, { decision, by, timestamp: event.timestamp ?? Date.now() });
      if (!waiting.value?.some((other) => other.sessionId === sessionId)) break;
    }
  } catch (problem) {
    tell(problem);
  } finally {
    followed.delete(sessionId);
  }
}

/**
 * @param {string} sessionId
 * @param {string} requestId
 * @param {{decision: string, by: string, timestamp: number}} resolved
 */
function settle(sessionId, requestId, resolved) {
  const key = keyOf({ sessionId, requestId });
  const found = waiting.value?.find((one) => keyOf(one) === key);
  if (!found) return;
  waiting.value = (waiting.value ?? []).filter((one) => one !== found);
  decided.value = [{ ...found, resolved }, ...decided.value].slice(0, MOST_DECISIONS);
}

/** Keeps the inbox up to date for as long as the page is open. */
export function watchInbox() {
  readWaiting();
  onChanges(({ requests }) => requests && readWaiting());
  setInterval(() => {
    if (!document.hidden || count.value === 0) readWaiting();
  }, POLL_MS);
}

/** Tells of new requests by the system, where the visitor has allowed it. */
export function notifyOfNew() {
  let before = 0;
  return count.subscribe((now) => {
    if (now > before && document.hidden && globalThis.Notification?.permission === "granted") {
      new Notification("agentrq", {
        body: now === 1 ? "A request waits for your answer" : `${now} requests wait for your answer`,
        tag: "inbox",
      });
    }
    before = now;
  });
}
