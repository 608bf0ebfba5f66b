/** A request of an agent, and the ways to answer it: in the inbox and in a session alike. */
import { useState } from "preact/hooks";
import { CallInput } from "./changes.js";
import { asText, entryOf, isRecord } from "./format.js";
import { gateway, may, tell } from "./gateway.js";
import { html } from "./html.js";
import { visible, visibleText } from "./visible.js";
import { Time } from "./widgets.js";

/** How long the page waits for the receipt of an answer, in seconds. */
const WAIT_S = 5;

/**
 * Answers; tells what became of it.
 * @param {string} sessionId
 * @param {string} requestId
 * @param {unknown} answer
 * @returns {Promise<string>} empty where it was taken, else why not
 */
export async function answerRequest(sessionId, requestId, answer) {
  try {
    const sent = await gateway.session(sessionId).answer(requestId, answer, { wait: WAIT_S });
    return "outcome" in sent && sent.outcome !== "applied" ? (sent.reason ?? sent.outcome) : "";
  } catch (problem) {
    tell(problem);
    return problem instanceof Error ? problem.message : String(problem);
  }
}

/**
 * @typedef {{sessionId: string, requestId: string, type: string, content: any, resolved?: any}} Asked
 * @param {{asked: Asked, answered?: () => void, later?: () => void, keys?: boolean}} props
 */
export function RequestCard({ asked, answered, later, keys }) {
  const { sessionId, requestId, type, content, resolved } = asked;
  const [problem, setProblem] = useState("");
  const [sending, setSending] = useState(false);
  const [sent, setSent] = useState(false);
  const send = async (/** @type {unknown} */ answer) => {
    setSending(true);
    const refused = await answerRequest(sessionId, requestId, answer);
    setSending(false);
    setProblem(refused);
    setSent(!refused);
    if (!refused) answered?.();
  };
  if (resolved) return html`<${Resolution} resolved=${resolved} />`;
  const busy = sending || sent || !may("answer");
  return html`
    ${
      type === "question"
        ? html`<${QuestionForm} content=${content} send=${send} busy=${busy} />`
        : html`<${ApprovalForm} content=${content} send=${send} busy=${busy} later=${later} keys=${keys} />`
    }
    <p role="status" class=${problem ? "problem" : "hint"}>
      ${problem ? visible(problem) : sending ? "Sending…" : sent ? "Sent." : ""}
    </p>
  `;
}

/** @type {Record<string, string>} */
const WORDS = { allow: "Allowed", deny: "Denied", answer: "Answered", withdrawn: "Withdrawn" };

/** @param {{resolved: {decision: string, by: string, timestamp: number}}} props */
export function Resolution({ resolved: { decision, by, timestamp } }) {
  const known = entryOf(WORDS, decision);
  return html`<p class="resolution resolution-${known ? decision : "other"}">
    <strong>${visible(known ?? decision)}</strong> by ${visible(by)}, <${Time} time=${timestamp} />
  </p>`;
}

/** @param {{content: any, send: (answer: unknown) => void, busy: boolean, later?: () => void, keys?: boolean}} props */
function ApprovalForm({ content, send, busy, later, keys }) {
  const [editing, setEditing] = useState(false);
  const [input, setInput] = useState(() => JSON.stringify(content.input, null, 2) ?? "");
  const [message, setMessage] = useState("");
  const [wrong, setWrong] = useState("");
  const decide = (/** @type {string} */ decision, more = {}) => {
    let changed = {};
    if (editing && decision === "allow") {
      try {
        changed = { input: JSON.parse(input) };
      } catch (problem) {
        setWrong(`This is not JSON: ${problem instanceof Error ? problem.message : problem}`);
        return;
      }
    }
    send({ decision, ...changed, ...(message && decision === "deny" && { message }), ...more });
  };
  const key = (/** @type {string} */ letter) => keys && html` <kbd>${letter}</kbd>`;
  return html`
    ${
      editing
        ? html`<label class="wide">The input, as JSON
          <textarea class="code" rows="8" value=${input} spellcheck=${false}
            onInput=${(/** @type {any} */ event) => setInput(event.target.value)}></textarea></label>
        ${wrong && html`<p class="problem" role="alert">${visible(wrong)}</p>`}`
        : html`<${CallInput} input=${content.input} whole />`
    }
    <div class="actions">
      <button type="button" class="primary" data-key="a" disabled=${busy} onClick=${() => decide("allow")}>
        ${editing ? "Allow with this input" : "Allow"}${key("a")}</button>
      <button type="button" class="danger" data-key="d" disabled=${busy}
        onClick=${() => decide("deny")}>Deny${key("d")}</button>
      <button type="button" disabled=${busy} onClick=${() => decide("allow", { always: true })}>Always allow</button>
      <button type="button" disabled=${busy} data-key="m" aria-expanded=${editing}
        onClick=${() => setEditing(!editing)}>${editing ? "Leave it as it is" : "Change input"}${key("m")}</button>
      ${later && html`<button type="button" class="quiet" onClick=${later}>Not now</button>`}
    </div>
    <label class="wide reason">Reason, told to the agent with a denial
      <input type="text" value=${message} onInput=${(/** @type {any} */ event) => setMessage(event.target.value)} />
        </label>
  `;
}

