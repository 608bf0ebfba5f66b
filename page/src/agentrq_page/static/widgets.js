/** Small parts that several views use. */
import { Component } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { now } from "./clock.js";
import { clock, dateAndClock, duration, entryOf, relative } from "./format.js";
import { html } from "./html.js";
import { visible } from "./visible.js";

/**
 * A time: how long ago, and on pointing at it exactly.
 * @param {{time?: number, absolute?: boolean}} props `absolute`: the clock first
 */
export function Time({ time, absolute }) {
  if (!time) return html`<span>–</span>`;
  const exact = dateAndClock(time);
  const iso = Number.isFinite(time) && Math.abs(time) < 8e15 ? new Date(time).toISOString() : "";
  if (absolute) return html`<time datetime=${iso} title=${exact}>${clock(time)}</time>`;
  return html`<time datetime=${iso} title=${exact}>${relative(time, now.value)}</time>`;
}

/** @param {{since: number}} props */
export const Elapsed = ({ since }) => html`<span>${duration(Math.floor((now.value - since) / 1000) * 1000)}</span>`;

/** @type {Record<string, string>} */
const MARKS = {
  queued: "◌",
  starting: "◔",
  running: "●",
  idle: "○",
  waiting: "▲",
  recovering: "↻",
  done: "✓",
  error: "✗",
};

/** @param {{status?: string | null}} props */
export function Status({ status }) {
  const mark = entryOf(MARKS, status);
  const known = mark ? status : "other";
  return html`<span class="status status-${known}"><span
    aria-hidden="true">${mark ?? "·"}</span> ${visible(status ?? "–")}</span>`;
}

/**
 * A button that does its work at the second click within some seconds.
 * @param {{label: string, confirm: string, act: () => unknown, disabled?: boolean, danger?: boolean}} props
 */
export function TwoClicks({ label, confirm, act, disabled, danger = true }) {
  const [armed, setArmed] = useState(false);
  useEffect(() => {
    if (!armed) return undefined;
    const timer = setTimeout(() => setArmed(false), 4000);
    return () => clearTimeout(timer);
  }, [armed]);
  const click = () => {
    setArmed(!armed);
    if (armed) act();
  };
  return html`<button type="button" class=${danger ? "danger" : ""} aria-live="polite" data-armed=${armed}
    disabled=${disabled}
    onClick=${click}>${armed ? confirm : label}</button>`;
}

/** @param {{text: string}} props */
export function Copy({ text }) {
  const [done, setDone] = useState("Copy");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("Copied");
    } catch {
      setDone("Not allowed");
    }
    setTimeout(() => setDone("Copy"), 1500);
  };
  return html`<button type="button" class="quiet copy" onClick=${copy}>${done}</button>`;
}

const MOST_LINES = 24;
const MOST_CHARACTERS = 6000;

/**
 * A long text: its beginning, and all of it on demand.
 * @param {{text: string, draw: (text: string) => any, label?: string, class?: string, whole?: boolean}} props
 */
export function Clipped({ text, draw, label, class: name = "", whole = false }) {
  const [all, setAll] = useState(whole);
  let shown = text;
  if (!all) {
    const lines = text.split("\n", MOST_LINES + 1);
    if (lines.length > MOST_LINES) shown = lines.slice(0, MOST_LINES).join("\n");
    if (shown.length > MOST_CHARACTERS) shown = shown.slice(0, MOST_CHARACTERS);
  }
  const more = text.length - shown.length;
  return html`<div class="clipped">
    <pre class=${name} tabindex="0" aria-label=${label}>${draw(shown)}</pre>
    ${more > 0 && html`<button type="button" class="quiet"
      onClick=${() => setAll(true)}>Show all (${more} more characters)</button>`}
  </div>`;
}

/**
 * A list that a person leaves by Escape, as a dialog.
 * @param {{title: string, close: () => void, children: any}} props
 */
export function Dialog({ title, close, children }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => ref.current?.showModal(), []);
  return html`<dialog ref=${ref} aria-label=${title} onClose=${close}>
    <h2>${title}</h2>
    ${children}
    <form method="dialog"><button>Close</button></form>
  </dialog>`;
}

const MODES = ["default", "acceptEdits", "plan", "bypassPermissions"];

/** What fields for a permission mode propose (their `list`). */
export const PermissionModes = () =>
  html`<datalist id="permission-modes">${MODES.map((mode) => html`<option value=${mode}></option>`)}</datalist>`;

/** Shows what it holds, or, where that fails, that it cannot: an odd event must not take the page away. */
export class Boundary extends Component {
  constructor() {
    super();
    this.state = { failed: "" };
  }

  /** @param {unknown} problem */
  static getDerivedStateFromError(problem) {
    return { failed: String(problem) };
  }

  render() {
    const { failed } = /** @type {{failed: string}} */ (this.state);
    if (failed) return html`<p class="problem">This cannot be shown: ${visible(failed)}</p>`;
    return /** @type {any} */ (this.props).children;
  }
}
