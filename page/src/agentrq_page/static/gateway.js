/** The gateway that has served this page: its client, the state of the connection, who is logged in. */
import { AgentRQ, AgentRQError } from "@agentrq/client";
import { signal } from "@preact/signals";

/** @type {import("@preact/signals").Signal<{state: string, until?: number}>} */
export const connection = signal({ state: "closed" });
/** Whether the gateway wants to know who this is. */
export const loginNeeded = signal(false);
/** What went wrong last, for the line at the foot. */
export const notice = signal("");

export const gateway = new AgentRQ(new URL(".", document.baseURI), {
  onConnection: (state, waitMs) => {
    connection.value = { state, until: waitMs === undefined ? undefined : Date.now() + waitMs };
  },
});
addEventListener("online", () => gateway.reconnect());

/**
 * Runs a call to the gateway; what it refuses is told at the foot of the page.
 * @template T
 * @param {Promise<T>} call
 * @returns {Promise<T | undefined>}
 */
export async function told(call) {
  try {
    const answer = await call;
    notice.value = "";
    return answer;
  } catch (problem) {
    tell(problem);
    return undefined;
  }
}

/** @param {unknown} problem */
export function tell(problem) {
  if (problem instanceof AgentRQError && problem.status === 401) loginNeeded.value = true;
  notice.value = problem instanceof Error ? problem.message : String(problem);
}

/** @type {import("@preact/signals").Signal<{subject?: string, actions?: string[], expires?: number} | null>} */
export const me = signal(null);

/**
 * Whether the visitor may do this: `start`, `prompt`, `answer`, `stop`.
 * @param {string} action
 */
export const may = (action) => me.value?.actions?.includes(action) ?? true;

/** How long before the end of a login it is renewed. */
const RENEW_MS = 60_000;
/** The longest time that a timer takes. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Asks who the visitor is to the gateway, and keeps them logged in. */
export async function identify() {
  me.value = (await told(gateway.call("GET", "whoami"))) ?? null;
  if (me.value?.expires) renewBefore(me.value.expires);
}

/** @param {number} expires ms */
function renewBefore(expires) {
  const wait = Math.max(RENEW_MS / 2, expires - Date.now() - RENEW_MS);
  setTimeout(
    async () => {
      const renewed = await told(gateway.call("POST", "cookie", { body: {} }));
      if (renewed && renewed.expires > expires) renewBefore(renewed.expires);
    },
    Math.min(wait, LONGEST_TIMER_MS),
  );
}

/** Takes the one-use ticket out of the address and exchanges it for a cookie. */
export async function useTicket() {
  const found = /^#ticket=([\w.~-]+)$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", location.pathname + location.search);
  await told(gateway.call("POST", "cookie", { body: { ticket: found[1] } }));
}

/**
 * Exchanges a token for a cookie.
 * @param {string} token
 */
export async function login(token) {
  const headers = { Authorization: `Bearer ${token}` };
  await new AgentRQ(new URL(".", document.baseURI), { headers }).call("POST", "cookie", { body: {} });
  loginNeeded.value = false;
  location.reload();
}
