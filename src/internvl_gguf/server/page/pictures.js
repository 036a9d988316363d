/** Pictures: from files to what is sent, and their views with the tiles they are cut into. */

import { counted, el, newId, number, svg } from "./dom.js";

/**
 * @typedef {import("./api.js").PictureCost} PictureCost
 * @typedef {{id: string, name: string, type: string, blob: Blob, cost?: PictureCost, error?: string}} Picture
 */

/** Bytes of a picture at most. */
export const LARGEST = 20 * 1024 * 1024;

/** Types by the ending of the name, for files that come without one: browsers do not know all that the server reads. */
const TYPES = {
  avif: "image/avif", bmp: "image/bmp", gif: "image/gif", heic: "image/heic", heif: "image/heif", jp2: "image/jp2",
  jpeg: "image/jpeg", jpg: "image/jpeg", png: "image/png", tif: "image/tiff", tiff: "image/tiff", webp: "image/webp",
};

/** For the file dialog. */
export const ACCEPTED = ["image/*", ...Object.keys(TYPES).map((ending) => `.${ending}`)].join(",");

/** @type {WeakMap<Blob, string>} */
const addresses = new WeakMap();

/**
 * Sort files into pictures and lines that say why others are none.
 *
 * @param {Iterable<File>} files
 * @returns {{pictures: Picture[], refused: string[]}}
 */
export function picturesOf(files) {
  /** @type {Picture[]} */
  const pictures = [];
  const refused = [];
  for (const file of files) {
    const type = file.type || typeByName(file.name);
    if (!type.startsWith("image/")) refused.push(`${file.name} is not a picture. Add a PNG, JPEG, WebP, GIF, AVIF or TIFF.`);
    else if (file.size > LARGEST) {
      // Rounded up, so that no size above the bound reads as the bound.
      const size = (Math.ceil((file.size * 10) / 1024 / 1024) / 10).toFixed(1);
      refused.push(`${file.name} has ${size} MiB. A picture can have 20 MiB: make it smaller and add it again.`);
    } else pictures.push({ id: newId(), name: file.name || "Pasted picture", type, blob: file });
  }
  return { pictures, refused };
}

/** @param {string} name */
function typeByName(name) {
  const ending = name.toLowerCase().split(".").at(-1) ?? "";
  return TYPES[/** @type {keyof typeof TYPES} */ (ending)] ?? "";
}

/**
 * The bytes as they are, as a data URI: made again smaller, the model would not see what it was trained on.
 *
 * @param {Picture} picture
 * @returns {Promise<string>}
 */
export function dataUri({ blob, type }) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error("The browser cannot read the picture any more. Remove it and add it again."));
    reader.readAsDataURL(blob.type === type ? blob : new Blob([blob], { type }));
  });
}

/**
 * A picture with something drawn over it, or a placeholder with its type where the browser cannot show it.
 *
 * @param {Picture} picture
 * @param {...(Element | null | undefined)} overlays
 * @returns {HTMLElement}
 */
export function pictureView(picture, ...overlays) {
  const image = el("img", { src: addressOf(picture.blob), alt: picture.name, decoding: "async", draggable: "false" });
  const frame = el("span", { class: "frame" }, image, ...overlays);
  image.addEventListener("error", () => {
    const kind = (picture.name.includes(".") ? picture.name : picture.type).split(/[./]/).at(-1)?.toUpperCase();
    const note = el("span", { class: "placeholder" }, kind, el("small", {}, "no preview"));
    image.replaceWith(note);
  });
  return frame;
}

/** @param {Blob} blob */
function addressOf(blob) {
  const known = addresses.get(blob);
  if (known) return known;
  const made = URL.createObjectURL(blob);
  addresses.set(blob, made);
  return made;
}

/**
 * Let the browser forget a picture that is shown no more.
 *
 * @param {Picture} picture
 */
export function forget({ blob }) {
  const address = addresses.get(blob);
  if (address) URL.revokeObjectURL(address);
  addresses.delete(blob);
}

/**
 * The lines between the tiles of a picture, to lie over it; null where it is one tile. Tiles are parts of the stretched
 * picture, so on the picture itself they are equal parts of its sides.
 *
 * @param {PictureCost | undefined} cost
 */
export function gridOverlay(cost) {
  if (!cost || cost.grid[0] * cost.grid[1] <= 1) return null;
  const [columns, rows] = cost.grid;
  const upright = Array.from({ length: columns - 1 }, (_, at) => `M${at + 1} 0V${rows}`);
  const level = Array.from({ length: rows - 1 }, (_, at) => `M0 ${at + 1}H${columns}`);
  const d = [...upright, ...level].join("");
  const box = { class: "overlay grid", viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", box, svg("path", { class: "halo", d }), svg("path", { d }));
}

/**
 * What a picture takes, as "13 tiles, 3,328 tokens".
 *
 * @param {PictureCost} cost
 */
export function costLine(cost) {
  return `${counted(cost.tiles, "tile")}, ${counted(cost.tokens, "token")}`;
}

/**
 * How a picture is cut, in a sentence.
 *
 * @param {PictureCost} cost
 */
export function gridLine({ width, height, grid: [columns, rows], thumbnail }) {
  const size = `${number(width)} × ${number(height)} pixels`;
  const tiles = columns * rows === 1 ? "one tile" : `${columns} × ${rows} tiles`;
  return `${size}, seen in ${tiles}${thumbnail ? " and as a whole" : ""}`;
}
