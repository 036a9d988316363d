/** The next question: its text, its pictures, and what they take of the context before it is asked. */

import { ApiError } from "./api.js";
import { byId, counted, el, icon, iconButton, number } from "./dom.js";
import { ACCEPTED, costLine, forget, gridLine, gridOverlay, picturesOf, pictureView } from "./pictures.js";

/**
 * @typedef {import("./conversations.js").Draft} Draft
 * @typedef {import("./api.js").PromptCost} PromptCost
 * @typedef {{ask: () => void, stop: () => void, changed: () => void, editLast: () => void,
 *   view: (picture: import("./pictures.js").Picture) => void,
 *   cost: (draft: Draft, signal: AbortSignal) => Promise<PromptCost | null>}} Actions `cost` gives null where it is unknown
 */

/** Milliseconds after the last change before the cost is asked for, and the same where many bytes have to travel. */
const PAUSE = 350;
const LONG_PAUSE = 2000;
const MANY_BYTES = 8 * 1024 * 1024;

/** The form at the foot of the page. */
export class Composer {
  /** @param {Actions} actions */
  constructor(actions) {
    this.actions = actions;
    /** @type {Draft} */
    this.draft = { text: "", pictures: [] };
    this.running = false;
    this.refused = "";
    this.shownPictures = "[]";
    this.asking = new AbortController();
    this.timer = 0;
    this.form = byId("composer", HTMLFormElement);
    this.area = byId("question", HTMLTextAreaElement);
    this.strip = byId("pictures", HTMLElement);
    this.button = byId("send", HTMLButtonElement);
    this.note = byId("composer-note", HTMLElement);
    this.#listen();
  }

