/** A form that starts a session. The options and what they mean come from the gateway's own description. */
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { isRecord } from "./format.js";
import { gateway, tell } from "./gateway.js";
import { html } from "./html.js";
import { route, sessionLink } from "./router.js";
import { visible } from "./visible.js";

/** Options that have a place of their own in the form. */
const FIRST = ["cwd", "permissionMode", "model"];

/** @type {import("@preact/signals").Signal<Record<string, any>>} option → its JSON schema */
const options = signal({});

async function readOptions() {
  if (Object.keys(options.value).length) return;
  try {
    const document = await gateway.call("GET", "openapi.json");
    options.value = document?.components?.schemas?.Options?.properties ?? {};
  } catch (problem) {
    tell(problem);
  }
}

export function StartView() {
  const { query } = route.value;
  const provider = useSignal(query.get("provider") ?? "demo");
  const prompt = useSignal(query.get("prompt") ?? "");
  /** @type {import("@preact/signals").Signal<Record<string, string>>} */
  const given = useSignal({ permissionMode: "default" });
  const problem = useSignal("");
  const busy = useSignal(false);
  useEffect(() => void readOptions(), []);
  const put = (/** @type {string} */ name) => (/** @type {any} */ event) =>
    (given.value = { ...given.value, [name]: event.target.value });
  const start = async (/** @type {Event} */ event) => {
    event.preventDefault();
    problem.value = "";
    busy.value = true;
    try {
      const session = await gateway.start(provider.value.trim(), prompt.value, readGiven(given.value));
      location.hash = sessionLink(session.id);
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    } finally {
      busy.value = false;
    }
  };
  const others = Object.entries(options.value).filter(([name]) => !FIRST.includes(name));
  return html`<main class="start">
    <h1>Start a session</h1>
    <form onSubmit=${start}>
      <label class="wide">Provider <input required value=${provider.value} list="providers"
        onInput=${(/** @type {any} */ event) => (provider.value = event.target.value)} />
        <span class="hint">The kind of agent: <code>demo</code> needs no model and asks for a real approval.</span>
          </label>
      <label class="wide">Prompt <textarea rows="5" required value=${prompt.value}
        onInput=${(/** @type {any} */ event) => (prompt.value = event.target.value)}></textarea></label>
      <${Field} name="cwd" label="Directory" value=${given.value.cwd} put=${put("cwd")} />
      <${Field} name="permissionMode" label="Permission mode" value=${given.value.permissionMode}
        put=${put("permissionMode")} list="permission-modes"
        also="With default the agent asks, and its requests come to the inbox. Empty: it asks nobody." />
      <${Field} name="model" label="Model" value=${given.value.model} put=${put("model")} />
      ${
        others.length > 0 &&
        html`<details><summary>All other options (${others.length})</summary>
        ${others.map(([name]) => html`<${Field} key=${name} name=${name} label=${name} value=${given.value[name]}
          put=${put(name)} />`)}</details>`
      }
      ${problem.value && html`<p class="problem" role="alert">${visible(problem.value)}</p>`}
      <button class="primary" disabled=${busy.value}>Start</button>
    </form>
    <datalist id="providers">${["demo", "claude", "codex", "gemini", "opencode"].map((name) => html`<option
      value=${name}></option>`)}</datalist>
  </main>`;
}

/**
 * `list` names a list of proposals, `also` is told beside the option's own description.
 * @param {{name: string, label: string, value?: string, put: (event: any) => void, list?: string, also?: string}} props
 */
function Field({ name, label, value, put, list, also }) {
  const schema = options.value[name];
  const about = isRecord(schema) ? schema.description : "";
  return html`<label class="wide">${label} <input value=${value ?? ""} list=${list} onInput=${put} />
    <span class="hint">${visible(about)} ${also ?? ""}</span></label>`;
}

/**
 * The options as the gateway takes them: what reads as JSON is taken as JSON where the option is no text.
 * @param {Record<string, string>} given
 */
function readGiven(given) {
  const made = Object.entries(given).filter(([, value]) => value.trim() !== "");
  return Object.fromEntries(made.map(([name, value]) => [name, isTextOption(name) ? value : fromJson(value)]));
}

/** @param {string} name */
function isTextOption(name) {
  if (FIRST.includes(name)) return true;
  const schema = options.value[name] ?? {};
  const types = [schema.type, ...(schema.anyOf ?? []).map((/** @type {any} */ one) => one.type)].filter(Boolean);
  return types.includes("string") && !types.some((type) => type !== "string" && type !== "null");
}

/** @param {string} value */
function fromJson(value) {
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}
