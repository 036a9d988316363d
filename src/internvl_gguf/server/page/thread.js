/** The conversation on the page: questions, growing answers, and what can be done with them. */

import { isLeftOut, VARIED_TEMPERATURE } from "./asking.js";
import { boxesList, boxesOverlay, readBoxes } from "./boxes.js";
import { copyText, counted, el, iconButton, number } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { costLine, gridLine, pictureView } from "./pictures.js";
import { current } from "./settings.js";

/**
 * @typedef {import("./conversations.js").Answer} Answer
 * @typedef {import("./conversations.js").Message} Message
 * @typedef {import("./conversations.js").Question} Question
 * @typedef {import("./pictures.js").Picture} Picture
 * @typedef {{again: (answer: Answer, varied: boolean) => void, view: (picture: Picture, boxes?: import("./boxes.js").Box[]) => void,
 *   edit: (question: Question, text: string, pictures: Picture[]) => void}} Actions
 */

/** All messages of one conversation. */
export class Thread {
  /**
   * @param {HTMLElement} place
   * @param {Actions} actions
   */
  constructor(place, actions) {
    this.place = place;
    this.actions = actions;
    /** @type {Map<string, QuestionView | AnswerView>} */
    this.views = new Map();
  }

  /**
   * Show these messages; those that are shown already keep their elements.
   *
   * @param {Message[]} messages
   * @param {Node} [empty] shown where there are none
   */
  show(messages, empty) {
    const kept = new Map(messages.map((message) => [message.id, this.views.get(message.id)]));
    /** @type {Picture | undefined} */
    let picture;
    this.views = new Map();
    for (const [at, message] of messages.entries()) {
      if (message.role === "user") picture = message.pictures.at(-1) ?? picture;
      const view = kept.get(message.id) ?? this.#viewOf(message, picture);
      if (view instanceof QuestionView) view.update(message, isLeftOut(messages, at));
      else view.update(message, message === messages.at(-1));
      this.views.set(message.id, view);
    }
    const elements = Array.from(this.views.values(), (view) => view.element);
    for (const child of [...this.place.children]) if (!elements.includes(/** @type {any} */ (child))) child.remove();
    this.place.append(...elements.filter((element) => !element.isConnected));
    if (!messages.length && empty) this.place.append(empty);
  }

  /** Show what changed in one message. @param {Message} message */
  update(message) {
    this.views.get(message.id)?.update(message);
  }

  /** What an answer reads as, without its marks. @param {Answer} answer */
  textOf({ id }) {
    const view = this.views.get(id);
    return view instanceof AnswerView ? (view.body.textContent ?? "") : "";
  }

  /** Begin to edit a question. @param {Question} question */
  edit(question) {
    const view = this.views.get(question.id);
    if (view instanceof QuestionView) view.edit();
  }

  /** @param {Message} message @param {Picture | undefined} picture the last one before it */
  #viewOf(message, picture) {
    return message.role === "user"
      ? new QuestionView(message, this.actions)
      : new AnswerView(message, picture, this.actions);
  }
}

class QuestionView {
  /** @param {Question} question @param {Actions} actions */
  constructor(question, actions) {
    this.question = question;
    this.actions = actions;
    this.element = el("article", { class: "question", "aria-label": "Question" });
    this.leftOut = el("p", { class: "aside", hidden: true }, "Not sent with later questions: not part of the conversation.");
    this.#show();
  }

  /** @param {Message} message @param {boolean} [isLeftOut] of what later questions are asked with */
  update(message, isLeftOut) {
    this.question = /** @type {Question} */ (message);
    if (isLeftOut === undefined) return;
    this.leftOut.hidden = !isLeftOut;
    this.element.classList.toggle("left-out", isLeftOut);
    this.element.setAttribute("aria-label", isLeftOut ? "Question, not part of the conversation" : "Question");
  }

