/** Markdown as vnodes: never markup from the text itself, no images, links only to the web. Pure, linear in time. */
import { html } from "./html.js";
import { visible, visibleText } from "./visible.js";

/** Longer texts are shown as they are. */
const LONGEST = 200_000;
const DEEPEST = 6;

/** @param {string} text */
export function markdown(text) {
  if (text.length > LONGEST) return html`<p class="plain">${visible(text)}</p>`;
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

/** Only lines up to this length can be more than a paragraph: a pattern must not take long on a hostile line. */
const LONGEST_MARK = 1000;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
const TABLE_RULE = /^ *\|?( *:?-+:? *\|)+( *:?-+:? *)?$/;

/**
 * @param {string[]} lines
 * @param {number} depth
 * @returns {any[]}
 */
function blocks(lines, depth) {
  const made = [];
  for (let at = 0; at < lines.length;) {
    const line = lines[at] ?? "";
    const isShort = line.length <= LONGEST_MARK;
    const fence = isShort && FENCE.exec(line);
    const heading = isShort && HEADING.exec(line);
    if (!line.trim()) at++;
    else if (fence) {
      const [, mark = "", language = ""] = fence;
      let end = at + 1;
      while (end < lines.length && !(lines[end] ?? "").trimStart().startsWith(mark)) end++;
      made.push(code(lines.slice(at + 1, end).join("\n"), language));
      at = end + 1;
    } else if (heading) {
      // No heading of the page: the order of an agent's levels is its own.
      const level = Math.min(3, heading[1]?.length ?? 1);
      made.push(html`<p class=${`heading heading-${level}`}>${inline(heading[2] ?? "")}</p>`);
      at++;
    } else if (isShort && RULE.test(line)) {
      made.push(html`<hr />`);
      at++;
    } else if (line.trimStart().startsWith(">") && depth < DEEPEST) {
      let end = at;
      while (end < lines.length && (lines[end] ?? "").trimStart().startsWith(">")) end++;
      const inner = lines.slice(at, end).map((one) => one.replace(/^\s*> ?/, ""));
      made.push(html`<blockquote>${blocks(inner, depth + 1)}</blockquote>`);
      at = end;
    } else if (ITEM.test(line) && depth < DEEPEST) {
      const end = endOfList(lines, at);
      made.push(list(lines.slice(at, end), depth));
      at = end;
    } else if (line.includes("|") && isTableRule(lines[at + 1] ?? "")) {
      let end = at + 2;
      while (end < lines.length && (lines[end] ?? "").includes("|")) end++;
      made.push(table(lines.slice(at, end)));
      at = end;
    } else {
      let end = at + 1;
      while (end < lines.length && !begins(lines[end] ?? "")) end++;
      made.push(html`<p>${lines.slice(at, end).flatMap((one, place) => [place ? "\n" : "", inline(one)])}</p>`);
      at = end;
    }
  }
  return made;
}

/** @param {string} line */
const isTableRule = (line) => line.length <= LONGEST_MARK && TABLE_RULE.test(line);

/** @param {string} line whether something other than a paragraph's next line begins */
const begins = (line) =>
  !line.trim() ||
  (line.length <= LONGEST_MARK && (FENCE.test(line) || HEADING.test(line))) ||
  ITEM.test(line) ||
  line.trimStart().startsWith(">");

/**
 * @param {string[]} lines
 * @param {number} start
 */
function endOfList(lines, start) {
  let end = start + 1;
  while (end < lines.length) {
    const line = lines[end] ?? "";
    const goesOn = ITEM.test(line) || /^\s{2,}\S/.test(line);
    if (!goesOn && !(line.trim() === "" && /^( {2,}\S|[-*+]\s|\d+[.)]\s)/.test(lines[end + 1] ?? ""))) break;
    end++;
  }
  return end;
}

/**
 * @param {string[]} lines
 * @param {number} depth
 */
