/** From a conversation to a request, and from the stream to an answer. */

import { ApiError, ask, promptCost } from "./api.js";
import { newId } from "./dom.js";
import { dataUri } from "./pictures.js";
import { current, parameters } from "./settings.js";

/**
 * @typedef {import("./conversations.js").Answer} Answer
 * @typedef {import("./conversations.js").Conversation} Conversation
 * @typedef {import("./conversations.js").Draft} Draft
 * @typedef {import("./conversations.js").Message} Message
 * @typedef {import("./conversations.js").Question} Question
 */

/** Milliseconds between two notes of a growing answer, from which a reload takes it up. */
const NOTE_EVERY = 250;

/**
 * The body of a request for the next answer.
 *
 * @param {Message[]} messages that end with a question
 */
async function bodyOf(messages) {
  const { system, model } = current();
  const said = await Promise.all(spoken(messages).map(asSent));
  const first = system ? [{ role: "system", content: system }] : [];
  return { model, messages: [...first, ...said], ...parameters() };
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

/** @param {Message} message */
async function asSent(message) {
  if (message.role === "assistant") return { role: "assistant", content: message.text };
  const pictures = await Promise.all(message.pictures.map(dataUri));
  if (!pictures.length) return { role: "user", content: message.text };
  const parts = pictures.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: [...parts, ...(message.text ? [{ type: "text", text: message.text }] : [])] };
}

/**
 * What a conversation with this draft would take. Each picture of the draft gets its cost, or the reason why it has none.
 *
 * @param {Message[]} messages
 * @param {Draft} draft
 * @param {AbortSignal} signal
 * @returns {Promise<import("./api.js").PromptCost>}
 */
export async function costOf(messages, draft, signal) {
  /** @param {Draft} content @param {Message[]} before */
  const price = async ({ text, pictures }, before) =>
    promptCost(await bodyOf([...before, { id: "", role: "user", text, pictures }]), signal);
  try {
    const cost = await price(draft, messages);
    const own = draft.pictures.length ? cost.images.slice(-draft.pictures.length) : [];
    draft.pictures.forEach((picture, at) => Object.assign(picture, { cost: own[at], error: undefined }));
    return cost;
  } catch (error) {
    if (error instanceof ApiError && error.status === 400)
      for (const picture of draft.pictures)
        await price({ text: "", pictures: [picture] }, []).then(
          (alone) => Object.assign(picture, { cost: alone.images[0], error: undefined }),
          (reason) => reason instanceof ApiError && Object.assign(picture, { cost: undefined, error: reason.message }),
        );
    throw error;
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
   * @throws {ApiError | import("./api.js").ServerGone} after noting it in the answer
   */
  async run(conversation, answer) {
    const controller = new AbortController();
    this.controllers.set(conversation.id, controller);
    let noted = 0;
    try {
      const body = await bodyOf(conversation.messages.slice(0, conversation.messages.indexOf(answer)));
      for await (const piece of ask(body, controller.signal)) {
        take(answer, piece);
        if (Date.now() - noted > NOTE_EVERY) {
          noted = Date.now();
          noteGrowing(answer);
        }
        this.onChange(conversation, answer);
      }
      answer.state = "done";
    } catch (error) {
      answer.state = controller.signal.aborted ? "stopped" : "failed";
      if (controller.signal.aborted) return;
      answer.error = /** @type {Error} */ (error).message;
      throw error;
    } finally {
      if (this.controllers.get(conversation.id) === controller) this.controllers.delete(conversation.id);
      delete answer.progress;
      forgetGrowing(answer);
      this.onChange(conversation, answer);
    }
  }
}

/**
 * @param {Answer} answer
 * @param {import("./api.js").Piece} piece
 */
function take(answer, { text, progress, usage, timings, notices, finish }) {
  if (text) answer.text += text;
  answer.progress = answer.text ? undefined : (progress ?? answer.progress);
  if (usage) answer.usage = usage;
  if (timings) answer.timings = timings;
  if (notices) answer.notices = notices;
  if (finish) answer.finish = finish;
}

/**
 * Note what has come of an answer where it is written before the page goes; IndexedDB promises that not.
 *
 * @param {Answer} answer
 */
export function noteGrowing(answer) {
  try {
    localStorage.setItem(`growing:${answer.id}`, answer.text);
  } catch {
    // Full: a reload will show the answer as interrupted, without its text.
  }
}

/** @param {Answer} answer */
function forgetGrowing(answer) {
  localStorage.removeItem(`growing:${answer.id}`);
}

/**
 * Take up answers that were on their way when the page went.
 *
 * @param {Conversation} conversation as it was kept
 */
export function takeUp(conversation) {
  for (const message of conversation.messages)
    if (message.role === "assistant" && message.state === "running") {
      message.text = localStorage.getItem(`growing:${message.id}`) ?? message.text;
      message.state = "interrupted";
    }
}
