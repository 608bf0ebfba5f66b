/** Draws one entry of a transcript. */
import { useState } from "preact/hooks";
import { ansi } from "./ansi.js";
import { CallInput, commandOf } from "./changes.js";
import { changesOf } from "./diff.js";
import { asText, compactNumber, dollars, duration, entryOf, essential, outputText, shortened } from "./format.js";
import { html } from "./html.js";
import { markdown } from "./markdown.js";
import { RequestCard } from "./request_card.js";
import { visible } from "./visible.js";
import { Boundary, Clipped, Copy, Elapsed, Status, Time } from "./widgets.js";

/** @typedef {import("./session_store.js").Entry} Entry */

/** Whether an entry is an error: what *Next error* jumps to. */
export const isBad = (/** @type {Entry} */ { kind, content, result }) =>
  kind === "error" || (kind === "tool" && result?.isError === true) || (kind === "cost" && content?.isError === true) ||
  (kind === "session" && content?.status === "error"); // prettier-ignore

/** @param {{entry: Entry, sessionId: string, live: boolean}} props `live`: the session has not ended */
export function EntryView({ entry, sessionId, live }) {
  const { kind, content, cursor, timestamp } = entry;
  const Part = entryOf(PARTS, kind);
  if (kind === "receipt" && content.outcome === "applied") return null;
  const name = Part ? kind : "other";
  return html`<article class="entry entry-${name} ${isBad(entry) ? "bad" : ""}" id=${`e-${cursor}`}
    data-cursor=${cursor}>
    <div class="when"><${Time} time=${timestamp} absolute=${true} /></div>
    <div class="what"><${Boundary}>
      <${Part ?? Other} entry=${entry} content=${content} sessionId=${sessionId} live=${live} /><//></div>
  </article>`;
}

/** @typedef {{entry: Entry, content: any, sessionId: string, live: boolean}} Props */

const Prompt = (/** @type {Props} */ { content }) =>
  html`<h2 class="who">Prompt</h2><div class="prompt" dir="auto">${visible(content.text)}</div>`;

const Text = (/** @type {Props} */ { content }) => {
  const text = asText(content.text);
  return html`<div class="markdown" dir="auto">${markdown(text)}</div><${Copy} text=${text} />`;
};

const Thinking = (/** @type {Props} */ { content }) => {
  const text = asText(content.text);
  return html`<details class="thinking">
    <summary>Thinking: ${visible(shortened(text.trim().split("\n")[0] ?? "", 100))}</summary>
    <div class="plain" dir="auto">${visible(text)}</div></details>`;
};

/** Edits and commands are what people look for; the rest is unfolded on demand. */
const isShownOpen = (/** @type {any} */ input) =>
  commandOf(input).command !== "" || changesOf(input).changes.length > 0;

/** @param {Props} props */
function Tool({ entry, content, sessionId, live }) {
  const { result, children = [], timestamp } = entry;
  const [open, setOpen] = useState(() => isShownOpen(content.input));
  const output = result === undefined ? "" : outputText(result.output);
  const state = result ? (result.isError ? "failed" : "done") : live ? "running" : "no result";
  const took = result ? duration(result.timestamp - timestamp) : live && html`<${Elapsed} since=${timestamp} />`;
  const toggle = (/** @type {any} */ event) => setOpen(event.currentTarget.open);
  return html`<details class="card" open=${open} onToggle=${toggle}>
      <summary>
        <span class="tool-state tool-${state.replace(" ", "-")}">${state}</span>
        <strong>${visible(content.name)}</strong>
        <span class="essential">${visible(essential(content.input))}</span>
        <span class="took">${took}</span>
      </summary>
      <${CallInput} input=${content.input} />
      ${
        result &&
        html`<div class="output">
        <${Clipped} text=${output || "(no output)"} draw=${ansi} label="Output" class="terminal" /><${Copy}
          text=${output} /></div>`
      }
    </details>
    ${
      children.length > 0 &&
      html`<details class="sub-agent" open>
        <summary>Sub-agent: ${children.length} ${children.length === 1 ? "entry" : "entries"}</summary>
      ${children.map((child) => html`<${EntryView} key=${child.cursor} entry=${child} sessionId=${sessionId}
        live=${live} />`)}
    </details>`
    }
    ${result?.isError && !open && html`<p class="problem">${visible(shortened(output, 300))}</p>`}`;
}

