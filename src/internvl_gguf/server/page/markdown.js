/**
 * Markdown to elements, for text that nobody vouches for.
 *
 * Elements are made by name and text enters as text nodes, never as markup, so HTML in an answer stays text. Links lead
 * to http and https alone, and a picture becomes a link: an answer can make the browser fetch nothing.
 *
 * The Markdown is what models write: CommonMark's blocks and spans and the tables and ~~strikes~~ of GitHub. Other than
 * in CommonMark, a line end is a line break, whatever is indented below an item belongs to it, and indented code is
 * plain text.
 */

import { renderSpans } from "./markdown_spans.js";
import { copyText, el } from "./dom.js";

/** Quotes and lists within each other beyond this are plain text, so that no text can exhaust the stack. */
const DEEPEST = 12;

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const UNDERLINE = /^ {0,3}(=+|-+)[ \t]*$/;
const DELIMITERS = /^[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)*[ \t]*:?-+:?[ \t]*\|?[ \t]*$/;

/**
 * @typedef {{kind: "code" | "heading" | "rule" | "quote" | "list" | "table" | "paragraph", lines: string[]}} Block
 */

/** An answer as it grows: blocks that did not change keep their elements, so only the last one is made again. */
export class MarkdownView {
  /** @param {HTMLElement} place what the blocks are put into */
  constructor(place) {
    this.place = place;
    /** @type {{source: string, element: HTMLElement}[]} */
    this.shown = [];
  }

  /** @param {string} text the whole answer so far */
  update(text) {
    const blocks = blocksOf(linesOf(text));
    let same = 0;
    while (same < this.shown.length && same < blocks.length && this.shown[same].source === sourceOf(blocks[same])) same++;
    for (const { element } of this.shown.splice(same)) element.remove();
    for (const block of blocks.slice(same)) {
      const element = renderBlock(block, 0);
      this.place.append(element);
      this.shown.push({ source: sourceOf(block), element });
    }
  }
}

/**
 * Put the elements of a text into `place`.
 *
 * @param {string} text
 * @param {HTMLElement} place
 */
export function renderMarkdown(text, place) {
  new MarkdownView(place).update(text);
}

/** @param {string} text */
function linesOf(text) {
  return text.split(/\r\n|\r|\n/).map((line) => line.replaceAll("\t", "    "));
}

/** @param {Block} block */
function sourceOf(block) {
  return `${block.kind}\n${block.lines.join("\n")}`;
}

/**
 * @param {string[]} lines
 * @returns {Block[]}
 */
function blocksOf(lines) {
  /** @type {Block[]} */
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const [kind, end] = blockAt(lines, at);
    blocks.push({ kind, lines: lines.slice(at, end) });
    at = end;
  }
  return blocks;
}

/**
 * The kind of the block that begins at a line, and the line after it.
 *
 * @param {string[]} lines
 * @param {number} at
 * @returns {[Block["kind"], number]}
 */
function blockAt(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return ["code", endOfFence(lines, at, fence[1])];
  if (HEADING.test(line)) return ["heading", at + 1];
  if (RULE.test(line)) return ["rule", at + 1];
  if (QUOTE.test(line)) return ["quote", endOfQuote(lines, at)];
  const item = ITEM.exec(line);
  if (item) return ["list", endOfList(lines, at, item[1].length, isNumber(item[2]))];
  if (beginsTable(lines, at)) return ["table", endOfTable(lines, at)];
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !interrupts(lines, end)) {
    if (UNDERLINE.test(lines[end])) return ["heading", end + 1];
    end++;
  }
  return ["paragraph", end];
}

/**
 * Whether a line ends a paragraph before it. `---` does not: it makes a heading of it.
 *
 * @param {string[]} lines
 * @param {number} at
 */
function interrupts(lines, at) {
  const line = lines[at];
  if (UNDERLINE.test(line)) return false;
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((start) => start.test(line)) || beginsTable(lines, at);
}

/** @param {string[]} lines @param {number} at @param {string} fence */
function endOfFence(lines, at, fence) {
  for (let end = at + 1; end < lines.length; end++) {
    const closing = lines[end].trim();
    if (closing.length >= fence.length && closing === fence[0].repeat(closing.length)) return end + 1;
  }
  return lines.length;
}

/** @param {string[]} lines @param {number} at */
function endOfQuote(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && (QUOTE.test(lines[end]) || !interrupts(lines, end))) end++;
  return end;
}

/** @param {string[]} lines @param {number} at @param {number} indent of the marker @param {boolean} numbered */
function endOfList(lines, at, indent, numbered) {
  let end = at + 1;
  for (let next = end; next < lines.length; next++) {
    if (!lines[next].trim()) continue;
    const inside = indentOf(lines[next]) > indent;
    const item = ITEM.exec(lines[next]);
    const sibling = item && !RULE.test(lines[next]) && isNumber(item[2]) === numbered;
    const lazy = next === end && !interrupts(lines, next) && !UNDERLINE.test(lines[next]);
    if (!inside && !sibling && !lazy) break;
    end = next + 1;
  }
  return end;
}

