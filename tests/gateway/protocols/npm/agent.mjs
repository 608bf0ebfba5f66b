// An HttpAgent of AG-UI, driven by a scenario in argv; prints what the client made of it as JSON.
// {"url", "thread", "props", "headers", "steps": [[name, argument], …]}
import { HttpAgent } from "@ag-ui/client";
import { makeRecorder, startProxy, until } from "./proxy.mjs";

const scenario = JSON.parse(process.argv[2]);
const proxy = await startProxy(scenario.url);
const recorder = makeRecorder();
const errors = [];
// A cut connection is an error of the run, and of a promise of the client's that nobody can take.
process.on("unhandledRejection", () => {});
const outcomes = [];

// What a client does that comes back: the same agent, reading GET …/connect with the last id that it has.
class ConnectedAgent extends HttpAgent {
  lastId = undefined;
  requestInit(input) {
    if (!this.connecting) return super.requestInit(input);
    const headers = { ...this.headers, Accept: "text/event-stream" };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    return { method: "GET", headers, signal: this.abortController.signal };
  }
}

const agent = new ConnectedAgent({
  url: `${proxy.url}/agui`,
  threadId: scenario.thread,
  headers: scenario.headers,
  fetch: recorder.fetch,
});
agent.subscribe({
  onRunFinishedEvent: ({ event }) => void outcomes.push(event.outcome),
  onRunErrorEvent: ({ event }) => void errors.push(event.message),
});

const received = (kind) =>
  recorder.requests.flatMap((each) => each.frames).filter((frame) => frame.includes(`"type":"${kind}"`)).length;
const run = (parameters) => agent.runAgent({ forwardedProps: scenario.props, ...parameters });

const steps = {
  send: (text) => {
    agent.addMessage({ id: crypto.randomUUID(), role: "user", content: text });
    return run();
  },
  begin: async ([text, kind, count]) => {
    const before = received(kind);
    agent.addMessage({ id: crypto.randomUUID(), role: "user", content: text });
    steps.running = run().catch((error) => errors.push(String(error)));
    await until(() => received(kind) >= before + count, `${count} ${kind}`);
  },
  again: () => run(),
  cut: () => proxy.cut(),
  settle: () => steps.running,
  answer: (payload) =>
    run({ resume: agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, status: "resolved", payload })) }),
  cancel: () => run({ resume: agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, status: "cancelled" })) }),
  interrupt: async () => {
    const told = await fetch(`${proxy.url}/sessions/${scenario.thread}/interrupt`, {
      method: "POST",
      headers: scenario.headers,
    });
    if (told.status !== 202) throw new Error(`interrupt: ${told.status}`);
  },
  connect: async (fromLast) => {
    const ids = recorder.requests.flatMap((each) => each.frames).map((frame) => /^id: (.*)$/m.exec(frame)?.[1]);
    agent.lastId = fromLast ? ids.filter(Boolean).at(-1) : undefined;
    agent.connecting = true;
    agent.url = `${proxy.url}/agui/${scenario.thread}/connect`;
    agent.pendingInterrupts = [];
    await run();
    agent.connecting = false;
    agent.url = `${proxy.url}/agui`;
  },
  forget: () => agent.setMessages([]),
};

for (const [name, argument] of scenario.steps) await steps[name](argument);
proxy.close();
const { messages, pendingInterrupts } = agent;
console.log(JSON.stringify({ errors, outcomes, messages, pendingInterrupts, requests: recorder.requests }));
process.exit(0);
