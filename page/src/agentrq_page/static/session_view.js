/** A session: its transcript as it grows, what it does now, and the ways to speak to it. */
import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { Composer } from "./composer.js";
import { EntryView, isBad } from "./entry_view.js";
import { dollars, shortened } from "./format.js";
import { html } from "./html.js";
import { markdown } from "./markdown.js";
import { CHUNK, SessionStore } from "./session_store.js";
import { visible, visibleText } from "./visible.js";
import { Elapsed, Status, Time } from "./widgets.js";

/** Raw events that are shown at once. */
const MOST_RAW = 300;

export const hasEnded = (/** @type {string | null | undefined} */ status) => status === "done" || status === "error";

/** @param {{id: string}} props */
export function SessionView({ id }) {
  const store = useMemo(() => new SessionStore(id), [id]);
  useEffect(() => () => store.close(), [store]);
  const showsRaw = useSignal(false);
  const state = store.state.value;
  if (store.failed.value && !state) {
    return html`<main><h1>Session ${visible(id)}</h1><p class="problem"
      role="alert">${visible(store.failed.value)}</p></main>`;
  }
  return html`<main class="session">
    <header class="session-head">
      <h1><span class="spoken">Session </span>${visible(shortened(id, 70))}</h1>
      ${state && html`<${Facts} state=${state} />`}
      <div class="actions">
        <button type="button" class="quiet" onClick=${() => jumpToError(store)}>Next error</button>
        <button type="button" class="quiet" aria-pressed=${showsRaw.value}
          onClick=${() => (showsRaw.value = !showsRaw.value)}>
          Events</button>
      </div>
    </header>
    ${store.loading.value && html`<p class="hint" role="status">Reading the earlier events…</p>`}
    <div class=${showsRaw.value ? "beside" : ""}>
      <${TranscriptView} store=${store} />
      ${showsRaw.value && html`<${RawEvents} store=${store} />`}
    </div>
    ${state && html`<footer class="session-foot"><${Now} store=${store} /><${Composer} store=${store} /></footer>`}
  </main>`;
}

/** @param {{state: any}} props */
function Facts({ state }) {
  const { status, reason, error, provider, model, cwd, worker, costUsd, createdAt, metadata = {}, tenant } = state;
  return html`<dl class="facts">
    <div><dt>Status</dt><dd><${Status} status=${status} />${reason && html` (${visible(reason)})`}</dd></div>
    <div><dt>Provider</dt><dd>${visible(provider)}</dd></div>
    ${model && html`<div><dt>Model</dt><dd>${visible(model)}</dd></div>`}
    ${cwd && html`<div><dt>Directory</dt><dd>${visible(cwd)}</dd></div>`}
    ${worker && html`<div><dt>Worker</dt><dd>${visible(worker)}</dd></div>`}
    ${tenant && html`<div><dt>Tenant</dt><dd>${visible(tenant)}</dd></div>`}
    <div><dt>Cost</dt><dd>${dollars(Number(costUsd ?? 0))}</dd></div>
    <div><dt>Started</dt><dd><${Time} time=${createdAt} /></dd></div>
    ${Object.entries(metadata).map(([name, value]) => html`<div><dt>${visible(name)}</dt><dd>${visible(value)}</dd>
      </div>`)}
    ${error && html`<div class="problem"><dt>Error</dt><dd>${visible(error)}</dd></div>`}
  </dl>`;
}

/** @param {{store: SessionStore}} props */
function TranscriptView({ store }) {
  const count = store.chunkCount.value;
  const log = useRef(/** @type {HTMLElement | null} */ (null));
  const follows = useRef(true);
  const missed = useSignal(false);
  const drawnUpTo = useSignal(0); // chunks below this place, counted from the end, are drawn
  useEffect(() => {
    let top = 0;
    const onScroll = () => {
      const { scrollHeight, scrollTop, clientHeight } = document.documentElement;
      const isAtEnd = scrollHeight - scrollTop - clientHeight < 80;
      // What grows below does not mean that the reader has left; scrolling up does.
      if (isAtEnd || scrollTop < top - 2) follows.current = isAtEnd;
      if (isAtEnd) missed.value = false;
      top = scrollTop;
    };
    const toEnd = () => {
      if (follows.current) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
    };
    const grown = new ResizeObserver(toEnd);
    if (log.current) grown.observe(log.current);
    addEventListener("scroll", onScroll, { passive: true });
    return () => {
      grown.disconnect();
      removeEventListener("scroll", onScroll);
    };
  }, []);
  // The newest chunks are drawn at once, the others while nothing else is to do: find-in-page needs all of them.
  useEffect(() => {
    if (drawnUpTo.value >= count) return undefined;
    const later =
      "requestIdleCallback" in globalThis ? requestIdleCallback : (/** @type {any} */ act) => setTimeout(act, 30);
    const handle = later(() => (drawnUpTo.value = Math.min(count, drawnUpTo.value + 4)));
    return () =>
      "cancelIdleCallback" in globalThis ? cancelIdleCallback(/** @type {number} */ (handle)) : clearTimeout(handle);
  }, [count, drawnUpTo.value]);
  const first = Math.max(0, count - 4 - drawnUpTo.value);
  return html`<section class="transcript" role="log" aria-label="Transcript" ref=${log} tabindex="-1">
    ${first > 0 && html`<p class="hint">${first * CHUNK} earlier entries are being drawn…</p>`}
    ${Array.from({ length: count - first }, (_, place) => html`<${Chunk} key=${first + place} store=${store}
      chunk=${first + place} />`)}
    <${OpenTexts} store=${store} />
    <${Newer} store=${store} follows=${follows} missed=${missed} />
    ${
      missed.value &&
      html`<button type="button" class="to-end"
        onClick=${() => scrollTo({ top: document.documentElement.scrollHeight })}>
      New below</button>`
    }
  </section>`;
}

