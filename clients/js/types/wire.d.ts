/** The shapes of the wire, and of what the client takes. What each member means: docs/reference/events.md. */

export type Status = "queued" | "starting" | "running" | "idle" | "waiting" | "recovering" | "done" | "error";
export type Outcome = "applied" | "rejected" | "expired";

/**
 * A message (`content`), a status (`status`), a receipt (`outcome`), or `{type: "reset"}`. Only live pieces of texts and
 * resets have no cursor. Times are milliseconds since the epoch.
 */
export interface Event {
  sessionId: string;
  type?: string;
  cursor?: string;
  timestamp?: number;
  id?: string;
  parentId?: string;
  content?: any;
  status?: Status;
  error?: string;
  reason?: string;
  commandId?: string;
  command?: string;
  outcome?: Outcome;
  /** Of a reset: the oldest cursor that is kept. */
  oldest?: string;
}

export interface Receipt {
  sessionId: string;
  commandId: string;
  command: string;
  cursor: string;
  timestamp: number;
  outcome: Outcome;
  reason?: string;
}

/** A session's state: docs/reference/state.md. */
export interface State {
  sessionId: string;
  provider: string;
  status: Status;
  cursor: string;
  error?: string;
  reason?: string;
  worker?: string;
  model?: string;
  cwd?: string;
  costUsd?: number;
  inputTokens?: number;
  outputTokens?: number;
  numTurns?: number;
  createdAt?: number;
  startedAt?: number;
  endedAt?: number;
  updatedAt?: number;
  pendingApprovals?: number;
  metadata?: Record<string, string>;
  workerLost?: boolean;
  lastTurn?: string;
  [member: string]: any;
}

/** A request or question that waits for an answer. */
export interface Approval {
  sessionId: string;
  requestId: string;
  cwd?: string;
  askedAt?: number;
  deadline?: number;
  [member: string]: any;
}

/**
 * One thing of a transcript. `kind` is the message's type, except: `tool` is a `tool_call` with its `tool_result`,
 * `request` an `approval_request` or `question` with its `approval_resolved`, `session` a status of the session,
 * `receipt` a receipt. `children` of a tool is what its sub-agent said.
 */
export interface Entry {
  kind: string;
  cursor: string;
  timestamp: number;
  parentId?: string;
  content: any;
  result?: { output: any; isError: boolean; timestamp: number };
  resolved?: { decision: string; by: string; timestamp: number };
  children?: Entry[];
}

/** A text that is being written. `length` is in characters (code points), as offsets on the wire are. */
export interface OpenBlock {
  kind: "text" | "thinking";
  blockId: string;
  parentId?: string;
  text: string;
  length: number;
}

export interface Settings {
  /** As a function it is asked anew for each request, so that a token can be renewed. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  fetch?: typeof fetch;
  /** What the connection by which sessions are followed does. */
  onConnection?: (state: "connecting" | "open" | "waiting" | "closed", waitMs?: number) => void;
}

/** A request of the gateway's API. One with an idempotency key is repeated when the network fails. */
export interface Request {
  body?: unknown;
  query?: Record<string, string | number | undefined>;
  signal?: AbortSignal;
  idempotencyKey?: string;
}

export interface Following {
  after?: string | null;
  deltas?: boolean;
  signal?: AbortSignal;
}

/** `wait`: seconds to wait for the receipt, which is then what comes. */
export interface Sending {
  wait?: number;
  signal?: AbortSignal;
}

export interface Starting {
  sessionId?: string;
  idempotencyKey?: string;
  signal?: AbortSignal;
}

export interface Prompting extends Sending {
  mode?: "queue" | "steer" | "interrupt";
  /** The command's id. */
  id?: string;
}

export interface SessionPage {
  sessions: State[];
  next?: string;
}

export interface EventPage {
  events: Event[];
  cursor: string;
  ended: boolean;
}

export type Sent = { commandId: string } | Receipt;

/** One frame of a server-sent stream; `id` is "" where it has none. */
export interface Frame {
  event: string;
  data: string;
  id: string;
  retry?: number;
}

/** What a connection calls. `done`: with the error that ends it, or without one after an answer 204. */
export interface Handle {
  frame: (frame: Frame) => void;
  done: (error?: Error) => void;
  state?: Settings["onConnection"];
}