/** @param {{content: any, send: (answer: unknown) => void, busy: boolean}} props */
function QuestionForm({ content, send, busy }) {
  /** @type {[Record<string, any>, (answers: Record<string, any>) => void]} */
  const [answers, setAnswers] = useState({});
  const questions = Array.isArray(content.questions) ? content.questions : [];
  const put = (/** @type {string} */ id, /** @type {unknown} */ value) => setAnswers({ ...answers, [id]: value });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    send({ answers });
  };
  return html`<form onSubmit=${submit}>
    ${questions.map((/** @type {any} */ asked, /** @type {number} */ place) => {
      const question = isRecord(asked) ? asked : { question: asText(asked) };
      const id = String(question.id ?? place);
      return html`<fieldset>
        <legend>${question.header && html`<strong>
          ${visible(question.header)}: </strong>`}${visible(question.question ?? "")}</legend>
        ${
          isRecord(question.requestedSchema)
            ? html`<${SchemaFields} schema=${question.requestedSchema} value=${answers[id] ?? {}}
              put=${(/** @type {any} */ value) => put(id, value)} />`
            : html`<${Options} question=${question} value=${answers[id]}
              put=${(/** @type {any} */ value) => put(id, value)} />`
        }
      </fieldset>`;
    })}
    <div class="actions">
      <button class="primary" disabled=${busy}>Answer</button>
      <button type="button" class="danger" data-key="d" disabled=${busy} onClick=${() => send("deny")}>Decline</button>
    </div>
  </form>`;
}

/** @param {{question: any, value: any, put: (value: unknown) => void}} props */
function Options({ question, value, put }) {
  const options = Array.isArray(question.options) ? question.options : [];
  const several = question.multiSelect === true;
  const name = `q-${Math.abs(hash(JSON.stringify(question)))}`;
  return html`
    ${options.map((/** @type {any} */ option) => {
      const label = isRecord(option) ? asText(option.label ?? option) : asText(option);
      const list = Array.isArray(value) ? value : [];
      const choose = () => {
        if (!several) put(label);
        else put(list.includes(label) ? list.filter((other) => other !== label) : [...list, label]);
      };
      const about = isRecord(option) && option.description;
      return html`<label class="option"><input type=${several ? "checkbox" : "radio"} name=${name}
        checked=${several ? list.includes(label) : value === label} onChange=${choose} />
        ${" "}${visible(label)}${about && html`<span class="hint"> ${visible(about)}</span>`}</label>`;
    })}
    <label class="wide">${options.length ? "Or in your own words" : "Your answer"}
      <input type="text" value=${typeof value === "string" && !options.length ? value : undefined}
        onInput=${(/** @type {any} */ event) => put(event.target.value)} /></label>
  `;
}

/** @param {{schema: any, value: any, put: (value: unknown) => void}} props */
function SchemaFields({ schema, value, put }) {
  const fields = isRecord(schema.properties) ? Object.entries(schema.properties) : [];
  return html`${fields.map(([name, given]) => {
    const field = isRecord(given) ? given : {};
    const set = (/** @type {any} */ made) => put({ ...value, [name]: made });
    const label = visible(field.title ?? name);
    const hint = field.description && html`<span class="hint"> ${visible(field.description)}</span>`;
    if (Array.isArray(field.enum)) {
      const change = (/** @type {any} */ event) => set(field.enum[event.target.selectedIndex - 1]);
      return html`<label class="wide">${label}${hint}<select onChange=${change}><option>–</option>
        ${field.enum.map((/** @type {any} */ one) => html`<option
          selected=${value[name] === one}>${visibleText(asText(one))}</option>`)}
      </select></label>`;
    }
    if (field.type === "boolean") {
      return html`<label class="option"><input type="checkbox" checked=${value[name] === true}
        onChange=${(/** @type {any} */ event) => set(event.target.checked)} /> ${label}${hint}</label>`;
    }
    const isNumber = field.type === "number" || field.type === "integer";
    const change = (/** @type {any} */ event) => set(isNumber ? Number(event.target.value) : event.target.value);
    return html`<label class="wide">${label}${hint}<input type=${isNumber ? "number" : "text"} onInput=${change} />
      </label>`;
  })}`;
}

/** @param {string} text */
const hash = (text) => [...text].reduce((sum, character) => (sum * 31 + (character.codePointAt(0) ?? 0)) | 0, 7);
