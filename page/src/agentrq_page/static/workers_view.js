/** Workers and queues: who serves, how much room is left, what waits. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { asText, duration, isRecord } from "./format.js";
import { gateway, tell } from "./gateway.js";
import { html } from "./html.js";
import { sessionLink } from "./router.js";
import { visible, visibleText } from "./visible.js";
import { Time } from "./widgets.js";

const POLL_MS = 3000;

export function WorkersView() {
  /** @type {import("@preact/signals").Signal<any>} */
  const workers = useSignal(null);
  /** @type {import("@preact/signals").Signal<any>} */
  const queues = useSignal(null);
  const read = async () => {
    try {
      [workers.value, queues.value] = await Promise.all([gateway.workers(), gateway.queues()]);
    } catch (problem) {
      tell(problem);
    }
  };
  useEffect(() => {
    read();
    const timer = setInterval(() => !document.hidden && read(), POLL_MS);
    return () => clearInterval(timer);
  }, []);
  const listed = workers.value?.workers ?? [];
  const isSuspended = (queues.value?.queues ?? []).some((/** @type {any} */ queue) => queue.suspended);
  return html`<main>
    <h1>Workers and queues</h1>
    <h2>Workers</h2>
    ${
      workers.value === null
        ? html`<p class="hint" role="status">Reading…</p>`
        : listed.length === 0 &&
          html`<p class="problem" role="status">
      No worker is alive: sessions stay queued until one is. Start one with <code>agentrq worker</code>.</p>`
    }
    <div class="cards">${listed.map((/** @type {any} */ worker) => html`<${Worker} key=${worker.name}
      worker=${worker} />`)}</div>
    <h2>Queues</h2>
    ${isSuspended && html`<p class="problem"
      role="alert">RQ is suspended: nothing is dequeued until <code>rq resume</code>.</p>`}
    <div class="cards">${(queues.value?.queues ?? []).map((/** @type {any} */ queue) => html`<${Queue}
      key=${queue.name} queue=${queue} />`)}</div>
    <h2>Why is a session where it is?</h2>
    <${Why} />
  </main>`;
}

/** @param {{worker: any}} props */
function Worker({ worker }) {
  const { name, slots = 0, used, free, draining, alive, ...others } = worker;
  return html`<section class="card" aria-label=${`Worker ${visibleText(name)}`}>
    <h3>${visible(name)} ${draining && html`<span class="badge">draining</span>`}
      ${alive === false && html`<span class="problem">lost</span>`}</h3>
    ${
      slots > 0 &&
      html`<label class="meter">${used ?? slots - (free ?? 0)} of ${slots} slots used
      <progress max=${slots} value=${used ?? slots - (free ?? 0)}></progress></label>`
    }
    <${Members} of=${others} />
    <a href=${`#/sessions?worker=${encodeURIComponent(name)}`}>Its sessions</a>
  </section>`;
}

/** @param {{queue: any}} props */
function Queue({ queue: { name, ...others } }) {
  return html`<section class="card" aria-label=${`Queue ${visibleText(name)}`}><h3>${visible(name)}</h3><${Members}
    of=${others} /></section>`;
}

/** Whatever the gateway says more. @param {{of: any}} props */
function Members({ of }) {
  return html`<dl class="members">${Object.entries(of).map(
    ([name, value]) => html`<dt>${visible(words(name))}</dt><dd>${shown(name, value)}</dd>`,
  )}</dl>`;
}

const words = (/** @type {string} */ name) =>
  name
    .replace(/(Ms|S)$/, "")
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .toLowerCase();

/**
 * @param {string} name
 * @param {any} value
 */
function shown(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number" && /At$/.test(name)) return html`<${Time} time=${value} />`;
  if (typeof value === "number" && /Ms$/.test(name)) return duration(value);
  if (typeof value === "number" && /[a-z]S$/.test(name)) return duration(value * 1000);
  return html`<span>${visible(isRecord(value) || Array.isArray(value) ? asText(value) : value)}</span>`;
}

function Why() {
  const id = useSignal("");
  const answer = useSignal("");
  const ask = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      answer.value = asText(await gateway.call("GET", `sessions/${encodeURIComponent(id.value.trim())}/why`));
    } catch (problem) {
      answer.value = problem instanceof Error ? problem.message : String(problem);
    }
  };
  return html`<form onSubmit=${ask} class="actions">
      <label>Session <input required value=${id.value}
        onInput=${(/** @type {any} */ event) => (id.value = event.target.value)} /></label>
      <button>Why?</button>
      ${id.value.trim() && html`<a href=${sessionLink(id.value.trim())}>Open it</a>`}
    </form>
    ${answer.value && html`<pre class="code" role="status" tabindex="0"
      aria-label="Answer">${visible(answer.value)}</pre>`}`;
}
