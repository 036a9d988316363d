/** From a conversation to a request, and from the stream to an answer. */

import { ApiError, ask, promptCost } from "./api.js";
import { note, takeNote } from "./conversations.js";
import { newId } from "./dom.js";
import { dataUri } from "./pictures.js";
import { current, parameters } from "./settings.js";

/**
 * @typedef {import("./conversations.js").Answer} Answer
 * @typedef {import("./conversations.js").Conversation} Conversation
 * @typedef {import("./conversations.js").Draft} Draft
 * @typedef {import("./conversations.js").Message} Message
 * @typedef {import("./conversations.js").Question} Question
 * @typedef {import("./pictures.js").Picture} Picture
 */

/** Milliseconds between two notes of a growing answer, from which a reload takes it up. */
const NOTE_EVERY = 250;

/** Statuses and codes of errors that the same question would meet again. */
const FINAL_STATUSES = [400, 413];
const FINAL_CODES = ["invalid_image", "context_length_exceeded"];

/** The temperature of another answer where the user set none: the same question at 0 has the same answer. */
export const VARIED_TEMPERATURE = 0.8;

/**
 * The body of a request for the next answer.
 *
 * @param {Message[]} messages that end with a question
 */
async function bodyOf(messages) {
  const { system, model } = current();
  const said = await Promise.all(spoken(messages).map(asSent));
  const first = system ? [{ role: "system", content: system }] : [];
  return { ...(model && { model }), messages: [...first, ...said], ...parameters() };
}

/**
 * The messages that the model is shown: a question without an answer is left out, unless it is the last one.
 *
 * @param {Message[]} messages
 */
function spoken(messages) {
  return messages.filter((message, at) => {
    const answer = message.role === "user" ? messages[at + 1] : message;
    return !answer || answer.text !== "";
  });
}

/**
 * Whether the question at a place was left without an answer, so that later questions are asked without it.
 *
 * @param {Message[]} messages
 * @param {number} at
 */
export function isLeftOut(messages, at) {
  const answer = messages[at + 1];
  return messages[at].role === "user" && answer?.role === "assistant" && answer.state !== "running" && !answer.text;
}

/**
 * An error of the server with the names of the pictures that it numbers.
 *
 * @param {unknown} error
 * @param {Message[]} messages that were sent
 */
function withNames(error, messages) {
  if (!(error instanceof ApiError)) return error;
  const pictures = spoken(messages).flatMap((message) => (message.role === "user" ? message.pictures : []));
  const named = error.message.replace(/\bpicture (\d+)\b/g, (whole, at) => pictures[at - 1]?.name ?? whole);
  return new ApiError(named, error.status, error.code);
}

/** @param {Message} message */
async function asSent(message) {
  if (message.role === "assistant")
    return { role: "assistant", content: message.text, ...(message.thought && { reasoning_content: message.thought }) };
  const pictures = await Promise.all(message.pictures.map(dataUri));
  if (!pictures.length) return { role: "user", content: message.text };
  const parts = pictures.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: [...parts, ...(message.text ? [{ type: "text", text: message.text }] : [])] };
}

/**
 * @param {Message[]} messages
 * @param {AbortSignal} signal
 * @returns {Promise<import("./api.js").PromptCost>}
 */
async function priceOf(messages, signal) {
  try {
    return await promptCost(await bodyOf(messages), signal);
  } catch (error) {
    throw withNames(error, messages);
  }
}

/**
 * What a conversation takes as it stands; of an answer that is on its way, what it was asked with.
 *
 * @param {Message[]} messages
 * @param {number | null} contextLength
 * @param {AbortSignal} signal
 * @returns {Promise<import("./api.js").PromptCost | null>} null where nothing was said
 */
export async function costSoFar(messages, contextLength, signal) {
  const isGrowing = messages.some((message) => message.role === "assistant" && message.state === "running");
  const said = isGrowing ? messages.slice(0, -1) : spoken(messages);
  const last = said.at(-1);
  if (!last) return null;
  if (last.role === "user" || !last.usage) return priceOf(said, signal);
  const { prompt_tokens, completion_tokens } = last.usage;
  return { input_tokens: prompt_tokens + completion_tokens, context_length: contextLength, images: [] };
}

/**
 * What a conversation with this draft would take. Each picture of the draft gets its cost, or the reason why it has none;
 * those that cannot be read are not counted.
 *
 * @param {Message[]} messages
 * @param {Draft} draft
 * @param {AbortSignal} signal
 * @returns {Promise<import("./api.js").PromptCost | null>} null where only such pictures are in the draft
 */
