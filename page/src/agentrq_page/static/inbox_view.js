/** The inbox: one place for all approvals and questions of all sessions. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { html } from "./html.js";
import { decided, keyOf, putOff, waiting } from "./inbox_store.js";
import { RequestCard, Resolution } from "./request_card.js";
import { sessionLink } from "./router.js";
import { shortened } from "./format.js";
import { visible } from "./visible.js";
import { Boundary, Time } from "./widgets.js";

export function InboxView() {
  const selected = useSignal("");
  const all = waiting.value;
  const list = [
    ...(all ?? []).filter((one) => !putOff.value.has(keyOf(one))),
    ...(all ?? []).filter((one) => putOff.value.has(keyOf(one))),
  ];
  const place = Math.max(
    0,
    list.findIndex((one) => keyOf(one) === selected.value),
  );
  const current = list[place];
  useEffect(() => {
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      const target = /** @type {HTMLElement} */ (event.target);
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
      if (event.key === "j" || event.key === "k") {
        const next = list[Math.min(list.length - 1, Math.max(0, place + (event.key === "j" ? 1 : -1)))];
        if (next) select(next);
      } else if (["a", "d", "m"].includes(event.key)) {
        // A key held down answers once: what comes up next has not been read.
        const button = document.querySelector(`[data-current=true] [data-key="${event.key}"]`);
        if (!event.repeat && button instanceof HTMLButtonElement) button.click();
      } else return;
      event.preventDefault();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  });
  const select = (/** @type {import("./inbox_store.js").Waiting} */ one) => {
    selected.value = keyOf(one);
    document.getElementById(`request-${keyOf(one)}`)?.scrollIntoView({ block: "nearest" });
  };
  const later = (/** @type {import("./inbox_store.js").Waiting} */ one) => {
    putOff.value = new Set(putOff.value).add(keyOf(one));
    selected.value = "";
  };
  const found = all?.length ? `${all.length} waiting, the oldest first` : "Nothing waits for an answer.";
  const words = all === null ? "Reading…" : found;
  return html`<main class="inbox">
    <h1>Inbox</h1>
    <p class="hint" role="status">${words}</p>
    ${all?.length ? html`<p class="hint keys">
      <kbd>a</kbd> allow <kbd>d</kbd> deny <kbd>m</kbd> change input <kbd>j</kbd>/<kbd>k</kbd> next, previous</p>` : ""}
    <${Notifications} />
    <div role="list" aria-label="Requests">
      ${list.map((one) => {
        const isCurrent = one === current;
        return html`<div key=${keyOf(one)} id=${`request-${keyOf(one)}`} class="card request open" role="listitem"
          data-current=${isCurrent} aria-current=${isCurrent} onClick=${() => (selected.value = keyOf(one))}>
          <header>
            <h2>${one.type === "question" ? "Question" : html`<strong>${visible(one.content.name)}</strong>`}
              ${putOff.value.has(keyOf(one)) && html` <span class="hint">(put off)</span>`}</h2>
            <p class="hint">
              <a href=${sessionLink(one.sessionId)}>${visible(shortened(one.sessionId, 40))}</a>
              ${one.cwd && html` in <code>${visible(one.cwd)}</code>`}, asked <${Time} time=${one.askedAt} />
              ${one.deadline && html`, <strong>decided by itself <${Time} time=${one.deadline} /></strong>`}
            </p>
          </header>
          <${Boundary}><${RequestCard} asked=${one} keys=${isCurrent} later=${() => later(one)} /><//>
        </div>`;
      })}
    </div>
    ${
      decided.value.length > 0 &&
      html`<h2>Decided since this page was opened</h2>
      <ol class="history">${decided.value.map(
        (one) => html`<li key=${keyOf(one)}>
        <a href=${sessionLink(one.sessionId)}>${visible(shortened(one.sessionId, 40))}</a>
        : ${visible(one.type === "question" ? "a question" : one.content.name)}
        <${Resolution} resolved=${one.resolved} /></li>`,
      )}</ol>`
    }
  </main>`;
}

function Notifications() {
  const permission = useSignal(globalThis.Notification?.permission ?? "denied");
  if (permission.value !== "default") return null;
  const ask = async () => (permission.value = await Notification.requestPermission());
  return html`<button type="button" class="quiet" onClick=${ask}>Notify me of new requests</button>`;
}
