/** The gateway's `{"error": {code, message, field?}}`. Where no answer came: code `unreachable`, status 0. */
export class AgentRQError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{status?: number, field?: string, retryAfterS?: number, cause?: unknown}} [about]
   */
  constructor(code, message, { status = 0, field, retryAfterS, cause } = {}) {
    super(message, { cause });
    this.name = "AgentRQError";
    this.code = code;
    this.status = status;
    this.field = field;
    this.retryAfterS = retryAfterS;
  }
}

/** @param {Response} response one that is not 2xx */
export async function errorOf(response) {
  const { code, message, field } = (await response.json().catch(() => null))?.error ?? {};
  const { status, headers } = response;
  const seconds = headers.get("Retry-After");
  const retryAfterS = seconds && /^\d+$/.test(seconds) ? Number(seconds) : undefined;
  return new AgentRQError(code ?? `http_${status}`, message ?? `HTTP ${status}`, { status, field, retryAfterS });
}
