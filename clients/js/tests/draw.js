/** Reads lists of events, one a line of stdin, and prints the transcript of each as a line of JSON. */
import { createInterface } from "node:readline";
import { Transcript } from "../src/index.js";

for await (const line of createInterface({ input: process.stdin })) {
  const transcript = new Transcript();
  for (const event of JSON.parse(line)) transcript.apply(event);
  const { entries, cursor, status } = transcript;
  const open = [...transcript.open.values()].map(({ length, ...block }) => block);
  const waiting = [...transcript.waiting.keys()];
  console.log(JSON.stringify({ entries, open, waiting, cursor, status }));
}