  #show() {
    const { text, pictures } = this.question;
    const copy = iconButton("copy", "Copy the question", () => copyText(text, copy));
    const edit = iconButton("edit", "Edit the question", () => this.edit());
    this.element.replaceChildren(
      this.#pictures(pictures, (picture) => this.actions.view(picture)),
      ...(text ? [el("p", { class: "said" }, text)] : []),
      this.leftOut,
      el("div", { class: "actions" }, copy, edit),
    );
  }

  /** Put a form in place of the question. */
  edit() {
    let pictures = this.question.pictures;
    const area = el("textarea", { "aria-label": "The question", rows: Math.min(10, this.question.text.split("\n").length + 1) });
    area.value = this.question.text;
    const leave = () => {
      this.#show();
      /** @type {HTMLElement} */ (this.element.querySelector("[aria-label^=Edit]")).focus();
    };
    const submit = () => {
      if (!area.value.trim() && !pictures.length) return;
      this.actions.edit(this.question, area.value.trim(), pictures);
    };
    area.onkeydown = (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        submit();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      }
    };
    const shown = el("div");
    const show = () =>
      shown.replaceChildren(
        this.#pictures(pictures, (picture) => {
          pictures = pictures.filter((other) => other !== picture);
          show();
        }, "Remove"),
      );
    show();
    const cancel = el("button", { type: "button", class: "button", onclick: leave }, "Cancel");
    const ask = el("button", { type: "button", class: "button primary", onclick: submit }, "Ask");
    const hint = el("span", { class: "note" }, "What follows is replaced.");
    const row = el("div", { class: "dialog-row" }, hint, el("span", { class: "spacer" }), cancel, ask);
    this.element.replaceChildren(el("div", { class: "editor" }, shown, area, row));
    area.focus();
  }

  /** @param {Picture[]} pictures @param {(picture: Picture) => void} act @param {string} [verb] */
  #pictures(pictures, act, verb = "View") {
    const items = pictures.map((picture) => {
      const title = picture.cost ? `${gridLine(picture.cost)}: ${costLine(picture.cost)}` : picture.name;
      const label = `${verb} ${picture.name}`;
      return el("button", { type: "button", class: "look", "aria-label": label, title, onclick: () => act(picture) }, pictureView(picture),
        verb !== "View" && el("span", { class: "verb" }, verb));
    });
    return el("div", { class: "shown-pictures" }, ...items);
  }
}

class AnswerView {
  /** @param {Answer} answer @param {Picture | undefined} picture @param {Actions} actions */
  constructor(answer, picture, actions) {
    this.answer = answer;
    this.picture = picture;
    this.actions = actions;
    this.isLast = true;
    this.boxes = 0;
    this.frame = 0;
    this.body = el("div", { class: "markdown" });
    this.markdown = new MarkdownView(this.body);
    this.thought = el("div", { class: "thought-text" });
    this.folded = el("details", { class: "thought", hidden: true }, el("summary", {}, "Thought"), this.thought);
    this.progress = el("div", { class: "progress" });
    this.figure = el("figure", { class: "found", hidden: true });
    this.foot = el("div");
    this.again = iconButton("again", "Answer again", () => actions.again(this.answer, this.isWhole));
    this.copy = iconButton("copy", "Copy the answer", () => copyText(this.answer.text, this.copy));
    this.actionRow = el("div", { class: "actions" }, this.copy, this.again);
    // Until it is shown, no answer is taken for a whole one.
    this.element = el("article", { class: "answer running", "aria-busy": "true", "aria-label": "Answer" });
    this.element.append(this.folded, this.progress, this.body, this.figure, this.foot, this.actionRow);
  }

  /** Whether another answer is wanted by who asks again, not the same one whole. */
  get isWhole() {
    return this.answer.state === "done";
  }

  /** @param {Message} message @param {boolean} [isLast] */
  update(message, isLast) {
    this.answer = /** @type {Answer} */ (message);
    this.isLast = isLast ?? this.isLast;
    // Many pieces between two frames are shown once. A hidden page has no frames, so the end does not wait for one.
    if (this.answer.state !== "running") this.#show();
    else this.frame ||= requestAnimationFrame(() => this.#show());
  }

  #show() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { text, state } = this.answer;
    const running = state === "running";
    this.element.setAttribute("aria-busy", String(running));
    this.element.classList.toggle("running", running);
    this.copy.hidden = !text;
    // Where the answer failed, its line has the button.
    this.again.title = againLine(this.isWhole);
    this.again.setAttribute("aria-label", this.again.title);
    this.again.hidden = !this.isLast || state === "failed" || state === "interrupted";
    this.actionRow.hidden = running || (this.copy.hidden && this.again.hidden);
    this.#showProgress();
    this.#showThought();
    const read = this.picture ? readBoxes(text) : { text, boxes: [] };
    this.markdown.update(read.text);
    this.#showBoxes(read.boxes);
    this.foot.replaceChildren(...(running ? [] : this.#footLines()));
  }

  #showProgress() {
    const { state, text, progress, thought } = this.answer;
    this.progress.hidden = state !== "running" || text !== "";
    if (this.progress.hidden) return;
    const measured = progress && !thought && progress.phase !== "queued" && progress.total > 0;
    const bar = el("progress", measured ? { max: progress.total, value: progress.done, "aria-hidden": "true" } : { "aria-hidden": "true" });
    this.progress.replaceChildren(el("span", {}, thought ? "Thinking" : progressLine(progress)), bar);
  }

  #showThought() {
    const thought = this.answer.thought?.trim() ?? "";
    this.folded.hidden = !thought;
    if (this.thought.textContent !== thought) this.thought.textContent = thought;
  }