function list(lines, depth) {
  const [, indent = "", mark = ""] = ITEM.exec(lines[0] ?? "") ?? [];
  /** @type {string[][]} */
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && (found[1] ?? "").length <= indent.length) items.push([found[3] ?? ""]);
    else items.at(-1)?.push(line.replace(/^ {1,4}/, ""));
  }
  const made = items.map((item) => {
    const body = blocks(item, depth + 1);
    return html`<li>${body.length === 1 && item.length === 1 ? inline(item[0] ?? "") : body}</li>`;
  });
  const start = Number.parseInt(mark, 10);
  return Number.isNaN(start) ? html`<ul>${made}</ul>` : html`<ol start=${start}>${made}</ol>`;
}

/** @param {string[]} lines */
function table(lines) {
  const cells = (/** @type {string} */ line) =>
    line
      .replace(/^\s*\||\|\s*$/g, "")
      .split("|")
      .map((cell) => inline(cell.trim()));
  const [head = "", , ...rows] = lines;
  return html`<div class="scrolls" tabindex="0" role="region" aria-label="Table"><table>
    <thead><tr>${cells(head).map((cell) => html`<th scope="col">${cell}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${cells(row).map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/**
 * @param {string} text
 * @param {string} [language]
 */
function code(text, language) {
  return html`<pre class="code" tabindex="0"
    aria-label=${language ? `${visibleText(language)} code` : "Code"}>${visible(text)}</pre>`;
}

const INLINE = /`+|\*{1,2}|~~|(?<!\w)_(?=\S)|!?\[|https?:\/\/[^\s<>"'`|]{1,2000}/g;

/**
 * @param {string} text one line
 * @param {number} [depth]
 * @returns {any[]}
 */
function inline(text, depth = 0) {
  if (depth > 4) return [visible(text)];
  const made = [];
  let start = 0;
  const marks = [...text.matchAll(INLINE)].slice(0, 500);
  for (const found of marks) {
    const at = found.index;
    if (at < start) continue;
    const mark = found[0];
    const rest = at + mark.length;
    let node;
    let end = rest;
    if (mark.startsWith("http")) {
      const url = mark.replace(/[.,;:!?)\]}]+$/, "");
      node = link(url, visible(url));
      end = at + url.length;
    } else if (mark.endsWith("[")) {
      const close = text.indexOf("](", rest);
      const last = close < 0 ? -1 : text.indexOf(")", close);
      if (close < 0 || last < 0 || close - rest > 1000) continue;
      const url =
        text
          .slice(close + 2, last)
          .trim()
          .split(/\s/)[0] ?? "";
      const label = inline(text.slice(rest, close), depth + 1);
      node = link(url, mark.startsWith("!") ? ["image: ", label] : label);
      end = last + 1;
    } else {
      const close = text.indexOf(mark, rest);
      if (close <= rest) continue;
      const inner = text.slice(rest, close);
      if (mark.startsWith("`")) node = html`<code>${visible(inner)}</code>`;
      else if (mark === "**") node = html`<strong>${inline(inner, depth + 1)}</strong>`;
      else if (mark === "~~") node = html`<del>${inline(inner, depth + 1)}</del>`;
      else node = html`<em>${inline(inner, depth + 1)}</em>`;
      end = close + mark.length;
    }
    made.push(visible(text.slice(start, at)), node);
    start = end;
  }
  return [...made, visible(text.slice(start))];
}

/**
 * A link to the web, or the words alone. Where the words are another address, the true one stands beside them.
 * @param {string} url
 * @param {any} label
 */
function link(url, label) {
  let target;
  try {
    target = new URL(url);
  } catch {
    return html`<span>${label} (${visible(url)})</span>`;
  }
  if (!["http:", "https:", "mailto:"].includes(target.protocol)) return html`<span>${label} (${visible(url)})</span>`;
  const shown = label === url ? "" : html`<span class="target"> (${visible(target.host || target.pathname)})</span>`;
  const rel = "noopener noreferrer nofollow";
  return html`<a href=${target.href} target="_blank" rel=${rel} title=${visibleText(target.href)}>${label}</a>${shown}`;
}
