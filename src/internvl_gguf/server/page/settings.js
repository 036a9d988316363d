/** What the user set: options of answers, colours, the model and the key. */

import { byId, el, icon } from "./dom.js";

/**
 * Numbers are kept as they were typed; an empty one leaves the choice to the server.
 *
 * @typedef {{system: string, temperature: string, max_tokens: string, max_tiles: string, thinking: string, theme: string, model: string}} Settings
 */

/** @type {Settings} */
const DEFAULTS = { system: "", temperature: "", max_tokens: "", max_tiles: "", thinking: "", theme: "system", model: "" };
const NUMBERS = /** @type {const} */ (["temperature", "max_tokens", "max_tiles"]);
const KEY = "key";

/** @type {Settings} */
let settings = read();
let key = readKey();

/** @returns {Settings} */
function read() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem("settings") ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

/** @returns {Readonly<Settings>} */
export function current() {
  return settings;
}

/**
 * Change settings and keep them; where the browser keeps nothing they hold until the page is closed.
 *
 * @param {Partial<Settings>} changes
 */
export function change(changes) {
  settings = { ...settings, ...changes };
  try {
    localStorage.setItem("settings", JSON.stringify(settings));
  } catch {
    // They hold until the page is closed.
  }
}

/** What is set, by its names in the API. A model that cannot think takes no notice of an effort. */
export function parameters() {
  const numbers = NUMBERS.filter((name) => settings[name] !== "").map((name) => [name, Number(settings[name])]);
  return { ...Object.fromEntries(numbers), ...(settings.thinking && { reasoning_effort: settings.thinking }) };
}

/** The server's key: of this tab, or remembered; "" where there is none. */
export function apiKey() {
  return key;
}

function readKey() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} given @param {boolean} remember beyond this tab */
function changeKey(given, remember) {
  key = given;
  try {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    (remember ? localStorage : sessionStorage).setItem(KEY, given);
  } catch {
    // It holds until the page is closed.
  }
}

/** Why the server refused a request for want of its key. */
export function keyReason() {
  const wanted = "the key that the server was started with.";
  return key ? `That key is wrong. Enter ${wanted}` : `Enter ${wanted}`;
}

/**
 * Ask for the server's key.
 *
 * @returns {Promise<boolean>} whether one was given
 */
export function askForKey() {
  const dialog = byId("key", HTMLDialogElement);
  const value = byId("key-value", HTMLInputElement);
  byId("key-reason", HTMLElement).textContent = keyReason();
  value.value = "";
  return new Promise((resolve) => {
    let given = false;
    const form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
    form.onsubmit = (event) => {
      event.preventDefault();
      changeKey(value.value.trim(), byId("key-remember", HTMLInputElement).checked);
      given = true;
      dialog.close();
    };
    dialog.onclose = () => resolve(given);
    if (!dialog.open) dialog.showModal();
  });
}

/**
 * Wire the dialog of settings and the switch of colours.
 *
 * @param {() => void} onChange of options that change what a question takes
 */
export function setUpSettings(onChange) {
  const dialog = byId("settings", HTMLDialogElement);
  const form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
  const fields = /** @type {(HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement)[]} */ (
    [...form.elements].filter((element) => "name" in element && element.name)
  );
  /** @param {Settings} values */
  const show = (values) => {
    for (const field of fields) field.value = values[/** @type {keyof Settings} */ (field.name)];
  };
  byId("open-settings", HTMLElement).append(icon("settings"));
  byId("open-settings", HTMLElement).onclick = () => {
    show(settings);
    dialog.showModal();
  };
  byId("settings-reset", HTMLElement).onclick = () => show(DEFAULTS);
  form.onsubmit = (event) => {
    event.preventDefault();
    change(Object.fromEntries(fields.map((field) => [field.name, field.value.trim()])));
    dialog.close();
    showTheme();
    onChange();
  };
  for (const button of document.querySelectorAll("dialog [data-close]"))
    button.addEventListener("click", () => button.closest("dialog")?.close());
  setUpTheme();
}

function setUpTheme() {
  byId("theme", HTMLElement).onclick = () => {
    change({ theme: isDark() ? "light" : "dark" });
    showTheme();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();
}

function isDark() {
  return settings.theme === "dark" || (settings.theme === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
}

function showTheme() {
  const { dataset } = document.documentElement;
  if (settings.theme === "system") delete dataset.theme;
  else dataset.theme = settings.theme;
  const other = isDark() ? "light" : "dark";
  const button = byId("theme", HTMLElement);
  button.replaceChildren(icon(other));
  button.title = `Switch to ${other} colours`;
  button.setAttribute("aria-label", button.title);
}

/** @param {import("./api.js").Model} model */
function named({ id, status }) {
  if (status === "ready") return id;
  return `${id} (${status === "unloaded" ? "not loaded" : status})`;
}

/**
 * Show the models to choose from; one alone is only named.
 *
 * @param {import("./api.js").Model[]} models
 * @param {() => void} onChoice
 */
export function showModels(models, onChoice) {
  const select = byId("model", HTMLSelectElement);
  const label = byId("model-name", HTMLElement);
  select.hidden = models.length < 2;
  label.textContent = models.length === 1 ? named(models[0]) : "";
  label.title = label.textContent;
  if (!models.some(({ id }) => id === settings.model)) settings = { ...settings, model: models[0]?.id ?? "" };
  select.replaceChildren(...models.map((model) => el("option", { value: model.id }, named(model))));
  select.value = settings.model;
  select.onchange = () => {
    change({ model: select.value });
    onChoice();
  };
}
