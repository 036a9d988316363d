/** The page: which conversation is shown, and what happens when something is asked, edited, stopped or deleted. */

import { ApiError, isThere, models, ServerGone } from "./api.js";
import { costOf, costSoFar, newAnswer, Runs, takeUp } from "./asking.js";
import { boxesOverlay } from "./boxes.js";
import { Composer } from "./composer.js";
import { Conversations, note, takeNote } from "./conversations.js";
import { announce, byId, el, newId, toast } from "./dom.js";
import { gridLine, gridOverlay, pictureView } from "./pictures.js";
import { askForKey, current, keyReason, setUpSettings, showModels } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";
import { setUpEscape, setUpFiles, setUpScrolling, setUpSidebar } from "./window_events.js";

/**
 * @typedef {import("./conversations.js").Answer} Answer
 * @typedef {import("./conversations.js").Conversation} Conversation
 * @typedef {import("./conversations.js").Draft} Draft
 * @typedef {import("./conversations.js").Question} Question
 * @typedef {import("./pictures.js").Picture} Picture
 */

/** Milliseconds between looks whether the server is back, and from a change of the draft until it is kept. */
const LOOK_EVERY = 2000;
const KEEP_AFTER = 300;
const SUGGESTIONS = ["What is in this picture?", "Read the text in it.", "Describe it in one sentence."];

/** @type {Conversations | null} null where the browser keeps nothing */
let store = null;
/** @type {Conversation[]} the latest first; pictures have their bytes only in those of `loaded` */
let all = [];
/** @type {Map<string, Conversation>} */
const loaded = new Map();
/** @type {Conversation} the one that is shown; in `all` from its first question on */
let here = newConversation();
/** @type {import("./api.js").Model[]} */
let served = [];
let isGone = false;
let draftTimer = 0;

const others = new BroadcastChannel("conversations");
const runs = new Runs((conversation, answer) => {
  if (conversation === here) thread.update(answer);
});
const thread = new Thread(byId("thread", HTMLElement), {
  again: (answer, varied) => {
    const { usage } = answer;
    composer.showFill(usage?.prompt_tokens, contextLength());
    replaceFrom(answer.id, [], varied);
  },
  edit: (question, text, pictures) => {
    composer.showFill(undefined, undefined);
    replaceFrom(question.id, [{ id: newId(), role: "user", text, pictures }]);
  },
  view: viewPicture,
});
const sidebar = new Sidebar({ open: goTo, rename, remove });
const composer = new Composer({
  ask: askDraft,
  stop: () => runs.stop(here.id),
  changed: () => {
    clearTimeout(draftTimer);
    draftTimer = setTimeout(keepDraft, KEEP_AFTER);
  },
  cost: draftCost,
  editLast: () => {
    const last = here.messages.findLast((message) => message.role === "user");
    if (last) thread.edit(last);
  },
  view: viewPicture,
});
const toEnd = setUpScrolling();
const closeSidebar = setUpSidebar();

/** @returns {Conversation} */
function newConversation() {
  return { id: newId(), title: "", changed: Date.now(), messages: [] };
}

async function start() {
  setUpSettings(() => {
    show();
    composer.refreshCost();
  });
  setUpFiles((files) => composer.add(files));
  setUpEscape(() => runs.stop(here.id));
  byId("new", HTMLElement).onclick = () => goTo("");
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    event.preventDefault();
    composer.focus();
  });
  addEventListener("hashchange", openFromAddress);
  addEventListener("pagehide", keepWhatGrows);
  others.onmessage = ({ data }) => readAgain(data);
  const known = loadModels();
  await keeping(async () => {
    store = await Conversations.open();
    all = await store.list();
    for (const { id } of all.filter(({ removed }) => removed)) await store.remove(id);
    all = all.filter(({ removed }) => !removed);
  });
  await openFromAddress();
  await known;
}

