/** Elements, icons and the few browser services that every part of the page uses. */

const SVG = "http://www.w3.org/2000/svg";

/** Paths of the icons, in a square of 24 with strokes of 2. */
const ICONS = {
  menu: "M4 6h16M4 12h16M4 18h16",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5",
  dark: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  picture: "M4 5h16v14H4zM4 16l4.5-4.5L13 16M12 14.5l3-3L20 16M15.5 8.5h.01",
  close: "M6 6l12 12M18 6L6 18",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  again: "M20 5v5h-5M19.5 10A8 8 0 1 0 20 14",
};

/**
 * Make an element. A property whose name begins with "on" is a listener, `true` an attribute without a value; `false`,
 * `null` and `undefined` are left out, as children too. Text becomes text nodes: markup in it stays text.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | false | null | undefined)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  fill(element, properties, children);
  return element;
}

/**
 * Make an element of SVG; properties as `el` takes them.
 *
 * @param {string} name
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | false | null | undefined)} children
 * @returns {SVGElement}
 */
export function svg(name, properties = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  fill(element, properties, children);
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, any>} properties
 * @param {(Node | string | false | null | undefined)[]} children
 */
function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

/**
 * @param {keyof typeof ICONS} name
 * @returns {SVGElement}
 */
export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "drawing" }, svg("path", { d: ICONS[name] }));
}

/**
 * A button that shows an icon and is called by its label.
 *
 * @param {keyof typeof ICONS} name
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 * @returns {HTMLButtonElement}
 */
export function iconButton(name, label, onclick) {
  return el("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick }, icon(name));
}

/**
 * The element of the page with this id.
 *
 * @template {Element} Kind
 * @param {string} id
 * @param {new (...args: any[]) => Kind} kind
 * @returns {Kind}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page has no ${kind.name} #${id}.`);
  return found;
}

/** A name that no other has; also where the page came over plain HTTP, which lacks `crypto.randomUUID`. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A number with thousands apart, as "3,328".
 *
 * @param {number} value
 */
export function number(value) {
  return value.toLocaleString("en-US");
}

/**
 * A count and its noun, as "1 tile" or "13 tiles".
 *
 * @param {number} count
 * @param {string} noun
 */
export function counted(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * Tell screen readers, once, politely.
 *
 * @param {string} text
 */
export function announce(text) {
  byId("announcer", HTMLElement).replaceChildren(el("p", {}, text));
}

/**
 * Show a line at the foot for ten seconds, with one thing to do about it.
 *
 * @param {string} text
 * @param {{label: string, act: () => void}} [action]
 * @param {() => void} [onGone] called when the line goes without the action
 */
export function toast(text, action, onGone) {
  const place = byId("toast", HTMLElement);
  /** @type {any} */ (place).gone?.();
  const timer = setTimeout(() => leave(), 10_000);
  const leave = (acted = false) => {
    clearTimeout(timer);
    place.replaceChildren();
    /** @type {any} */ (place).gone = undefined;
    if (!acted) onGone?.();
  };
  /** @type {any} */ (place).gone = leave;
  const button =
    action && el("button", { type: "button", class: "button", onclick: () => (leave(true), action.act()) }, action.label);
  place.replaceChildren(el("span", {}, text), ...(button ? [button] : []));
}

/**
 * Copy text, also where the page came over plain HTTP from another machine and has no `navigator.clipboard`.
 *
 * @param {string} text
 * @param {HTMLElement} button says "Copied" for a moment
 */
export async function copyText(text, button) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    const area = el("textarea", { class: "hidden" }, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.dataset.done = "";
  announce("Copied");
  setTimeout(() => delete button.dataset.done, 1500);
}