export async function costOf(messages, draft, signal) {
  // An answer that has not begun will stand between its question and the draft.
  const before = messages.map((message) =>
    message.role === "assistant" && message.state === "running" ? { ...message, text: message.text || "…" } : message,
  );
  /** @param {Picture[]} pictures */
  const price = async (pictures) => {
    const cost = await priceOf([...before, { id: "", role: "user", text: draft.text, pictures }], signal);
    const own = pictures.length ? cost.images.slice(-pictures.length) : [];
    pictures.forEach((picture, at) => Object.assign(picture, { cost: own[at], error: undefined }));
    return cost;
  };
  const { pictures } = draft;
  try {
    return await price(pictures);
  } catch (error) {
    if (!(error instanceof ApiError && error.code === "invalid_image")) throw error;
    for (const picture of pictures) await tryAlone(picture, signal);
    const read = pictures.filter((picture) => !picture.error);
    if (read.length === pictures.length) throw error;
    return read.length || draft.text.trim() ? price(read) : null;
  }
}

/**
 * Note at a picture that it cannot be read, if so.
 *
 * @param {Picture} picture
 * @param {AbortSignal} signal
 */
async function tryAlone(picture, signal) {
  try {
    await priceOf([{ id: "", role: "user", text: "", pictures: [picture] }], signal);
    picture.error = undefined;
  } catch (error) {
    if (!(error instanceof ApiError && error.code === "invalid_image")) throw error;
    Object.assign(picture, { cost: undefined, error: error.message });
  }
}

/** An answer of which nothing has come. @returns {Answer} */
export function newAnswer() {
  return { id: newId(), role: "assistant", text: "", state: "running", model: current().model, notices: [] };
}

/** Answers that are on their way, at most one a conversation. */
export class Runs {
  /** @param {(conversation: Conversation, answer: Answer) => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    /** @type {Map<string, AbortController>} */
    this.controllers = new Map();
  }

  /** @param {string} conversation its id */
  isRunning(conversation) {
    return this.controllers.has(conversation);
  }

  /** @param {string} conversation its id */
  stop(conversation) {
    this.controllers.get(conversation)?.abort();
  }

  /**
   * Ask the last question of a conversation, filling the answer that follows it.
   *
   * @param {Conversation} conversation that ends with the answer
   * @param {Answer} answer
   * @param {boolean} [varied] whether another answer than the last is wanted
   * @throws {ApiError | import("./api.js").ServerGone} after noting it in the answer
   */
  async run(conversation, answer, varied = false) {
    const controller = new AbortController();
    this.controllers.set(conversation.id, controller);
    const messages = conversation.messages.slice(0, conversation.messages.indexOf(answer));
    let noted = 0;
    try {
      const body = { ...(varied && { temperature: VARIED_TEMPERATURE }), ...(await bodyOf(messages)) };
      for await (const piece of ask(body, controller.signal)) {
        take(answer, piece);
        if (Date.now() - noted > NOTE_EVERY) {
          noted = Date.now();
          note(`growing:${answer.id}`, answer.text);
        }
        this.onChange(conversation, answer);
      }
      answer.state = "done";
    } catch (error) {
      answer.state = controller.signal.aborted ? "stopped" : "failed";
      if (controller.signal.aborted) return;
      const named = withNames(error, messages);
      answer.error = /** @type {Error} */ (named).message;
      answer.isFinal = named instanceof ApiError && (FINAL_STATUSES.includes(named.status) || FINAL_CODES.includes(named.code ?? ""));
      throw named;
    } finally {
      if (this.controllers.get(conversation.id) === controller) this.controllers.delete(conversation.id);
      delete answer.progress;
      takeNote(`growing:${answer.id}`);
      this.onChange(conversation, answer);
    }
  }
}

/**
 * @param {Answer} answer
 * @param {import("./api.js").Piece} piece
 */
function take(answer, { text, thought, progress, usage, timings, notices, finish }) {
  if (text) answer.text += text;
  if (thought) answer.thought = (answer.thought ?? "") + thought;
  answer.progress = answer.text ? undefined : (progress ?? answer.progress);
  if (usage) answer.usage = usage;
  if (timings) answer.timings = timings;
  if (notices) answer.notices = notices;
  if (finish) answer.finish = finish;
}

/**
 * Take up answers that were on their way when the page went.
 *
 * @param {Conversation} conversation as it was kept
 * @returns {boolean} whether there was one
 */
export function takeUp(conversation) {
  let found = false;
  for (const message of conversation.messages)
    if (message.role === "assistant" && message.state === "running") {
      found = true;
      message.text = takeNote(`growing:${message.id}`) ?? message.text;
      message.state = "interrupted";
    }
  return found;
}