/** Go to a conversation by its id, or to a new one by "". @param {string} id */
function goTo(id) {
  closeSidebar();
  if (location.hash === (id && `#${id}`)) composer.focus();
  else if (id) location.hash = id;
  else {
    history.pushState(null, "", location.pathname);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}

/** @param {Event} [left] what left the conversation that was shown, if one was */
async function openFromAddress(left) {
  if (left) keepDraft();
  const id = location.hash.slice(1);
  here = (id && (await loadConversation(id))) || newConversation();
  const draft = await keeping(async () => store?.loadDraft(draftName()));
  const text = takeNote(`draft:${draftName()}`) ?? draft?.text ?? "";
  // What was typed while the page loaded is the draft.
  if (left || composer.isEmpty) composer.set({ text, pictures: draft?.pictures ?? [] });
  composer.showFill(undefined, undefined);
  show();
  toEnd();
  if (matchMedia("(hover: hover)").matches) composer.focus();
}

/** @param {string} id @returns {Promise<Conversation | undefined>} */
async function loadConversation(id) {
  const known = loaded.get(id);
  if (known) return known;
  const conversation = await keeping(async () => store?.load(id));
  if (!conversation || conversation.removed) return undefined;
  if (takeUp(conversation)) keep(conversation);
  loaded.set(id, conversation);
  all = all.map((other) => (other.id === id ? conversation : other));
  return conversation;
}

/** Another tab changed a conversation. @param {string} id */
async function readAgain(id) {
  if (runs.isRunning(id)) return;
  loaded.delete(id);
  const list = (await keeping(async () => store?.list())) ?? [];
  all = list.filter(({ removed }) => !removed).map((conversation) => loaded.get(conversation.id) ?? conversation);
  if (here.id === id) here = (await loadConversation(id)) ?? newConversation();
  show();
}

/** Show the conversation that is here, and its place in the list. */
function show() {
  thread.show(here.messages, emptyState());
  sidebar.show(all, here.id, (id) => runs.isRunning(id));
  composer.setRunning(runs.isRunning(here.id));
  byId("heading", HTMLElement).textContent = here.title || "New conversation";
  document.title = here.title ? `${here.title} – InternVL` : "InternVL";
}

function emptyState() {
  const chips = SUGGESTIONS.map((text) => {
    const onclick = () => {
      composer.set({ ...composer.draft, text });
      if (composer.draft.pictures.length && composer.canAsk) askDraft();
      composer.focus();
    };
    return el("button", { type: "button", class: "button", onclick }, text);
  });
  return el(
    "div",
    { class: "empty" },
    el("h2", {}, "Ask about a picture"),
    el("p", {}, "Drop it anywhere, paste it, or choose a file. It goes to your own server and nowhere else."),
    el("div", { class: "chips" }, ...chips),
  );
}

async function askDraft() {
  const draft = composer.take();
  const conversation = here;
  if (!all.includes(conversation)) {
    conversation.title = titleOf(draft);
    all.unshift(conversation);
    loaded.set(conversation.id, conversation);
    history.pushState(null, "", `#${conversation.id}`);
    await keeping(async () => store?.saveDraft("new", { text: "", pictures: [] }));
  }
  const question = /** @type {Question} */ ({ id: newId(), role: "user", ...draft });
  conversation.messages.push(question);
  if (await answerIn(conversation)) return;
  takeBack(conversation, question, draft);
}

/** The first line of the first question, or its picture's name. @param {Draft} draft */
function titleOf({ text, pictures }) {
  const line = text.split("\n")[0];
  return line.length > 80 ? `${line.slice(0, 79)}…` : line || pictures[0].name;
}

/**
 * A question that no server got becomes the draft again.
 *
 * @param {Conversation} conversation
 * @param {Question} question
 * @param {Draft} draft
 */
function takeBack(conversation, question, draft) {
  conversation.messages.splice(conversation.messages.indexOf(question));
  if (conversation === here && composer.isEmpty) composer.set(draft);
  if (conversation.messages.length) keep(conversation);
  else {
    all = all.filter((other) => other !== conversation);
    keeping(async () => store?.remove(conversation.id));
    if (conversation === here) history.replaceState(null, "", location.pathname);
  }
  keepDraft();
  show();
}

/**
 * Replace a message and all that follow it, and answer anew.
 *
 * @param {string} id of the message
 * @param {Question[]} questions in its place
 * @param {boolean} [varied] whether another answer than the last is wanted
 */
async function replaceFrom(id, questions, varied) {
  const conversation = here;
  runs.stop(conversation.id);
  const at = conversation.messages.findIndex((message) => message.id === id);
  conversation.messages.splice(at, Infinity, ...questions);
  const answered = answerIn(conversation, varied);
  composer.refreshCost();
  await answered;
}

/**
 * Answer the question at the end of a conversation.
 *
 * @param {Conversation} conversation
 * @param {boolean} [varied] whether another answer than the last is wanted
 * @returns {Promise<boolean>} false where no server got the question
 */
async function answerIn(conversation, varied) {
  const answer = newAnswer();
  conversation.messages.push(answer);
  conversation.changed = Date.now();
  all.sort((a, b) => b.changed - a.changed);
  const run = runs.run(conversation, answer, varied);
  show();
  if (conversation === here) toEnd();
  keep(conversation);
  try {
    await run;
    sayDone(conversation, answer);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      if (await askForKey()) {
        conversation.messages.pop();
        loadModels();
        return answerIn(conversation, varied);
      }
      answer.error = keyReason();
    }
    announce(`Error: ${answer.error}`);
    if (error instanceof ServerGone && !answer.text) {
      serverGone();
      return false;
    }
  } finally {
    keep(conversation);
    show();
    if (conversation === here) composer.refreshCost();
  }
  // A model that was loaded for it has a context now.
  loadModels();
  return true;
}