  #listen() {
    const files = byId("files", HTMLInputElement);
    files.accept = ACCEPTED;
    files.onchange = () => {
      this.add(files.files ?? []);
      files.value = "";
    };
    byId("add", HTMLElement).append(icon("picture"));
    byId("add", HTMLElement).title = "Add pictures (or drop or paste them)";
    byId("add", HTMLElement).onclick = () => files.click();
    this.form.onsubmit = (event) => {
      event.preventDefault();
      if (this.running) this.actions.stop();
      else if (this.canAsk) this.actions.ask();
    };
    this.area.oninput = () => {
      this.draft.text = this.area.value;
      this.#changed();
    };
    this.area.onkeydown = (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        if (!this.running && this.canAsk) this.actions.ask();
      } else if (event.key === "ArrowUp" && !this.area.value && !this.running) {
        event.preventDefault();
        this.actions.editLast();
      }
    };
  }

  get isEmpty() {
    return !this.draft.text.trim() && !this.draft.pictures.length;
  }

  /** Pictures of the draft that the server cannot read. */
  get unread() {
    return this.draft.pictures.filter(({ error }) => error);
  }

  get canAsk() {
    return !this.isEmpty && !this.unread.length;
  }

  /** @param {Draft} draft */
  set(draft) {
    this.draft = draft;
    this.area.value = draft.text;
    this.refused = "";
    this.say("");
    this.#showPictures();
    this.#changed();
  }

  /** Take the draft out, for asking it. */
  take() {
    const draft = { ...this.draft, text: this.draft.text.trim() };
    this.set({ text: "", pictures: [] });
    return draft;
  }

  /** @param {Iterable<File>} files */
  add(files) {
    const { pictures, refused } = picturesOf(files);
    this.draft.pictures.push(...pictures);
    this.#showPictures();
    this.#changed();
    this.refused = refused.join("\n");
    this.say("");
    this.focus();
  }

  focus() {
    this.area.focus({ preventScroll: true });
  }

  /** @param {string} line of what went wrong, "" for nothing; what files were refused is said with it */
  say(line) {
    const lines = [this.refused, line].filter(Boolean).join("\n");
    if (this.note.textContent !== lines) this.note.textContent = lines;
    this.note.hidden = !lines;
  }

  /** @param {boolean} running whether an answer to this conversation is on its way */
  setRunning(running) {
    this.running = running;
    this.#showButton();
  }

  /** Ask anew what the draft takes, after a pause. */
  refreshCost() {
    clearTimeout(this.timer);
    this.asking.abort();
    const bytes = this.draft.pictures.reduce((sum, { blob }) => sum + blob.size, 0);
    const known = this.draft.pictures.every(({ cost }) => cost);
    this.timer = setTimeout(() => this.#askCost(), known && bytes > MANY_BYTES ? LONG_PAUSE : PAUSE);
  }

  async #askCost() {
    // What the question took stays shown until its answer is there.
    if (this.running && this.isEmpty && !byId("fill", HTMLElement).hidden) return;
    this.asking = new AbortController();
    const { signal } = this.asking;
    try {
      const cost = await this.actions.cost(this.draft, signal);
      if (signal.aborted) return;
      this.showFill(cost?.input_tokens, cost?.context_length);
      const names = this.unread.map(({ name }) => name);
      this.say(names.length ? `Remove ${names.join(" and ")} to ask: the server cannot read ${names.length > 1 ? "them" : "it"}.` : "");
    } catch (error) {
      if (signal.aborted) return;
      this.showFill(undefined, undefined);
      if (error instanceof ApiError && error.status < 500) this.say(error.message);
      else if (error instanceof ApiError) this.timer = setTimeout(() => this.#askCost(), LONG_PAUSE);
    }
    this.#showPictures();
    this.#showButton();
  }

  /**
   * Show how much of the context is taken.
   *
   * @param {number | undefined} used
   * @param {number | null | undefined} all
   */
  showFill(used, all) {
    const place = byId("fill", HTMLElement);
    const meter = byId("meter", HTMLElement);
    place.hidden = used === undefined;
    if (used === undefined) return;
    meter.hidden = !all;
    const over = Boolean(all && used > all);
    place.classList.toggle("over", over);
    place.classList.toggle("high", Boolean(all && used > all * 0.85));
    byId("fill-text", HTMLElement).textContent = all ? `${number(used)} of ${counted(all, "token")}` : counted(used, "token");
    if (!all) return;
    meter.setAttribute("aria-valuemax", String(all));
    meter.setAttribute("aria-valuenow", String(Math.min(used, all)));
    meter.setAttribute("aria-valuetext", `${number(used)} of ${counted(all, "token")}`);
    /** @type {HTMLElement} */ (meter.firstElementChild).style.width = `${Math.min(100, (100 * used) / all)}%`;
  }

  #changed() {
    // Its own height first, so that it shrinks again when lines go.
    this.area.style.height = "auto";
    this.area.style.height = `${this.area.scrollHeight}px`;
    this.#showButton();
    this.refreshCost();
    this.actions.changed();
  }

  #showButton() {
    this.button.textContent = this.running ? "Stop" : "Ask";
    this.button.classList.toggle("primary", !this.running);
    this.button.disabled = !this.running && !this.canAsk;
    const ask = this.unread.length ? "Remove what cannot be read first" : "Ask (Enter)";
    this.button.title = this.running ? "Stop the answer (Esc)" : ask;
  }

  #showPictures() {
    const shown = JSON.stringify(this.draft.pictures.map(({ id, cost, error }) => [id, cost, error]));
    // Made anew only where they differ, so that a focus on them stays.
    if (shown === this.shownPictures) return;
    this.shownPictures = shown;
    this.strip.hidden = !this.draft.pictures.length;
    this.strip.replaceChildren(...this.draft.pictures.map((picture) => this.#thumbnail(picture)));
  }

  /** @param {import("./pictures.js").Picture} picture */
  #thumbnail(picture) {
    const { name, cost, error } = picture;
    const remove = iconButton("close", `Remove ${name}`, () => {
      this.draft.pictures = this.draft.pictures.filter((other) => other !== picture);
      forget(picture);
      this.#showPictures();
      this.#changed();
      this.focus();
    });
    const view = pictureView(picture, gridOverlay(cost));
    const look = el("button", { type: "button", class: "look", "aria-label": `View ${name}`, onclick: () => this.actions.view(picture) }, view);
    const line = cost ? costLine(cost) : (error ?? "…");
    const title = cost ? gridLine(cost) : (error ?? name);
    const pinned = el("span", { class: "pinned" }, look, remove);
    return el("li", { class: error && "bad", title }, pinned, el("span", { class: "cost" }, line));
  }
}
