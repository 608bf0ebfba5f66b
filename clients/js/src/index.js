/** The client of agentrq's HTTP gateway. What it offers stands here, and nothing else is public. */
export { AgentRQ } from "./client.js";
export { AgentRQError } from "./errors.js";
export { isAfter } from "./ids.js";
export { Session } from "./session.js";
export { Transcript } from "./transcript.js";
