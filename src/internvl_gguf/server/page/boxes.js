/**
 * Boxes that an answer names: `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>` as InternVL was taught, or untagged as
 * `label[[x1, y1, x2, y2], ...]`, in thousandths of the whole picture.
 */

import { el, svg } from "./dom.js";

/** @typedef {{label: string, x1: number, y1: number, x2: number, y2: number}} Box in thousandths, the first corner top left */

/** Colours that follow each other; page.css has as many. */
const COLOURS = 6;

const CODE = /```[\s\S]*?(?:```|$)|`[^`\n]+`/;
const MARKED = /(?:<ref>([^<\n]*)<\/ref>\s*)?(?:<box>\s*)?(\[\[\s*[-\d][-\d\s,[\]]*?(?:\]\s*\]|(?=<\/box>)|$))(?:\s*<\/box>)?/;
const PIECES = new RegExp(`(${CODE.source})|${MARKED.source}`, "g");
const CORNERS = /\[\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*\]/g;
/** Tags that stand alone, and the beginning of one at the end of what has come so far. */
const STRAY = /<\/?(?:ref|box)>|<\/?(?:r|re|ref|b|bo|box)?$|\[\[[-\d\s,[\]]*$/g;

/**
 * Read the boxes of an answer, also of one that is cut off: a last box without all its numbers is left out.
 *
 * @param {string} text
 * @returns {{text: string, boxes: Box[]}} the text to show, without coordinates, and the boxes
 */
export function readBoxes(text) {
  /** @type {Box[]} */
  const boxes = [];
  let shown = "";
  let last = 0;
  for (const found of text.matchAll(PIECES)) {
    const [whole, code, name, corners] = found;
    shown += text.slice(last, found.index).replace(STRAY, "");
    last = found.index + whole.length;
    const label = name?.trim() || labelBefore(shown);
    const read = code ? [] : boxesOf(corners, label);
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
  const phrase = text.split(/[\n,;:!?()]|\.\s/).at(-1) ?? "";
  return phrase.replace(/^[\s\d.*_#>-]+|[\s*_]+$/g, "") || "box";
}

/**
 * A drawing of boxes to lie over a picture, in its colours.
 *
 * @param {Box[]} boxes
 */
export function boxesOverlay(boxes) {
  const marks = boxes.map((box, at) => {
    const right = box.x1 > 600;
    const low = box.y1 < 60;
    return svg(
      "g",
      { class: `box colour-${at % COLOURS}` },
      svg("rect", { class: "halo", ...frame(box) }),
      svg("rect", frame(box)),
      svg(
        "text",
        {
          x: `${(right ? box.x2 : box.x1) / 10}%`,
          y: `${box.y1 / 10}%`,
          dx: right ? -6 : 6,
          dy: low ? 17 : -7,
          "text-anchor": right ? "end" : "start",
        },
        box.label,
      ),
    );
  });
  return svg("svg", { class: "overlay", "aria-hidden": "true" }, ...marks);
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
