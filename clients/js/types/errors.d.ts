/** The gateway's `{"error": {code, message, field?}}`. Where no answer came: code `unreachable`, status 0. */
export declare class AgentRQError extends Error {
    code: string;
    status: number;
    field: string | undefined;
    retryAfterS: number | undefined;
    /**
     * @param {string} code
     * @param {string} message
     * @param {{status?: number, field?: string, retryAfterS?: number, cause?: unknown}} [about]
     */
    constructor(code: string, message: string, { status, field, retryAfterS, cause }?: {
        status?: number;
        field?: string;
        retryAfterS?: number;
        cause?: unknown;
    });
}
/** @param {Response} response one that is not 2xx */
export declare function errorOf(response: Response): Promise<AgentRQError>;
