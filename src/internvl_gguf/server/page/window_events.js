/** What concerns the whole window: files dropped or pasted anywhere, the side bar, scrolling with an answer, Esc. */

import { byId, icon } from "./dom.js";

/** Where the side bar lies over the page instead of beside it; as in page.css. */
const NARROW = matchMedia("(max-width: 767px)");

/** Pixels from the end within which the page follows a growing answer. */
const NEAR = 60;

/** @param {(files: FileList) => void} add */
export function setUpFiles(add) {
  const drop = byId("drop", HTMLElement);
  /** @param {DragEvent} event */
  const hasFiles = (event) => Boolean(event.dataTransfer?.types.includes("Files")) && !isDialogOpen();
  addEventListener("dragenter", (event) => (drop.hidden = !hasFiles(event)));
  addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.hidden = true;
  });
  addEventListener("drop", (event) => {
    drop.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    add(/** @type {DataTransfer} */ (event.dataTransfer).files);
  });
  addEventListener("paste", (event) => {
    const data = event.clipboardData;
    // Text programs put a picture of the text beside it: the text is meant.
    if (!data?.files.length || data.types.includes("text/plain") || isDialogOpen()) return;
    event.preventDefault();
    add(data.files);
  });
}

/**
 * Keep the end in view while it grows, unless the reader has scrolled away from it.
 *
 * @returns {() => void} go to the end
 */
export function setUpScrolling() {
  const scroll = byId("scroll", HTMLElement);
  const latest = byId("latest", HTMLElement);
  let follows = true;
  let top = 0;
  const toEnd = () => {
    follows = true;
    scroll.scrollTop = scroll.scrollHeight;
    // A composer that lost its pictures leaves less to scroll: that move up is not the reader's.
    top = scroll.scrollTop;
  };
  const isNear = () => scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
  scroll.addEventListener("scroll", () => {
    // Only a move up leaves the end: while an answer grows, a move to the end may end short of it.
    follows = isNear() || (follows && scroll.scrollTop >= top);
    top = scroll.scrollTop;
    latest.hidden = follows;
  });
  const growing = new ResizeObserver(() => {
    if (follows) toEnd();
    latest.hidden = follows || isNear();
  });
  growing.observe(byId("thread", HTMLElement));
  growing.observe(scroll);
  latest.onclick = toEnd;
  return toEnd;
}

/** @returns {() => void} close the side bar where it lies over the page */
export function setUpSidebar() {
  const menu = byId("menu", HTMLElement);
  const sidebar = byId("sidebar", HTMLElement);
  const main = /** @type {HTMLElement} */ (document.querySelector("main"));
  const backdrop = byId("backdrop", HTMLElement);
  menu.append(icon("menu"));
  let isOpen = !NARROW.matches;
  const show = () => {
    document.body.classList.toggle("sidebar-closed", !isOpen);
    sidebar.inert = !isOpen;
    main.inert = isOpen && NARROW.matches;
    backdrop.hidden = !main.inert;
    menu.setAttribute("aria-expanded", String(isOpen));
  };
  const close = () => {
    if (!NARROW.matches || !isOpen) return;
    isOpen = false;
    show();
    menu.focus();
  };
  menu.onclick = () => {
    isOpen = !isOpen;
    show();
    if (main.inert) byId("new", HTMLElement).focus();
  };
  backdrop.onclick = close;
  sidebar.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  NARROW.addEventListener("change", () => {
    isOpen = !NARROW.matches;
    show();
  });
  show();
  return close;
}

/** @param {() => void} stop */
export function setUpEscape(stop) {
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented && !isDialogOpen()) stop();
  });
}

function isDialogOpen() {
  return document.querySelector("dialog[open]") !== null;
}
