/**
 * Boxes that an answer names: `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>` as InternVL was taught, or untagged as
 * `label[[x1, y1, x2, y2], ...]`, in thousandths of the whole picture.
 */

import { el, svg } from "./dom.js";

/** @typedef {{label: string, x1: number, y1: number, x2: number, y2: number}} Box in thousandths, the first corner top left */

/** Colours that follow each other; page.css has as many. */
const COLOURS = 6;

/** Characters of an untagged label at most. */
const LONGEST_LABEL = 120;

const CODE = /```[\s\S]*?(?:```|$)|`[^`\n]+`/;
const MARKED = /(?:<ref>([^<\n]*)<\/ref>\s*)?(?:<box>\s*)?(\[\[\s*[-\d][-\d\s,[\]]*?(?:\]\s*\]|(?=<\/box>)|$))(?:\s*<\/box>)?/;
const PIECES = new RegExp(`(${CODE.source})|${MARKED.source}`, "g");
const CORNERS = /\[\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*\]/g;
/** Tags that stand alone, and the beginning of one at the end of what has come so far. */
const STRAY = /<\/?(?:ref|box)>|<\/?(?:r|re|ref|b|bo|box)?$|\[\[[-\d\s,[\]]*$/g;

/** A fence, and a line of the list of objects that InternVL writes into one. */
const FENCE = /```[ \t]*\n([\s\S]*?)(```|$)/g;
const DETECTED = /^\s*[^[\]=({\n]+\[\[\s*[-\d][-\d\s,[\]]*\]\s*\](?:<\/box>)?\s*$/;

/**
 * The text with the lists of objects out of their fences; a fence around anything else is code.
 *
 * @param {string} text
 */
function withoutListFences(text) {
  return text.replace(FENCE, (fence, body, end) => {
    const lines = body.split("\n");
    if (!end) lines.pop(); // more of it may come
    const listed = lines.filter((/** @type {string} */ line) => line.trim());
    return listed.length && listed.every((/** @type {string} */ line) => DETECTED.test(line)) ? body : fence;
  });
}

/**
 * Read the boxes of an answer, also of one that is cut off: a last box without all its numbers is left out.
 *
 * @param {string} answer
 * @returns {{text: string, boxes: Box[]}} the text to show, without coordinates, and the boxes
 */
export function readBoxes(answer) {
  const text = withoutListFences(answer);
  /** @type {Box[]} */
  const boxes = [];
  let shown = "";
  let last = 0;
  for (const found of text.matchAll(PIECES)) {
    const [whole, code, name, corners] = found;
    shown += text.slice(last, found.index).replace(STRAY, "");
    last = found.index + whole.length;
    const read = code ? [] : boxesOf(corners, name?.trim() || labelBefore(shown));
    const cutOff = !code && last === text.length && !corners?.endsWith("]]");
    boxes.push(...read);
    shown += read.length || cutOff ? (name ?? "") : whole;
  }
  return { text: shown + text.slice(last).replace(STRAY, ""), boxes };
}

/**
 * @param {string} corners
 * @param {string} label
 * @returns {Box[]}
 */
function boxesOf(corners, label) {
  return Array.from(corners.matchAll(CORNERS), ([, ...numbers]) => {
    const [x1, y1, x2, y2] = numbers.map((number) => Math.min(1000, Math.max(0, Number(number))));
    return { label, x1: Math.min(x1, x2), y1: Math.min(y1, y2), x2: Math.max(x1, x2), y2: Math.max(y1, y2) };
  });
}

/**
 * The label of coordinates without a tag: what stands before them in their line, back to the last punctuation.
 *
 * @param {string} text
 */
function labelBefore(text) {
  const phrase = text.slice(-LONGEST_LABEL).split(/[\n,;:!?()]|\.\s/).at(-1) ?? "";
  return phrase.replace(/^[\s\d.*_#>-]+|[\s*_]+$/g, "") || "box";
}

/**
 * A drawing of boxes to lie over a picture, in its colours.
 *
 * @param {Box[]} boxes
 */
export function boxesOverlay(boxes) {
  const frames = boxes.map((box, at) =>
    svg("g", { class: `box colour-${at % COLOURS}` }, svg("rect", { class: "halo", ...frame(box) }), svg("rect", frame(box))),
  );
  const drawing = svg("svg", { class: "overlay" }, ...frames);
  return el("span", { class: "overlay", "aria-hidden": "true" }, drawing, ...boxes.map(labelOf));
}

/** The label of a box: above its upper edge, or inside where the picture ends there. @param {Box} box @param {number} at */
function labelOf(box, at) {
  const toLeft = box.x1 > 600;
  const label = el("span", { class: `box-label colour-${at % COLOURS} ${box.y1 < 80 ? "inside" : ""}` }, box.label);
  label.style.top = `${box.y1 / 10}%`;
  if (toLeft) label.style.right = `${100 - box.x2 / 10}%`;
  else label.style.left = `${box.x1 / 10}%`;
  return label;
}

/** @param {Box} box */
function frame({ x1, y1, x2, y2 }) {
  return { x: `${x1 / 10}%`, y: `${y1 / 10}%`, width: `${(x2 - x1) / 10}%`, height: `${(y2 - y1) / 10}%` };
}

/**
 * The boxes as a list, in the colours of the drawing.
 *
 * @param {Box[]} boxes
 */
export function boxesList(boxes) {
  const items = boxes.map(({ label, x1, y1, x2, y2 }, at) =>
    el(
      "li",
      { class: `colour-${at % COLOURS}` },
      el("span", { class: "swatch", "aria-hidden": "true" }),
      el("span", {}, label),
      el("span", { class: "corners" }, `${x1}, ${y1} – ${x2}, ${y2}`),
    ),
  );
  return el("ol", { class: "boxes", "aria-label": "Boxes, corners in thousandths of the picture" }, ...items);
}
