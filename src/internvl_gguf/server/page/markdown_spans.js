/** The spans within a block of Markdown: emphasis, code, links. Text enters as text nodes alone. */

import { el } from "./dom.js";

/** Spans within each other beyond this are plain text. */
const DEEPEST = 8;

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const LINK = /(!?)\[((?:\\.|\[[^\]\n]*\]|[^[\]\\])*)\]\(\s*<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/y;
const ADDRESS = /https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?*_~)\]]/y;
const ANGLED = /<(https?:\/\/[^\s<>]+)>/y;
const BREAK = /<br\s*\/?>/iy;
const ENTITY = /&(amp|lt|gt|quot|apos|nbsp);/y;

/**
 * @param {string} text
 * @param {number} [depth] of spans around it
 * @returns {DocumentFragment}
 */
export function renderSpans(text, depth = 0) {
  const made = document.createDocumentFragment();
  let plain = "";
  /** @param {Node} node */
  const put = (node) => {
    if (plain) made.append(plain);
    plain = "";
    made.append(node);
  };
  let at = 0;
  while (at < text.length) {
    const span = depth < DEEPEST ? spanAt(text, at, depth) : null;
    if (!span) {
      plain += text[at];
      at++;
      continue;
    }
    if (typeof span.made === "string") plain += span.made;
    else put(span.made);
    at = span.end;
  }
  if (plain) made.append(plain);
  return made;
}

/**
 * The span that begins at a character, or null where the character stands for itself.
 *
 * @param {string} text
 * @param {number} at
 * @param {number} depth
 * @returns {{made: Node | string, end: number} | null}
 */
function spanAt(text, at, depth) {
  switch (text[at]) {
    case "\\":
      if (text[at + 1] === "\n") return { made: el("br"), end: at + 2 };
      return PUNCTUATION.test(text[at + 1] ?? "") ? { made: text[at + 1], end: at + 2 } : null;
    case "\n":
      return { made: el("br"), end: at + 1 };
    case "`":
      return codeAt(text, at);
    case "*":
    case "_":
    case "~":
      return emphasisAt(text, at, depth);
    case "!":
    case "[":
      return linkAt(text, at, depth);
    case "<":
      return angledAt(text, at);
    case "&": {
      const entity = match(ENTITY, text, at);
      return entity && { made: ENTITIES[/** @type {keyof typeof ENTITIES} */ (entity[1])], end: at + entity[0].length };
    }
    case "h": {
      const address = at && WORD.test(text[at - 1]) ? null : match(ADDRESS, text, at);
      return address && { made: linkTo(address[0], address[0]) ?? address[0], end: at + address[0].length };
    }
    default:
      return null;
  }
}

/** @param {RegExp} sticky @param {string} text @param {number} at */
function match(sticky, text, at) {
  sticky.lastIndex = at;
  return sticky.exec(text);
}

/** How often the character at `at` follows itself. @param {string} text @param {number} at */
function runAt(text, at) {
  let end = at;
  while (text[end] === text[at]) end++;
  return end - at;
}

/** @param {string} text @param {number} at @returns {{made: Node | string, end: number}} */
function codeAt(text, at) {
  const ticks = runAt(text, at);
  let close = at + ticks;
  while (close < text.length) {
    close = text.indexOf("`", close);
    if (close < 0) break;
    const run = runAt(text, close);
    if (run === ticks) {
      const inner = text.slice(at + ticks, close).replaceAll("\n", " ");
      const padded = inner.startsWith(" ") && inner.endsWith(" ") && inner.trim();
      return { made: el("code", {}, padded ? inner.slice(1, -1) : inner), end: close + ticks };
    }
    close += run;
  }
  return { made: "`".repeat(ticks), end: at + ticks };
}

/** @param {string} text @param {number} at @param {number} depth @returns {{made: Node | string, end: number}} */
function emphasisAt(text, at, depth) {
  const mark = text[at];
  const run = runAt(text, at);
  const asText = { made: mark.repeat(run), end: at + run };
  const before = text[at - 1] ?? " ";
  const after = text[at + run] ?? " ";
  if (/\s/.test(after) || (mark === "_" && WORD.test(before)) || (mark === "~" && run !== 2)) return asText;
  for (let size = Math.min(run, 3); size > 0; size--) {
    const close = closing(text, at + run, mark, size);
    if (close < 0) continue;
    const inner = mark.repeat(run - size) + text.slice(at + run, close);
    const content = renderSpans(inner, depth + 1);
    const name = mark === "~" ? "del" : size === 1 ? "em" : "strong";
    return { made: el(name, {}, size === 3 ? el("em", {}, content) : content), end: close + size };
  }
  return asText;
}

/**
 * Where the marks that end an emphasis begin, or -1.
 *
 * @param {string} text
 * @param {number} from
 * @param {string} mark
 * @param {number} size of the marks
 */
function closing(text, from, mark, size) {
  for (let at = from; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "`") at = codeAt(text, at).end - 1;
    else if (text[at] === mark) {
      const run = runAt(text, at);
      const fits = size === 1 ? run !== 2 : run >= size;
      const inWord = mark === "_" && WORD.test(text[at + run] ?? " ");
      if (at > from && fits && !inWord && !/\s/.test(text[at - 1])) return at + run - size;
      at += run - 1;
    }
  }
  return -1;
}

/** @param {string} text @param {number} at @param {number} depth */
function linkAt(text, at, depth) {
  const found = match(LINK, text, at);
  if (!found) return null;
  const [source, , label, address] = found;
  const link = linkTo(address, found[1] ? label || address : renderSpans(label, depth + 1));
  return { made: link ?? source, end: at + source.length };
}

/** @param {string} text @param {number} at */
function angledAt(text, at) {
  const address = match(ANGLED, text, at);
  if (address) return { made: linkTo(address[1], address[1]) ?? address[0], end: at + address[0].length };
  const lineBreak = match(BREAK, text, at);
  return lineBreak && { made: el("br"), end: at + lineBreak[0].length };
}

/**
 * A link to a whole http or https address; null for any other.
 *
 * @param {string} address
 * @param {string | Node} label
 */
function linkTo(address, label) {
  if (!/^https?:\/\//i.test(address) || !URL.canParse(address)) return null;
  return el("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, label);
}
