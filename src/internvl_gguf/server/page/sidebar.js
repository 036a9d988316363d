/** The list of conversations. */

import { byId, el, iconButton } from "./dom.js";

/**
 * @typedef {import("./conversations.js").Conversation} Conversation
 * @typedef {{open: (id: string) => void, rename: (id: string, title: string) => void, remove: (id: string) => void}} Actions
 */

/** From how many conversations on there is a field to find one. */
const MANY = 8;

/** Conversations by their titles, the latest first. */
export class Sidebar {
  /** @param {Actions} actions */
  constructor(actions) {
    this.actions = actions;
    this.list = byId("conversations", HTMLElement);
    this.filter = byId("filter", HTMLInputElement);
    /** @type {Conversation[]} */
    this.conversations = [];
    this.current = "";
    /** @type {(id: string) => boolean} */
    this.isRunning = () => false;
    this.filter.oninput = () => this.#draw();
  }

  /**
   * @param {Conversation[]} conversations
   * @param {string} current the id of the one that is shown
   * @param {(id: string) => boolean} isRunning
   */
  show(conversations, current, isRunning) {
    this.conversations = conversations;
    this.current = current;
    this.isRunning = isRunning;
    this.filter.hidden = conversations.length < MANY;
    if (this.filter.hidden) this.filter.value = "";
    if (!this.list.querySelector("input")) this.#draw();
  }

  #draw() {
    const wanted = this.filter.value.trim().toLowerCase();
    const found = this.conversations.filter(({ title }) => title.toLowerCase().includes(wanted));
    const focused = this.list.contains(document.activeElement) ? document.activeElement?.getAttribute("aria-label") : null;
    this.list.replaceChildren(...found.map((conversation) => this.#item(conversation)));
    if (focused) /** @type {HTMLElement | null} */ (this.list.querySelector(`[aria-label="${CSS.escape(focused)}"]`))?.focus();
  }

  /** @param {Conversation} conversation */
  #item({ id, title }) {
    const isCurrent = id === this.current;
    const running = this.isRunning(id) ? ", answering" : "";
    const open = el(
      "button",
      { type: "button", class: "title", title, "aria-label": title + running, "aria-current": isCurrent && "page", onclick: () => this.actions.open(id) },
      title,
    );
    const item = el("li", { class: running && "running", "data-id": id }, open);
    const rename = iconButton("edit", `Rename ${title}`, () => this.#rename(item, id, title));
    const remove = iconButton("remove", `Delete ${title}`, () => this.actions.remove(id));
    item.append(rename, remove);
    return item;
  }

  /** @param {HTMLElement} item @param {string} id @param {string} title */
  #rename(item, id, title) {
    const input = el("input", { "aria-label": "Title", maxlength: "120" });
    input.value = title;
    let left = false;
    /** @param {boolean} keep @param {boolean} [refocus] */
    const leave = (keep, refocus) => {
      if (left) return;
      left = true;
      input.remove();
      if (keep && input.value.trim()) this.actions.rename(id, input.value.trim());
      else this.#draw();
      const again = /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-id="${id}"] [aria-label^=Rename]`));
      if (refocus) again?.focus();
    };
    input.onkeydown = (event) => {
      event.stopPropagation();
      if (event.isComposing) return;
      if (event.key === "Enter") leave(true, true);
      if (event.key === "Escape") leave(false, true);
    };
    input.onblur = () => leave(true);
    item.replaceChildren(input);
    input.select();
  }
}
