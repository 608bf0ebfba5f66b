// A TCP proxy in front of the gateway, which can cut all connections at once.
import net from "node:net";

export async function startProxy(target) {
  const { hostname, port } = new URL(target);
  const sockets = new Set();
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(port), hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => sockets.delete(socket));
    }
    client.pipe(upstream).pipe(client);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => sockets.forEach((socket) => socket.destroy()),
    close: () => {
      server.close();
      sockets.forEach((socket) => socket.destroy());
    },
  };
}

// fetch, as the clients use it, with what came back kept: one entry a request, with its frames as they arrive.
export function makeRecorder() {
  const requests = [];
  const record = async (url, init) => {
    const entry = { method: init?.method ?? "GET", path: new URL(url).pathname + new URL(url).search, frames: [] };
    requests.push(entry);
    const response = await fetch(url, init);
    entry.status = response.status;
    entry.headers = Object.fromEntries(
      [...response.headers].filter(([name]) => name.startsWith("x-") || name === "content-type"),
    );
    if (!response.body) return response;
    const decoder = new TextDecoder();
    let rest = "";
    const watch = new TransformStream({
      transform(bytes, controller) {
        const frames = (rest + decoder.decode(bytes, { stream: true })).split("\n\n");
        rest = frames.pop();
        entry.frames.push(...frames);
        controller.enqueue(bytes);
      },
    });
    return new Response(response.body.pipeThrough(watch), response);
  };
  return { requests, fetch: record };
}

export async function until(condition, what) {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
