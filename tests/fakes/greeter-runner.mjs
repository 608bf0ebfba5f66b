// A runner written for the runner protocol and nothing else: greets in the format of Claude Code's stream-json.
import { createInterface } from "node:readline";

const send = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const event = (found) => send({ type: "agent_event", event: found });
const text = (words) => ({ type: "assistant", message: { content: [{ type: "text", text: words }] } });
let options;
let turns = 0;

send({ type: "ready" });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.type === "ping") {
    send({ type: "pong" });
  } else if (command.type === "stop") {
    send({ type: "agent_stopped" });
    process.exit(0);
  } else if (command.type === "query") {
    options ??= command;
    turns += 1;
    send({ type: "agent_started" });
    send({ type: "agent_log", message: `turn ${turns}` });
    event({ type: "system", subtype: "init", session_id: "js-1", model: options.model, cwd: process.cwd() });
    event(text(`Hello ${command.prompt} 👋 (${options.systemPrompt}, turn ${turns})`));
    process.stdout.write("not JSON\n");
    event({ type: "result", subtype: "success", is_error: false, num_turns: 1, total_cost_usd: turns * 0.5, usage: {} });
  }
}
