/** Draws what a tool call is about: a diff, a command, or its members. */
import { asText, entryOf, isRecord } from "./format.js";
import { changesOf } from "./diff.js";
import { html } from "./html.js";
import { visible, visibleText } from "./visible.js";
import { Clipped } from "./widgets.js";

/**
 * The command of a call, and the name of the member that holds it.
 * @param {any} input
 */
export function commandOf(input) {
  for (const name of isRecord(input) ? ["command", "cmd", "script"] : []) {
    const command = input[name];
    if (typeof command === "string") return { name, command };
    if (Array.isArray(command) && command.every((word) => typeof word === "string")) {
      return { name, command: command.map(quoted).join(" ") };
    }
  }
  return { name: "", command: "" };
}

/** @param {string} word */
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** @param {{change: import("./diff.js").FileChange, whole?: boolean}} props */
function Diff({ change, whole }) {
  /** @type {Record<string, string>} */
  const names = { "+": "added", "-": "removed", "@": "place", " ": "kept" };
  const text = change.lines.map(({ sign, text: line }) => sign + line).join("\n");
  const draw = (/** @type {string} */ shown) =>
    shown.split("\n").map((line) => {
      const name = entryOf(names, line[0]) ?? "kept";
      const spoken = name === "added" ? "added: " : name === "removed" ? "removed: " : "";
      return html`<span class="line ${name}"><span
        class="spoken">${spoken}</span>${visible(name === "place" ? line.slice(1) : line)}${"\n"}</span>`;
    });
  return html`<div class="diff">
    <div class="path">${visible(change.path)}</div>
    ${text && html`<${Clipped} text=${text} draw=${draw} whole=${whole} label="Diff" class="code" />`}
  </div>`;
}

/**
 * All of a call's input. With `whole` nothing of it has to be unfolded: a person decides on it.
 * @param {{input: any, whole?: boolean}} props
 */
export function CallInput({ input, whole }) {
  const { name: commandName, command } = commandOf(input);
  const { changes, names } = changesOf(input);
  const left = isRecord(input)
    ? Object.entries(input).filter(([name]) => (name !== commandName || !command) && !names.includes(name))
    : [];
  return html`
    ${command && html`<${Clipped} text=${command} draw=${(/** @type {string} */ text) => ["$ ", visible(text)]}
      whole=${whole} label="Command" class="terminal" />`}
    ${changes.map((change) => html`<${Diff} change=${change} whole=${whole} />`)}
    ${
      left.length > 0 &&
      html`<dl class="members">
      ${left.map(
        ([name, value]) => html`<dt>${visible(name)}</dt>
          <dd><${Clipped} text=${asText(value)} draw=${visible} whole=${whole}
            label=${`Value of ${visibleText(name)}`} /></dd>`,
      )}
    </dl>`
    }
    ${
      !isRecord(input) &&
      input !== undefined &&
      input !== null &&
      html`<${Clipped} text=${asText(input)} draw=${visible} whole=${whole} label="Input" class="code" />`
    }
  `;
}