/** @param {Props} props */
function Request({ entry, content, sessionId, live }) {
  const isQuestion = Array.isArray(content.questions);
  const asked = {
    sessionId,
    requestId: content.requestId,
    type: isQuestion ? "question" : "approval_request",
    content,
    resolved: entry.resolved,
  };
  const isOpen = !entry.resolved && live;
  return html`<section class="card request ${isOpen ? "open" : ""}"
    aria-label=${isQuestion ? "Question" : "Approval request"}>
    <h2>${isQuestion ? "The agent asks" : html`May it use <strong>${visible(content.name)}</strong>?`}</h2>
    ${
      entry.resolved &&
      html`<details><summary>What was asked</summary>
      ${isQuestion ? html`<pre>${visible(asText(content.questions))}</pre>` : html`<${CallInput}
        input=${content.input} />`}</details>`
    }
    ${(isOpen || entry.resolved) && html`<${RequestCard} asked=${asked} />`}
  </section>`;
}

const Result = (/** @type {Props} */ { content }) =>
  html`<div class="card"><${Clipped} text=${outputText(content.output)} draw=${ansi} label="Output"
    class="terminal" /></div>`;

const Session = (/** @type {Props} */ { content }) =>
  html`<${Status} status=${content.status} /> ${content.reason && html`(${visible(content.reason)})`}
    ${" "}${visible(content.error)}`;

/** @param {Props} props */
function Cost({ content }) {
  const {
    totalCostUsd = 0,
    durationMs = 0,
    inputTokens = 0,
    outputTokens = 0,
    isError,
    errors = [],
    sessionTotal,
  } = content;
  const words = [
    isError ? "The turn failed" : "End of turn",
    dollars(Number(totalCostUsd)),
    duration(Number(durationMs)),
    `${compactNumber(Number(inputTokens))} in, ${compactNumber(Number(outputTokens))} out`,
  ];
  return html`<span class="figures">${words.join(" · ")}
    ${sessionTotal && sessionTotal.numTurns > 1 && html` · session ${dollars(Number(sessionTotal.costUsd))}`}</span>
    ${(Array.isArray(errors) ? errors : []).map((error) => html`<p class="problem">${visible(asText(error))}</p>`)}`;
}

const Failure = (/** @type {Props} */ { content }) =>
  html`<p class="problem">
    <strong>Error${content.code && html` ${visible(content.code)}`}:</strong> ${visible(content.message)}</p>
    ${content.excerpt && html`<pre class="code">${visible(content.excerpt)}</pre>`}`;

const Init = (/** @type {Props} */ { content }) =>
  html`Agent ready: ${visible(content.model ?? "model unknown")}${content.cwd && html` in <code>
    ${visible(content.cwd)}</code>`}`;

const Report = (/** @type {Props} */ { content }) => html`${visible(content.subtype)}: ${visible(content.message)}`;

const Compaction = (/** @type {Props} */ { content }) =>
  html`Context compacted (${visible(content.trigger)})
    ${content.preTokens && ` ${compactNumber(Number(content.preTokens))} tokens before`}`;

const RateLimit = (/** @type {Props} */ { content }) =>
  html`Rate limit: ${visible(content.message)} ${content.resetsAt && html`resets <${Time}
    time=${content.resetsAt} />`}`;

const Checkpoint = (/** @type {Props} */ { content: { turn, commit, files, leftOut } }) =>
  html`Checkpoint of turn ${visible(turn)}: ${visible(files)} files changed, commit
    <code> ${visible(shortened(asText(commit), 12))}</code>
    ${Array.isArray(leftOut) && ` ${leftOut.length} left out`}`;

const Restored = (/** @type {Props} */ { content: { turn, lost } }) =>
  html`Goes on with the files of turn ${visible(turn)}
    ${lost === true && "; what the cut turn had changed since is gone"}`;

const Receipt = (/** @type {Props} */ { content }) =>
  html`<p class="problem">
    ${visible(content.command)} was ${visible(content.outcome)}
    ${content.reason && html`: ${visible(content.reason)}`}</p>`;

const Resolved = (/** @type {Props} */ { content }) =>
  html`Request ${visible(content.requestId)}: ${visible(content.decision)} by ${visible(content.by)}`;

const Other = (/** @type {Props} */ { entry, content }) => html`<details><summary>${visible(entry.kind)}</summary>
  <${Clipped} text=${asText(content)} draw=${visible} label="Content" class="code" /></details>`;

/** @type {Record<string, (props: Props) => any>} */
const PARTS = {
  prompt: Prompt, text: Text, thinking: Thinking, tool: Tool, request: Request, tool_result: Result, session: Session,
  cost: Cost, error: Failure, init: Init, status: Report, compaction: Compaction, rate_limit: RateLimit,
  receipt: Receipt, approval_resolved: Resolved, checkpoint: Checkpoint, workspace_restored: Restored,
}; // prettier-ignore
