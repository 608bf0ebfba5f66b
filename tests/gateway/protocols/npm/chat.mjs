// A chat of Vercel AI SDK, driven by a scenario in argv; prints what the client made of it as JSON.
// {"url", "ai": "ai" | "ai6", "transport": "default" | "workflow", "chat", "body", "headers", "steps": [[name, argument], …]}
import { makeRecorder, startProxy, until } from "./proxy.mjs";

const scenario = JSON.parse(process.argv[2]);
const ai = await import(scenario.ai);
const proxy = await startProxy(scenario.url);
const recorder = makeRecorder();
const errors = [];

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => void (this.messages = [...this.messages, structuredClone(message)]);
  popMessage = () => void (this.messages = this.messages.slice(0, -1));
  replaceMessage = (place, message) =>
    void (this.messages = this.messages.with(place, structuredClone(message)));
  snapshot = (value) => structuredClone(value);
}

class Chat extends ai.AbstractChat {
  constructor(init) {
    super({ ...init, state: new State() });
  }
}

async function makeTransport() {
  const api = `${proxy.url}/ui/${scenario.chat}`;
  if (scenario.transport === "default") {
    return new ai.DefaultChatTransport({
      api: `${proxy.url}/ui`,
      body: scenario.body,
      headers: scenario.headers,
      fetch: recorder.fetch,
    });
  }
  const { WorkflowChatTransport } = await import("@ai-sdk/workflow/client");
  return new WorkflowChatTransport({
    api,
    fetch: recorder.fetch,
    maxConsecutiveErrors: 5,
    ...(scenario.headers && {
      prepareReconnectToStreamRequest: () => ({ headers: scenario.headers }),
      prepareSendMessagesRequest: ({ messages, body }) => ({
        body: { messages, ...body },
        headers: { "content-type": "application/json", ...scenario.headers },
      }),
    }),
  });
}

function makeChat(transport) {
  return new Chat({
    id: scenario.chat,
    transport,
    onError: (error) => errors.push(String(error)),
    sendAutomaticallyWhen: (chat) =>
      ai.lastAssistantMessageIsCompleteWithApprovalResponses(chat) ||
      ai.lastAssistantMessageIsCompleteWithToolCalls(chat),
  });
}

const transport = await makeTransport();
let chat = makeChat(transport);
const parts = (state) =>
  chat.messages.flatMap((message) => message.parts).filter((part) => part.state === state);
const received = (kind) =>
  recorder.requests.flatMap((each) => each.frames).filter((frame) => frame.includes(`"type":"${kind}"`)).length;
const options = scenario.transport === "workflow" ? { body: scenario.body } : undefined;

const steps = {
  send: (text) => chat.sendMessage({ text }, options),
  // Sends without waiting, until so many chunks of a kind have come.
  begin: async ([text, kind, count]) => {
    const before = received(kind);
    steps.running = chat.sendMessage({ text }, options);
    await until(() => received(kind) >= before + count, `${count} ${kind}`);
  },
  cut: () => proxy.cut(),
  settle: () => steps.running,
  answer: async ({ approved, reason }) => {
    const before = recorder.requests.length;
    for (const part of parts("approval-requested")) {
      await chat.addToolApprovalResponse({ id: part.approval.id, approved, reason });
    }
    await until(() => recorder.requests.length > before && chat.status === "ready", "the answer's response");
  },
  question: async (output) => {
    const before = recorder.requests.length;
    const part = parts("input-available").find((each) => each.toolName === "question");
    await chat.addToolOutput({ tool: "question", toolCallId: part.toolCallId, output });
    await until(() => recorder.requests.length > before && chat.status === "ready", "the question's response");
  },
  stop: async () => {
    const told = await fetch(`${proxy.url}/ui/${scenario.chat}/stop`, { method: "POST", headers: scenario.headers });
    if (told.status !== 202) throw new Error(`stop: ${told.status}`);
  },
  resume: () => chat.resumeStream(),
  reload: () => {
    const { messages } = chat;
    chat = makeChat(transport);
    chat.messages = messages.filter((message) => message.role === "user");
  },
};

for (const [name, argument] of scenario.steps) await steps[name](argument);
proxy.close();
console.log(JSON.stringify({ status: chat.status, errors, messages: chat.messages, requests: recorder.requests }));
process.exit(0);