  /** @param {import("./boxes.js").Box[]} boxes */
  #showBoxes(boxes) {
    if (!this.picture || boxes.length === this.boxes) return;
    const picture = this.picture;
    this.boxes = boxes.length;
    this.figure.hidden = !boxes.length;
    const view = pictureView(picture, boxesOverlay(boxes));
    const label = `View ${picture.name} with its boxes`;
    const look = el("button", { type: "button", class: "look", "aria-label": label, onclick: () => this.actions.view(picture, boxes) }, view);
    this.figure.replaceChildren(look, boxesList(boxes));
  }

  #footLines() {
    const { state, error, notices, finish, text } = this.answer;
    const lines = notices.map((line) => el("p", { class: "notice" }, line));
    if (finish === "length") lines.push(el("p", { class: "notice" }, "The answer ends here because it reached its limit of tokens."));
    if (state === "stopped") lines.push(el("p", { class: "notice" }, text ? "Stopped." : "Stopped before it began."));
    if (state === "interrupted") lines.push(this.#trouble("The page was closed before the answer was complete.", "Ask again", ""));
    if (state === "failed") lines.push(this.#trouble(error ?? "", "Try again", "error"));
    const stats = statsOf(this.answer);
    // Each part stays on one line, with the dot after it.
    const parts = stats.map((part, at) => el("span", {}, at < stats.length - 1 ? `${part} ·\u00a0` : part));
    if (parts.length) lines.push(el("p", { class: "stats" }, ...parts));
    return lines;
  }

  /** @param {string} line @param {string} verb @param {string} kind */
  #trouble(line, verb, kind) {
    const onclick = () => this.actions.again(this.answer, false);
    const button = this.isLast && !this.answer.isFinal && el("button", { type: "button", class: "button", onclick }, verb);
    return el("div", { class: `trouble ${kind}` }, el("p", {}, line), button);
  }
}

/** What asking again does. @param {boolean} varied */
function againLine(varied) {
  return varied && !current().temperature ? `Answer again, at temperature ${VARIED_TEMPERATURE}` : "Answer again";
}

/** @param {import("./api.js").Progress | undefined} progress */
function progressLine(progress) {
  if (!progress) return "Asking";
  const { phase, done, total } = progress;
  if (phase === "queued") return done > 0 ? `Waiting: ${counted(done, "question")} before this one` : "Waiting: this question is next";
  if (phase === "loading") return "Loading the model";
  if (phase === "encoding") return `Looking: ${number(done)} of ${counted(total, "tile")}`;
  if (phase === "answering") return `Answering: ${number(done)} of ${counted(total, "answer")}`;
  return `Reading: ${number(done)} of ${counted(total, "token")}`;
}

/**
 * What an answer took; nothing where the server did not say.
 *
 * @param {Answer} answer
 * @returns {string[]}
 */
function statsOf({ usage, timings }) {
  if (!usage) return [];
  const parts = [counted(usage.completion_tokens, "token")];
  if (timings?.time_to_first_token) parts.push(`${seconds(timings.time_to_first_token)} to first token`);
  const speed = timings?.decode_tokens_per_second;
  if (speed) parts.push(`${speed < 100 ? speed.toFixed(1) : number(Math.round(speed))} tokens a second`);
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  parts.push(`prompt ${number(usage.prompt_tokens)}${cached ? ` (${number(cached)} cached)` : ""}`);
  if (usage.tiles) parts.push(tilesLine(usage.tiles, usage.tiles_encoded));
  return parts;
}

/** @param {number} tiles of all pictures @param {number | undefined} encoded those that the server did not know yet */
function tilesLine(tiles, encoded) {
  if (encoded === undefined) return counted(tiles, "tile");
  return `${counted(tiles, "tile")}, ${encoded ? `${number(encoded)} encoded` : "known already"}`;
}

/** @param {number} value */
function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}
