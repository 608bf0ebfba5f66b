// The same worker on Bun: spawn, string buffer, JSON.parse, the built-in Redis client, XADD + PUBLISH per message.
// bun worker.mjs MODE URL SESSIONS ARGV…; each line on stdin is a prompt for every runner.
// MODE "free": nothing is awaited (the client pipelines by itself); "bounded": at most 1000 messages are on their way.
const [mode, url, sessions, ...argv] = process.argv.slice(2);
const redis = new Bun.RedisClient(url);
const MOST = mode === "free" ? Infinity : 1000;
const runners = [];

async function session(name) {
  const runner = Bun.spawn(argv, { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
  runners.push(runner);
  const stream = `plain:${name}:events`, channel = `plain:${name}:messages`;
  const decoder = new TextDecoder();
  let buffer = "", seq = 0, block = "", offset = 0, under = 0, last = null;

  function publish(type, content, parentId) {
    const message = { cursor: `1-${++seq}`, sessionId: name, id: `1-${seq}`, type, timestamp: Date.now(), content };
    if (parentId) message.parentId = parentId;
    const json = JSON.stringify(message);
    redis.send("XADD", [stream, "MAXLEN", "~", "100000", "*", "message", json]);
    last = redis.publish(channel, json);
    under++;
  }

  function line(text) {
    const event = JSON.parse(text);
    const parent = event.parent_tool_use_id;
    if (event.type === "stream_event") {
      const { delta, index } = event.event;
      if (delta?.type !== "text_delta") return;
      const id = `${event.api_message_id}:${index}`;
      if (id !== block) [block, offset] = [id, 0];
      publish("text_delta", { text: delta.text, blockId: id, offset }, parent);
      offset += delta.text.length;
    } else if (event.type === "assistant" || event.type === "user") {
      for (const part of event.message.content) {
        if (part.type === "text") publish("text", { text: part.text }, parent);
        else if (part.type === "tool_use")
          publish("tool_call", { toolUseId: part.id, name: part.name, input: part.input }, parent);
        else if (part.type === "tool_result")
          publish("tool_result", { toolUseId: part.tool_use_id, output: part.content, isError: !!part.is_error }, parent);
      }
    } else if (event.type === "result") {
      publish("cost", { totalCostUsd: event.total_cost_usd, isError: event.is_error });
    } else if (event.type === "system") {
      publish("init", { model: event.model, cwd: event.cwd });
    }
  }

  for await (const chunk of runner.stdout) {
    buffer += decoder.decode(chunk, { stream: true });
    let start = 0, end;
    while ((end = buffer.indexOf("\n", start)) >= 0) {
      line(buffer.slice(start, end));
      start = end + 1;
    }
    buffer = buffer.slice(start);
    if (under > MOST) {
      await last;  // replies come in order
      under = 0;
    }
  }
}

for (let number = 0; number < Number(sessions); number++) session(`s${number}`);
for await (const prompt of console) {
  for (const runner of runners) {
    runner.stdin.write(`{"type":"query","prompt":"${prompt}"}\n`);
    runner.stdin.flush();
  }
}
for (const runner of runners) runner.stdin.end();