/** @param {Conversation} conversation @param {Answer} answer */
function sayDone(conversation, answer) {
  if (answer.state === "stopped") announce("Stopped");
  else if (conversation === here) announce(`Answer: ${thread.textOf(answer)}`);
  else toast(`“${conversation.title}” is answered.`, { label: "Show", act: () => goTo(conversation.id) });
}

/** Tokens that the chosen model's context has, null where it is unknown. */
function contextLength() {
  return served.find(({ id }) => id === current().model)?.context_length ?? null;
}

/** @param {Draft} draft @param {AbortSignal} signal */
async function draftCost(draft, signal) {
  const { messages } = here;
  try {
    const cost = composer.isEmpty ? null : await costOf(messages, draft, signal);
    return cost ?? (await costSoFar(messages, contextLength(), signal));
  } catch (error) {
    if (error instanceof ServerGone) serverGone();
    throw error;
  }
}

/** @param {string} id @param {string} title */
async function rename(id, title) {
  const conversation = await loadConversation(id);
  if (!conversation) return;
  conversation.title = title;
  keep(conversation);
  show();
}

/** @param {string} id */
async function remove(id) {
  const conversation = await loadConversation(id);
  if (!conversation) return;
  runs.stop(id);
  conversation.removed = true;
  all = all.filter((other) => other !== conversation);
  keep(conversation);
  if (here === conversation) goTo("");
  else show();
  const undo = () => {
    conversation.removed = false;
    all = [...all, conversation].sort((a, b) => b.changed - a.changed);
    keep(conversation);
    goTo(id);
    show();
  };
  toast(`“${conversation.title}” is deleted.`, { label: "Undo", act: undo }, () => {
    loaded.delete(id);
    keeping(async () => store?.remove(id));
  });
}

/** @param {Picture} picture @param {import("./boxes.js").Box[]} [boxes] */
function viewPicture(picture, boxes) {
  const overlay = boxes ? boxesOverlay(boxes) : gridOverlay(picture.cost);
  byId("viewer-picture", HTMLElement).replaceChildren(pictureView(picture, overlay));
  byId("viewer-text", HTMLElement).textContent = picture.cost ? `${picture.name}: ${gridLine(picture.cost)}` : picture.name;
  byId("viewer", HTMLDialogElement).showModal();
}

/** @param {Conversation} conversation */
async function keep(conversation) {
  await keeping(async () => {
    await store?.save(conversation);
    others.postMessage(conversation.id);
  });
}

function draftName() {
  return all.includes(here) ? here.id : "new";
}

function keepDraft() {
  clearTimeout(draftTimer);
  return keeping(async () => store?.saveDraft(draftName(), composer.draft));
}

/** The page goes: note what IndexedDB might not write any more. */
function keepWhatGrows() {
  if (composer.draft.text) note(`draft:${draftName()}`, composer.draft.text);
  for (const conversation of all)
    for (const message of conversation.messages)
      if (message.role === "assistant" && message.state === "running") note(`growing:${message.id}`, message.text);
}

/**
 * Work that keeps something. What the browser does not keep is said once, and the page goes on without.
 *
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T | undefined>}
 */
async function keeping(work) {
  try {
    return await work();
  } catch (error) {
    showBanner(/** @type {Error} */ (error).message, { label: "Close", act: hideBanner });
    return undefined;
  }
}

async function loadModels() {
  try {
    served = await models();
    showModels(served, () => composer.refreshCost());
    composer.refreshCost();
  } catch (error) {
    if (error instanceof ServerGone) serverGone();
    else if (error instanceof ApiError && error.status === 401) wantKey();
    else showBanner(/** @type {Error} */ (error).message, { label: "Try again", act: () => (hideBanner(), loadModels()) });
  }
}

async function wantKey() {
  if (await askForKey()) {
    hideBanner();
    await loadModels();
  } else showBanner(keyReason(), { label: "Enter the key", act: wantKey });
}

/** Say that no server answers, and look until one does. */
function serverGone() {
  showBanner("The server does not answer. Start it again with `internvl serve`; what you wrote is kept.", { label: "Try again", act: look });
  if (isGone) return;
  isGone = true;
  setTimeout(look, LOOK_EVERY);
}

async function look() {
  if (!isGone) return;
  if (!(await isThere())) {
    setTimeout(look, LOOK_EVERY);
    return;
  }
  isGone = false;
  hideBanner();
  await loadModels();
}

/** @param {string} text @param {{label: string, act: () => void}} action */
function showBanner(text, { label, act }) {
  const banner = byId("banner", HTMLElement);
  const button = el("button", { type: "button", class: "button", onclick: act }, label);
  banner.replaceChildren(el("p", { class: "column" }, el("span", {}, text), button));
  banner.hidden = false;
}

function hideBanner() {
  byId("banner", HTMLElement).hidden = true;
}

start();
