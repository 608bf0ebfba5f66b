/** What sessions have cost: by day, provider, model, tenant. It says where the figures are from. */
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { compactNumber, dollars } from "./format.js";
import { gateway, tell } from "./gateway.js";
import { html } from "./html.js";
import { visible } from "./visible.js";

/** Sessions that are read at most, the newest first. */
const MOST = 5000;
const PAGE = 500;
const DAY_MS = 86_400_000;

/** @typedef {{cost: number, input: number, output: number, turns: number, sessions: number}} Sum */

/** @param {any} state */
function byDay(state) {
  return new Date(state.createdAt ?? 0).toLocaleDateString("en-CA"); // YYYY-MM-DD
}

/** @type {Record<string, (state: any) => string>} */
const GROUPS = {
  day: byDay,
  provider: (state) => state.provider ?? "–",
  model: (state) => state.model ?? "–",
  tenant: (state) => state.tenant ?? state.metadata?.tenant ?? "–",
};

/** @type {import("@preact/signals").Signal<any[] | null>} */
const states = signal(null);
const isWhole = signal(true);

async function readStates() {
  /** @type {any[]} */
  const found = [];
  let before;
  try {
    do {
      const page = await gateway.sessions({ limit: PAGE, before });
      found.push(...page.sessions);
      before = page.next;
      states.value = [...found];
    } while (before && found.length < MOST);
    isWhole.value = !before;
  } catch (problem) {
    states.value ??= [];
    tell(problem);
  }
}

export function CostsView() {
  const group = useSignal("day");
  useEffect(() => void readStates(), []);
  const list = states.value ?? [];
  const sums = summed(list, GROUPS[group.value] ?? byDay);
  const many = list.length;
  const newest = isWhole.value ? "" : ` (the newest ${many})`;
  const total = list.reduce((sum, state) => sum + Number(state.costUsd ?? 0), 0);
  return html`<main>
    <h1>Costs</h1>
    <p role="status">${states.value === null ? "Reading…" : html`<b>${dollars(total)}</b> of ${many} sessions`}</p>
    <p class="hint">Summed from the sessions that are kept${newest}: those that have expired or were
      removed are not in it. A session counts on the day of its start.</p>
    <${DayChart} sums=${summed(list, byDay)} />
    <fieldset class="chips"><legend>By</legend>
      ${Object.keys(GROUPS).map(
        (name) => html`<button type="button" class="chip" aria-pressed=${group.value === name}
        onClick=${() => (group.value = name)}>${name}</button>`,
      )}
    </fieldset>
    <div class="scrolls" tabindex="0" role="region" aria-label="Costs"><table>
      <thead><tr><th scope="col">${group.value}</th><th scope="col" class="number">Cost</th><th scope="col"
        class="number">Sessions</th>
        <th scope="col" class="number">Turns</th><th scope="col" class="number">Tokens in</th><th scope="col"
          class="number">Tokens out</th></tr></thead>
      <tbody>${sums.map(
        ([
          name,
          sum,
        ]) => html`<tr key=${name}><th scope="row">${visible(name)}</th><td class="number">${dollars(sum.cost)}</td>
        <td class="number">${sum.sessions}</td><td class="number">${sum.turns}</td><td
          class="number">${compactNumber(sum.input)}</td>
        <td class="number">${compactNumber(sum.output)}</td></tr>`,
      )}</tbody>
    </table></div>
  </main>`;
}

/**
 * @param {any[]} list
 * @param {(state: any) => string} nameOf
 * @returns {[string, Sum][]} days by time, others by cost
 */
function summed(list, nameOf) {
  /** @type {Map<string, Sum>} */
  const sums = new Map();
  for (const state of list) {
    const name = String(nameOf(state));
    const sum = sums.get(name) ?? { cost: 0, input: 0, output: 0, turns: 0, sessions: 0 };
    sum.cost += Number(state.costUsd ?? 0);
    sum.input += Number(state.inputTokens ?? 0);
    sum.output += Number(state.outputTokens ?? 0);
    sum.turns += Number(state.numTurns ?? 0);
    sum.sessions += 1;
    sums.set(name, sum);
  }
  const isDays = nameOf === byDay;
  return [...sums].sort(([a, x], [b, y]) => (isDays ? b.localeCompare(a) : y.cost - x.cost));
}

/** @param {string} url relative to the page */
function loadStyle(url) {
  if (document.querySelector(`link[href="${url}"]`)) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: url }));
}

/** @param {{sums: [string, Sum][]}} props */
function DayChart({ sums }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const data = sums.map(([day, sum]) => /** @type {const} */ ([Date.parse(`${day}T00:00`) / 1000, sum.cost])).reverse();
  const key = JSON.stringify(data);
  useEffect(() => {
    /** @type {any} */
    let chart;
    let isGone = false;
    const draw = async () => {
      loadStyle("page/vendor/uplot.css");
      const { default: UPlot } = await import("uplot");
      if (isGone || !place.current || !data.length) return;
      const style = getComputedStyle(place.current);
      const ink = style.getPropertyValue("--ink-2");
      const axis = { stroke: ink, grid: { stroke: style.getPropertyValue("--line") }, ticks: { show: false } };
      const first = data[0]?.[0] ?? 0;
      const last = data.at(-1)?.[0] ?? 0;
      chart = new UPlot(
        {
          width: place.current.clientWidth,
          height: 180,
          cursor: { show: false },
          legend: { show: false },
          scales: {
            x: { range: [first - DAY_MS / 1000, last + DAY_MS / 1000] },
            y: {
              range: (/** @type {any} */ _, /** @type {any} */ __, /** @type {number} */ most) => [
                0,
                (most || 1) * 1.1,
              ],
            },
          },
          axes: [
            { ...axis },
            {
              ...axis,
              size: 70,
              values: (/** @type {any} */ _, /** @type {number[]} */ values) => values.map(dollars),
            },
          ],
          series: [
            {},
            {
              fill: style.getPropertyValue("--accent"),
              stroke: style.getPropertyValue("--accent"),
              paths: UPlot.paths.bars?.({ size: [0.6, 60] }),
              points: { show: false },
            },
          ],
        },
        [data.map(([day]) => day), data.map(([, cost]) => cost)],
        place.current,
      );
    };
    draw().catch(tell);
    return () => {
      isGone = true;
      chart?.destroy();
    };
  }, [key]);
  const words = sums.slice(0, 14).map(([day, sum]) => `${day}: ${dollars(sum.cost)}`);
  return html`<div class="chart" role="img" aria-label=${`Cost by day. ${words.join(", ")}`} ref=${place}></div>`;
}
