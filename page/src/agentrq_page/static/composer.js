/** Speaks to a session: prompts, interrupts, stops, another model or mode. */
import { useSignal } from "@preact/signals";
import { may, tell } from "./gateway.js";
import { html } from "./html.js";
import { TwoClicks } from "./widgets.js";
import { visible } from "./visible.js";

const MODES = {
  queue: "after this turn",
  steer: "into this turn",
  interrupt: "instead of this turn",
};

/** @param {{store: import("./session_store.js").SessionStore}} props */
export function Composer({ store }) {
  const text = useSignal("");
  const mode = useSignal("queue");
  const model = useSignal("");
  const permissionMode = useSignal("");
  const outcome = useSignal("");
  const { session } = store;
  const { status } = store.state.value;
  const ended = status === "done" || status === "error";
  /** @param {string} what @param {Promise<any>} call */
  const send = async (what, call) => {
    outcome.value = `${what}…`;
    try {
      const sent = await call;
      outcome.value =
        sent?.outcome && sent.outcome !== "applied" ? `${what}: ${sent.reason ?? sent.outcome}` : `${what}: sent`;
      return true;
    } catch (problem) {
      tell(problem);
      outcome.value = `${what}: ${problem instanceof Error ? problem.message : problem}`;
      return false;
    }
  };
  const prompt = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const words = text.value;
    if (!words.trim()) return;
    text.value = "";
    const taken = await send("Prompt", session.prompt(words, { mode: /** @type {any} */ (mode.value) }));
    if (!taken && !text.value) text.value = words; // what was written is not lost
  };
  const stop = () => send("Stop", session.stop());
  const key = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) prompt(event);
  };
  if (!may("prompt")) return html`<p class="hint">You may read this session.</p>`;
  if (ended) return html`<p class="hint">It takes no more prompts. <a href="#/start">Start another session</a></p>`;
  const isBusy = status === "running" || status === "waiting";
  return html`<form class="composer" onSubmit=${prompt}>
    <label class="wide"><span class="spoken">Prompt</span>
      <textarea rows="2" placeholder="Prompt (Ctrl+Enter sends)" value=${text.value} onKeyDown=${key}
        onInput=${(/** @type {any} */ event) => (text.value = event.target.value)}></textarea></label>
    <div class="actions">
      <button class="primary">Send</button>
      ${
        isBusy &&
        html`<label><span class="spoken">When</span><select value=${mode.value}
        onChange=${(/** @type {any} */ event) => (mode.value = event.target.value)}>
        ${Object.entries(MODES).map(([name, words]) => html`<option value=${name}>${words}</option>`)}</select></label>
        <button type="button" onClick=${() => send("Interrupt", session.interrupt({ wait: 10 }))}>Interrupt</button>`
      }
      ${may("stop") && html`<${TwoClicks} label="Stop" confirm="Stop the session?" act=${stop} />`}
      <details class="more"><summary>Model and mode</summary>
        <label>Model <input value=${model.value}
          onInput=${(/** @type {any} */ event) => (model.value = event.target.value)} /></label>
        <button type="button" disabled=${!model.value}
          onClick=${() => send("Model", session.setModel(model.value, { wait: 10 }))}>Set</button>
        <label>Permission mode <input value=${permissionMode.value} list="permission-modes"
          onInput=${(/** @type {any} */ event) => (permissionMode.value = event.target.value)} /></label>
        <button type="button" disabled=${!permissionMode.value}
          onClick=${() => send("Mode", session.setPermissionMode(permissionMode.value, { wait: 10 }))}>Set</button>
      </details>
      <span class="hint" role="status">${visible(outcome.value)}</span>
    </div>
  </form>`;
}