/**
 * Notes what comes while the reader is not at the end.
 * @param {{store: SessionStore, follows: any, missed: any}} props
 */
function Newer({ store, follows, missed }) {
  const version = store.version.value;
  useEffect(() => {
    if (!follows.current) missed.value = true;
  }, [version]);
  return null;
}

/** @param {{store: SessionStore, chunk: number}} props */
function Chunk({ store, chunk }) {
  const version = store.chunks[chunk]?.value;
  const live = !hasEnded(store.transcript.status);
  return useMemo(() => {
    const entries = store.transcript.entries.slice(chunk * CHUNK, (chunk + 1) * CHUNK);
    return html`<div class="chunk">
      ${entries.map((entry) => html`<${EntryView} key=${entry.cursor} entry=${entry} sessionId=${store.id}
        live=${live} />`)}
    </div>`;
  }, [store, chunk, version, live]);
}

/** Texts that are being written. @param {{store: SessionStore}} props */
function OpenTexts({ store }) {
  void store.version.value;
  const open = [...store.transcript.open.values()];
  return html`<div class="open-texts" aria-busy=${open.length > 0}>
    ${open.map(
      ({ kind, blockId, text }) => html`<article key=${blockId} class="entry entry-${kind} being-written">
        <div class="when"><span>now</span></div>
        <div class="what">${
          kind === "text"
            ? html`<div class="markdown" dir="auto">${markdown(text)}</div>`
            : html`<p class="plain thinking" dir="auto">${visible(text)}</p>`
        }</div>
      </article>`,
    )}
  </div>`;
}

/** What the agent does now, and for how long. @param {{store: SessionStore}} props */
function Now({ store }) {
  void store.version.value;
  const { transcript } = store;
  const status = store.state.value?.status ?? transcript.status;
  const last = transcript.entries.at(-1);
  const running =
    status === "running"
      ? transcript.entries.slice(-CHUNK).findLast(({ kind, result }) => kind === "tool" && !result)
      : undefined;
  const open = [...transcript.open.values()].at(-1);
  const waiting = transcript.waiting.size;
  let words;
  if (hasEnded(status)) words = html`The session has ended.`;
  else if (waiting)
    words = html`Waits for ${waiting === 1 ? "an answer" : `${waiting} answers`}, for <${Elapsed}
      since=${store.since.value} />`;
  else if (open) words = open.kind === "text" ? "Writing…" : "Thinking…";
  else if (running) words = html`Runs ${visible(running.content.name)}, for <${Elapsed} since=${running.timestamp} />`;
  else if (status === "running")
    words = html`Working, for <${Elapsed} since=${last?.timestamp ?? store.since.value} />`;
  else words = html`<${Status} status=${status} />, for <${Elapsed} since=${store.since.value} />`;
  return html`<p class="now" role="status">${words}${store.failed.value && html` <span
    class="problem">${visible(store.failed.value)}</span>`}</p>`;
}

/** @param {{store: SessionStore}} props */
function RawEvents({ store }) {
  void store.version.value;
  const filter = useSignal("");
  const wanted = filter.value.toLowerCase();
  const found = wanted
    ? store.events.filter((event) => JSON.stringify(event).toLowerCase().includes(wanted))
    : store.events;
  const shown = found.slice(-MOST_RAW);
  return html`<aside class="raw" aria-label="Events">
    <h2>Events</h2>
    <label>Filter <input type="search" value=${filter.value}
      onInput=${(/** @type {any} */ event) => (filter.value = event.target.value)} /></label>
    <p class="hint">${found.length} of ${store.events.length}, the last ${shown.length} shown</p>
    <ol>${shown.map(
      (event) => html`<li key=${event.cursor}><details>
        <summary><code>${visible(event.cursor)}</code> ${visible(nameOf(event))}</summary>
        <pre class="code" tabindex="0"
          aria-label=${`Event ${visibleText(event.cursor)}`}>${visible(JSON.stringify(event, null, 2))}</pre>
      </details></li>`,
    )}</ol>
  </aside>`;
}

/** @param {import("./session_store.js").Event} event */
const nameOf = ({ type, status, command, outcome }) => type ?? status ?? `${command} ${outcome}`;

/** @param {SessionStore} store */
function jumpToError({ transcript }) {
  const from = document.querySelector(".entry.pointed-at")?.getAttribute("data-cursor");
  const bad = transcript.entries.filter(isBad);
  const place = bad.findIndex(({ cursor }) => cursor === from);
  const next = bad[(place + 1) % Math.max(1, bad.length)];
  document.querySelector(".entry.pointed-at")?.classList.remove("pointed-at");
  const element = next && document.getElementById(`e-${next.cursor}`);
  element?.classList.add("pointed-at");
  element?.scrollIntoView({ block: "center" });
}
