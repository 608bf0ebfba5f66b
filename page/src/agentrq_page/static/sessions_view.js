/** All sessions, by pages from the gateway; the filters are the address, the statuses are live. */
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { dollars, shortened } from "./format.js";
import { gateway, tell } from "./gateway.js";
import { html } from "./html.js";
import { route, sessionLink, setQuery } from "./router.js";
import { onChanges } from "./status_feed.js";
import { visible } from "./visible.js";
import { Status, Time } from "./widgets.js";

const STATUSES = ["queued", "starting", "running", "idle", "waiting", "recovering", "done", "error"];
const PAGE = 50;

/** @type {import("@preact/signals").Signal<any[] | null>} */
const sessions = signal(null);
/** @type {import("@preact/signals").Signal<string | undefined>} */
const next = signal(undefined);

export function SessionsView() {
  const { query } = route.value;
  const text = query.toString();
  const isReading = useSignal(false);
  const read = async (/** @type {string | undefined} */ before) => {
    isReading.value = true;
    try {
      const filters = Object.fromEntries(new URLSearchParams(text));
      const page = await gateway.sessions({ limit: PAGE, ...filters, before });
      if (route.value.query.toString() !== text) return; // an answer to a question of before
      sessions.value = before ? [...(sessions.value ?? []), ...page.sessions] : page.sessions;
      next.value = page.next;
    } catch (problem) {
      tell(problem);
    } finally {
      isReading.value = false;
    }
  };
  useEffect(() => {
    read(undefined);
    return onChanges(({ ids }) => refresh(ids, () => read(undefined)));
  }, [text]);
  const rows = sessions.value;
  const found = rows?.length ? `${rows.length} shown` : html`No session. <a href="#/start">Start one</a>`;
  return html`<main>
    <h1>Sessions</h1>
    <${Filters} query=${query} />
    <div class="scrolls" tabindex="0" role="region" aria-label="Sessions">
      <table class="sessions">
        <thead><tr><th scope="col">Status</th><th scope="col">Session</th><th scope="col">Provider</th><th
          scope="col">Model</th>
          <th scope="col">Worker</th><th scope="col">Tenant</th><th scope="col" class="number">Cost</th><th
            scope="col">Started</th>
          <th scope="col">Last activity</th></tr></thead>
        <tbody>${(rows ?? []).map((state) => html`<${Row} key=${state.sessionId} state=${state} />`)}</tbody>
      </table>
    </div>
    <p role="status" class="hint">${rows === null ? "Reading…" : found}</p>
    ${next.value && html`<button type="button" disabled=${isReading.value}
      onClick=${() => read(next.value)}>More</button>`}
  </main>`;
}

/** @param {{query: URLSearchParams}} props */
function Filters({ query }) {
  const put = (/** @type {string} */ name) => (/** @type {any} */ event) => setQuery({ [name]: event.target.value });
  const wanted = (query.get("status") ?? "").split(",").filter(Boolean);
  const toggle = (/** @type {string} */ status) => {
    const made = wanted.includes(status) ? wanted.filter((one) => one !== status) : [...wanted, status];
    setQuery({ status: made.join(",") });
  };
  return html`<search class="filters">
    <label>Search <input type="search" id="search" value=${query.get("q") ?? ""} onChange=${put("q")} /></label>
    <label>Provider <input value=${query.get("provider") ?? ""} onChange=${put("provider")} /></label>
    <label>Worker <input value=${query.get("worker") ?? ""} onChange=${put("worker")} /></label>
    <label>Tenant <input value=${query.get("tenant") ?? ""} onChange=${put("tenant")} /></label>
    <fieldset class="chips"><legend class="spoken">Status</legend>
      ${STATUSES.map(
        (status) => html`<button type="button" class="chip" aria-pressed=${wanted.includes(status)}
        onClick=${() => toggle(status)}>${status}</button>`,
      )}
    </fieldset>
  </search>`;
}

/** @param {{state: any}} props */
function Row({ state }) {
  const {
    sessionId,
    status,
    reason,
    error,
    provider,
    model,
    worker,
    cwd,
    costUsd,
    createdAt,
    updatedAt,
    pendingApprovals,
  } = state;
  return html`<tr>
    <td><${Status} status=${status} />${pendingApprovals > 0 && html` <a class="badge"
      href="#/inbox">${pendingApprovals} to answer</a>`}
      ${reason && reason !== "completed" && html`<div class="hint">${visible(reason)}</div>`}</td>
    <th scope="row"><a href=${sessionLink(sessionId)}>${visible(shortened(sessionId, 40))}</a>
      ${cwd && html`<div class="hint">${visible(shortened(cwd, 80))}</div>`}
      ${error && html`<div class="problem">${visible(shortened(error, 120))}</div>`}</th>
    <td>${visible(provider)}</td>
    <td>${visible(model ?? "–")}</td>
    <td>${visible(worker ?? "–")}</td>
    <td>${visible(state.tenant ?? state.metadata?.tenant ?? "–")}</td>
    <td class="number">${dollars(Number(costUsd ?? 0))}</td>
    <td><${Time} time=${createdAt} /></td>
    <td><${Time} time=${updatedAt} /></td>
  </tr>`;
}

/**
 * What the feed has named: sessions that are shown are read again, any other means that the list is another.
 * @param {Set<string> | null} ids null: any may have changed
 * @param {() => void} readAll
 */
async function refresh(ids, readAll) {
  const shown = sessions.value ?? [];
  const known = new Set(shown.map((state) => state.sessionId));
  if (!ids || ids.size > 20 || [...ids].some((id) => !known.has(id))) {
    if (shown.length <= PAGE) readAll(); // further pages are not thrown away under a reader
    return;
  }
  const states = await Promise.all(
    [...ids].map((id) =>
      gateway
        .session(id)
        .state()
        .catch(() => ({ sessionId: id, gone: true })),
    ),
  );
  const changed = new Map(states.map((state) => [state.sessionId, state]));
  sessions.value = (sessions.value ?? [])
    .map((state) => changed.get(state.sessionId) ?? state)
    .filter((state) => !state.gone);
}