/** @param {string[]} lines @param {number} at */
function beginsTable(lines, at) {
  const next = lines[at + 1];
  if (next === undefined || !lines[at].includes("|") || !next.includes("-") || !DELIMITERS.test(next)) return false;
  return cellsOf(lines[at]).length === cellsOf(next).length;
}

/** @param {string[]} lines @param {number} at */
function endOfTable(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && !FENCE.test(lines[end])) end++;
  return end;
}

/** @param {string} line */
function indentOf(line) {
  return line.length - line.trimStart().length;
}

/** @param {string} marker */
function isNumber(marker) {
  return marker.length > 1;
}

/**
 * @param {Block} block
 * @param {number} depth of quotes and lists around it
 * @returns {HTMLElement}
 */
function renderBlock({ kind, lines }, depth) {
  if (kind === "code") return renderCode(lines);
  if (kind === "heading") return renderHeading(lines);
  if (kind === "rule") return el("hr");
  if (kind === "table") return renderTable(lines);
  if (kind === "quote" && depth < DEEPEST) {
    const inner = lines.map((line) => line.replace(QUOTE, ""));
    return el("blockquote", {}, ...blocksOf(inner).map((block) => renderBlock(block, depth + 1)));
  }
  if (kind === "list" && depth < DEEPEST) return renderList(lines, depth);
  return el("p", {}, renderSpans(lines.map((line) => line.trimStart()).join("\n")));
}

/** @param {string[]} lines with the fence's */
function renderCode(lines) {
  const [, fence, info] = /** @type {RegExpExecArray} */ (FENCE.exec(lines[0]));
  const closed = lines.length > 1 && lines.at(-1)?.trim().startsWith(fence);
  const indent = indentOf(lines[0]);
  const body = lines.slice(1, closed ? -1 : undefined).map((line) => line.slice(Math.min(indent, indentOf(line))));
  const code = body.join("\n");
  const copy = el("button", { type: "button", class: "copy", onclick: () => copyText(code, copy) }, "Copy");
  const head = el("div", { class: "code-head" }, el("span", {}, info.trim().split(/\s/)[0] || "text"), copy);
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0" }, el("code", {}, code)));
}

/** @param {string[]} lines */
function renderHeading(lines) {
  const marked = HEADING.exec(lines[0]);
  const level = marked ? marked[1].length : lines.at(-1)?.includes("=") ? 1 : 2;
  const text = marked ? (marked[2] ?? "") : lines.slice(0, -1).join("\n");
  // The page has headings of its own: those of an answer begin below them.
  const name = /** @type {"h3"} */ (`h${Math.min(level + 2, 6)}`);
  return el(name, { class: `level-${level}` }, renderSpans(text.trim()));
}

/** @param {string[]} lines @param {number} depth */
function renderList(lines, depth) {
  const first = /** @type {RegExpExecArray} */ (ITEM.exec(lines[0]));
  const indent = first[1].length;
  /** @type {string[][]} */
  const items = [];
  let fenced = false;
  for (const line of lines) {
    const item = fenced ? null : ITEM.exec(line);
    if (item && item[1].length <= indent) items.push([line.slice(item[0].length)]);
    else items[items.length - 1].push(line);
    if (FENCE.test(line.trim())) fenced = !fenced;
  }
  const loose = items.some((item) => item.some((line, at) => !line.trim() && item[at + 1]?.trim() && !ITEM.test(item[at + 1])));
  const start = parseInt(first[2], 10);
  const numbered = isNumber(first[2]);
  const children = items.map((item) => renderItem(item, loose, depth));
  return numbered ? el("ol", { start: start === 1 ? null : start }, ...children) : el("ul", {}, ...children);
}

/** @param {string[]} lines the first without its marker @param {boolean} loose @param {number} depth */
function renderItem([first, ...others], loose, depth) {
  const shallowest = Math.min(...others.filter((line) => line.trim()).map(indentOf));
  const dedented = others.map((line) => line.slice(Math.min(shallowest, indentOf(line))));
  const task = /^\[([ xX])\] /.exec(first);
  const blocks = blocksOf([task ? first.slice(task[0].length) : first, ...dedented]);
  const item = el("li", { class: task && "task" });
  if (task) item.append(el("input", { type: "checkbox", disabled: true, checked: task[1] !== " " }));
  for (const block of blocks) {
    const element = renderBlock(block, depth + 1);
    if (block.kind === "paragraph" && !loose) item.append(...element.childNodes);
    else item.append(element);
  }
  return item;
}

/** @param {string[]} lines */
function renderTable([head, delimiters, ...rows]) {
  const sides = cellsOf(delimiters).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "middle" : "right";
    return null;
  });
  /** @param {string} line @param {"th" | "td"} name */
  const row = (line, name) => {
    const cells = cellsOf(line);
    return el("tr", {}, ...sides.map((side, at) => el(name, { class: side }, renderSpans(cells[at] ?? ""))));
  };
  const body = el("tbody", {}, ...rows.map((line) => row(line, "td")));
  return el("div", { class: "table", tabindex: "0" }, el("table", {}, el("thead", {}, row(head, "th")), body));
}

/** @param {string} line */
function cellsOf(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}
