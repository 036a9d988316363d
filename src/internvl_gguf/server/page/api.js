/** The server's public API: models, what a prompt costs, and answers as a stream. */

import { apiKey } from "./settings.js";

/**
 * @typedef {{id: string, status: string, context_length: number | null}} Model
 * @typedef {{width: number, height: number, grid: [number, number], thumbnail: boolean, tiles: number, tokens: number}} PictureCost
 * @typedef {{input_tokens: number, context_length: number | null, images: PictureCost[]}} PromptCost
 * @typedef {{phase: "queued" | "loading" | "encoding" | "reading" | "answering", done: number, total: number}} Progress
 * @typedef {{prompt_tokens: number, completion_tokens: number, prompt_tokens_details?: {cached_tokens?: number},
 *   tiles?: number, tiles_encoded?: number}} Usage
 * @typedef {{time_to_first_token?: number, decode_tokens_per_second?: number}} Timings
 * @typedef {{text?: string, thought?: string, progress?: Progress, usage?: Usage, timings?: Timings, notices?: string[], finish?: string}} Piece
 */

/** What the server said went wrong: `message` is its two sentences. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status of HTTP; 200 where the answer had begun
   * @param {string | null} [code]
   */
  constructor(message, status, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** No server answered, or the connection ended in the middle. */
export class ServerGone extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
  }
}

/** @returns {Promise<Model[]>} */
export async function models() {
  return (await (await send("/v1/models")).json()).data;
}

/** Whether a server answers at this address, whatever it says. */
export async function isThere() {
  return fetch("/health", { cache: "no-store" }).then(
    () => true,
    () => false,
  );
}

/**
 * What a prompt and each of its pictures takes of the context.
 *
 * @param {object} body as of a question
 * @param {AbortSignal} signal
 * @returns {Promise<PromptCost>}
 */
export async function promptCost(body, signal) {
  return (await send("/v1/chat/completions/input_tokens", body, signal)).json();
}

/**
 * Ask, and yield what comes: pieces of text, progress, and at the end usage, timings and notices.
 *
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 * @throws {ApiError | ServerGone} also after the answer began
 */
export async function* ask(body, signal) {
  const options = { stream: true, stream_options: { include_usage: true }, return_progress: true };
  const response = await send("/v1/chat/completions", { ...body, ...options }, signal);
  for await (const data of serverSentEvents(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, 200, chunk.error.code);
    yield pieceOf(chunk);
  }
  throw new ServerGone("The connection ended before the answer did. Ask again.");
}

/**
 * @param {any} chunk
 * @returns {Piece}
 */
function pieceOf(chunk) {
  const choice = chunk.choices?.[0];
  const { progress, usage, timings, notices } = chunk;
  const { content: text, reasoning_content: thought } = choice?.delta ?? {};
  return { text, thought, finish: choice?.finish_reason, progress, usage, timings, notices };
}

/**
 * @param {string} path
 * @param {object} [body]
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>} of status 200
 * @throws {ApiError | ServerGone}
 */
async function send(path, body, signal) {
  const key = apiKey();
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { "Content-Type": "application/json" }) };
  const method = body ? "POST" : "GET";
  const request = { method, headers, signal, cache: /** @type {const} */ ("no-store"), body: body && JSON.stringify(body) };
  const response = await fetch(path, request).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new ServerGone("The server does not answer. Start it again with `internvl serve`.");
  });
  if (response.ok) return response;
  const said = await response.json().then((answer) => answer.error, () => null);
  throw new ApiError(said?.message ?? `The server answered ${response.status}. Try again.`, response.status, said?.code);
}

/**
 * The data of each event of a stream.
 *
 * @param {Response} response
 * @returns {AsyncGenerator<string>}
 */
async function* serverSentEvents(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        if (error.name === "AbortError") throw error;
        throw new ServerGone("The connection ended before the answer did. Ask again.");
      });
      rest += done ? "" : decoder.decode(value, { stream: true });
      const lines = rest.split(/\r?\n/);
      rest = /** @type {string} */ (lines.pop());
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
