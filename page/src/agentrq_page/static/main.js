/** The page: which view is shown, and what stands around it. */
import { effect, signal, useSignal } from "@preact/signals";
import { render } from "preact";
import { entryOf } from "./format.js";
import { connection, identify, login, may, me, loginNeeded, notice, tell, useTicket } from "./gateway.js";
import { html } from "./html.js";
import { count, notifyOfNew, watchInbox } from "./inbox_store.js";
import { route } from "./router.js";
import { readFeed } from "./status_feed.js";
import { visible, visibleText } from "./visible.js";
import { Dialog, PermissionModes } from "./widgets.js";

/**
 * The views, in the order of the menu; each is loaded when it is first looked at.
 * @type {Record<string, {words: string, load: () => Promise<(props: any) => any>, isInMenu?: boolean}>}
 */
const VIEWS = {
  sessions: { words: "Sessions", load: async () => (await import("./sessions_view.js")).SessionsView },
  inbox: { words: "Inbox", load: async () => (await import("./inbox_view.js")).InboxView },
  start: { words: "Start", load: async () => (await import("./start_view.js")).StartView },
  workers: { words: "Workers", load: async () => (await import("./workers_view.js")).WorkersView },
  costs: { words: "Costs", load: async () => (await import("./costs_view.js")).CostsView },
  session: { words: "", load: async () => (await import("./session_view.js")).SessionView, isInMenu: false },
};
const MENU = Object.entries(VIEWS).filter(([, { isInMenu = true }]) => isInMenu);

/** @type {import("@preact/signals").Signal<Record<string, (props: any) => any>>} those that have been loaded */
const loaded = signal({});

/** Loads the view that the address names; an unknown one is the first. */
effect(() => {
  const name = Object.hasOwn(VIEWS, route.value.view) ? route.value.view : "sessions";
  if (loaded.peek()[name]) return;
  VIEWS[name]?.load().then((view) => (loaded.value = { ...loaded.value, [name]: view }), tell);
});

const KEYS = [
  ["?", "this list"],
  ["/", "search the sessions"],
  ["1 … 5", "the views, in their order"],
  ["a d m", "in the inbox: allow, deny, change the input"],
  ["j k", "in the inbox: next, previous"],
  ["Ctrl+Enter", "sends a prompt"],
];

function Page() {
  const helps = useSignal(false);
  const { view, id } = route.value;
  const View = entryOf(loaded.value, Object.hasOwn(VIEWS, view) ? view : "sessions");
  onShortcut = (key) => {
    if (key === "?") helps.value = true;
    else if (key === "/") {
      location.hash = "#/sessions";
      requestAnimationFrame(() => document.getElementById("search")?.focus());
    } else if (key >= "1" && key <= "5") location.hash = `#/${MENU[Number(key) - 1]?.[0]}`;
    else return false;
    return true;
  };
  return html`
    <a class="skip" href="#content" onClick=${skip}>To the content</a>
    <header class="top">
      <strong class="brand">agentrq</strong>
      <nav aria-label="Views">
        ${MENU.filter(([name]) => name !== "start" || may("start")).map(([name, { words }]) => {
          const isHere = name === view || (name === "sessions" && view === "session");
          return html`<a href=${`#/${name}`} aria-current=${isHere ? "page" : undefined}>${words}${
            name === "inbox" &&
            count.value > 0 &&
            html` <span class="badge" aria-label=${`${count.value} waiting`}>${count.value}</span>`
          }</a>`;
        })}
      </nav>
      ${me.value?.subject && html`<span class="hint">${visible(me.value.subject)}</span>`}
      <${Connection} />
      <button type="button" class="quiet" aria-label="Keys" onClick=${() => (helps.value = true)}>?</button>
    </header>
    <div id="content" tabindex="-1">
      ${loginNeeded.value && html`<${Login} />`}
      ${View && html`<${View} key=${`${view} ${id}`} id=${id} />`}
    </div>
    ${
      notice.value &&
      html`<p class="notice" role="alert">${visible(notice.value)}
      <button type="button" class="quiet" onClick=${() => (notice.value = "")}>Close</button></p>`
    }
    ${
      helps.value &&
      html`<${Dialog} title="Keys" close=${() => (helps.value = false)}>
      <dl class="members">${KEYS.map(([key, words]) => html`<dt><kbd>${key}</kbd></dt><dd>${words}</dd>`)}</dl><//>`
    }
    <${PermissionModes} />
  `;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function Connection() {
  const { state } = connection.value;
  const words =
    state === "waiting" ? "Reconnecting…" : state === "connecting" ? "Connecting…" : state === "open" ? "Live" : "";
  return html`<span class="connection connection-${state}" role="status">${words}</span>`;
}

function Login() {
  const token = useSignal("");
  const problem = useSignal("");
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await login(token.value.trim());
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    }
  };
  return html`<form class="card login" onSubmit=${submit}>
    <h2>Who are you?</h2>
    <p>This gateway serves those it knows. Open the address that <code>agentrq up</code> prints, or paste a token.</p>
    <label class="wide">Token <input type="password" autocomplete="off" required value=${token.value}
      onInput=${(/** @type {any} */ event) => (token.value = event.target.value)} /></label>
    ${problem.value && html`<p class="problem" role="alert">${visible(problem.value)}</p>`}
    <button class="primary">Log in</button>
  </form>`;
}

/** @type {(key: string) => boolean} set by the page as it is drawn */
let onShortcut = () => false;
addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
  if (onShortcut(event.key)) event.preventDefault();
});

effect(() => {
  const { view, id } = route.value;
  const words = view === "session" ? id : (entryOf(VIEWS, view)?.words ?? "Sessions");
  document.title = `${count.value ? `(${count.value}) ` : ""}${visibleText(words)} · agentrq`;
});

await useTicket();
await identify();
render(html`<${Page} />`, /** @type {HTMLElement} */ (document.getElementById("page")));
watchInbox();
notifyOfNew();
readFeed();
