/** The client against a gateway that cuts, delays, repeats and refuses: AGENTRQ_TEST_GATEWAY is its URL. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AgentRQ, AgentRQError, Transcript } from "../src/index.js";

const URL_ = process.env.AGENTRQ_TEST_GATEWAY;
const COUNT = 400;
const LONG = 12_000;
const gateway = (script, settings) => new AgentRQ(`${URL_}/${script}`, settings);
const asked = async (script) => (await fetch(`${URL_}/${script}/asked`)).json();

async function collect(events) {
  const found = [];
  for await (const event of events) found.push(event);
  return found;
}

function isWhole(events, from = 1, count = COUNT) {
  assert.equal(events.length, count - from + 1);
  events.forEach((event, place) => assert.equal(event.timestamp, 1_700_000_000_000 + from + place));
}

test("a session is read to its end, and the connection closed", async () => {
  isWhole(await collect(gateway("plain").session("a").events()));
  isWhole(await collect(gateway("plain").session("a").events({ after: "1-5" })), 6);
});

test("a stream that is cut anywhere, and repeats itself, loses and doubles nothing", async () => {
  for (let round = 0; round < 5; round++) {
    const client = gateway("cuts");
    const [a, b] = await Promise.all([
      collect(client.session("a").events()),
      collect(client.session("b").events({ after: "1-50" })),
    ]);
    isWhole(a);
    isWhole(b, 51);
    const texts = a.filter((event) => event.type === "text").map((event) => event.content.text);
    assert.ok(texts.every((text, place) => text.startsWith(`${place + 2} é 🦊 `)));
  }
});

test("all sessions of a client share one connection", async () => {
  const client = gateway("shared");
  const readers = ["a", "b", "c", "a"].map((id) => collect(client.session(id).events()));
  for (const events of await Promise.all(readers)) isWhole(events);
  const streams = (await asked("shared")).filter(({ path }) => path === "stream");
  assert.equal(streams.length, 1);
  assert.deepEqual(streams[0].body, { sessions: { a: null, b: null, c: null } });
});

test("a session that is added later joins the connection, and nothing is lost by it", async () => {
  const client = gateway("cuts");
  const first = client.session("a").events();
  const { value } = await first.next();
  const later = collect(client.session("b").events());
  isWhole([value, ...(await collect(first))]);
  isWhole(await later);
});

test("a slow reader is not buffered without end, and gets everything", async () => {
  const client = gateway("slow");
  const events = client.session("long").events();
  const found = [(await events.next()).value];
  await new Promise((resolve) => setTimeout(resolve, 300)); // all of it would have come meanwhile
  for await (const event of events) found.push(event);
  assert.equal(new Set(found.map(({ cursor }) => cursor)).size, LONG);
  isWhole(found, 1, LONG);
  const cursors = (await asked("slow")).map(({ body }) => body.sessions.long);
  assert.equal(cursors[0], null);
  assert.ok(cursors.length > 1, "what did not fit was asked for again");
});

test("a session that was removed ends its own reader only", async () => {
  const client = gateway("gone");
  const gone = collect(client.session("a").events());
  const other = collect(client.session("b").events());
  await assert.rejects(gone, (error) => error instanceof AgentRQError && error.code === "session_gone");
  isWhole(await other);
});

test("a reader behind what is kept hears it, and goes on from the oldest", async () => {
  const [reset, ...rest] = await collect(gateway("trimmed").session("a").events({ after: "1-5" }));
  assert.deepEqual(reset, { type: "reset", sessionId: "a", reason: "trimmed", oldest: "1-100" });
  isWhole(rest, 100);
});

test("pieces of texts come only to those who want them", async () => {
  const client = gateway("deltas");
  const [withPieces, without] = await Promise.all([
    collect(client.session("a").events({ deltas: true })),
    collect(client.session("a").events()),
  ]);
  isWhole(without);
  assert.equal(withPieces.length, COUNT + 4);
  const transcript = new Transcript();
  withPieces.slice(0, 4).forEach((event) => transcript.apply(event));
  assert.equal(transcript.open.get("b").text, "half written");
});

test("an expired token is renewed without losing anything; one that stays expired is an error", async () => {
  let token = "first";
  const renewed = gateway("expired", { headers: async () => ({ Authorization: `Bearer ${token}` }) });
  const events = collect(renewed.session("a").events());
  token = "second";
  isWhole(await events);
  const stale = gateway("expired", { headers: { Authorization: "Bearer first" } });
  await assert.rejects(collect(stale.session("a").events()), { code: "unauthorized", status: 401 });
});

test("a busy gateway is asked again", async () => {
  isWhole(await collect(gateway("busy").session("a").events()));
  assert.equal((await gateway("busy").start("demo", "hello")).id, "a");
});

test("a start whose answer is lost is repeated with the same key", async () => {
  await gateway("dropped").start("demo", "hello", { cwd: "/tmp" });
  const starts = await asked("dropped");
  assert.equal(starts.length, 3);
  assert.equal(new Set(starts.map(({ headers }) => headers["Idempotency-Key"])).size, 1);
  assert.deepEqual(starts[0].body, { provider: "demo", prompt: "hello", options: { cwd: "/tmp" } });
});

test("a command without a key is not repeated", async () => {
  await assert.rejects(gateway("dropped").session("a").stop(), { code: "unreachable", status: 0 });
  assert.equal((await asked("dropped")).filter(({ path }) => path.endsWith("/stop")).length, 1);
});

test("every command has its path and body", async () => {
  const session = gateway("commands").session("a");
  await session.prompt("go on", { mode: "steer", id: "key", wait: 3 });
  await session.answer("Read:0", { decision: "deny", message: "no" });
  await session.interrupt();
  await session.stop();
  await session.setModel("small");
  await session.setPermissionMode("plan");
  await session.state();
  await session.remove();
  const found = (await asked("commands")).map(({ method, path, body }) => [method, path, body]);
  assert.deepEqual(found, [
    ["POST", "sessions/a/prompts?wait=3", { text: "go on", mode: "steer" }],
    ["POST", "sessions/a/answers/Read%3A0", { decision: "deny", message: "no" }],
    ["POST", "sessions/a/interrupt", {}],
    ["POST", "sessions/a/stop", {}],
    ["POST", "sessions/a/model", { model: "small" }],
    ["POST", "sessions/a/permission-mode", { permissionMode: "plan" }],
    ["GET", "sessions/a", null],
    ["DELETE", "sessions/a", null],
  ]);
});

test("what the gateway refuses is an error with its code", async () => {
  await assert.rejects(gateway("plain").session("none").state(), {
    name: "AgentRQError",
    code: "session_not_found",
    status: 404,
    field: "id",
    message: "There is no session none",
  });
});

test("an abort ends an iterator, also while it waits", async () => {
  const abort = new AbortController();
  const statuses = gateway("plain").statuses({ signal: abort.signal });
  assert.equal((await statuses.next()).value.type, "ready");
  assert.equal((await statuses.next()).value.status, "idle");
  const waiting = collect(statuses);
  abort.abort();
  await waiting;
  assert.deepEqual(await collect(gateway("plain").session("a").events({ signal: abort.signal })), []);
});

test("a reader that leaves in the middle closes the connection", async () => {
  const client = gateway("left");
  for await (const event of client.session("a").events()) if (event.cursor === "1-3") break;
  assert.equal((await asked("left")).length, 1);
});
