// @ts-check
import { count } from "../client/format.mjs";
import { strip } from "./ansi.mjs";
import { byId, write } from "./panel.mjs";
import { Search } from "./search.mjs";

/** How long is searched in one frame. */
const BUDGET_MS = 6;
/** How many places are marked at most. */
const MAX_MARKED = 2000;

/** The search field over the log, and the marks in it. */
export class Finder {
  #schedule;
  #input = byId("find", HTMLInputElement);
  #found = byId("found", HTMLElement);
  #older = byId("find-older", HTMLButtonElement);
  #newer = byId("find-newer", HTMLButtonElement);
  #said = byId("find-said", HTMLElement);
  #view;
  #search;

  /**
   * @param {import("./log-view.mjs").LogView} view what is searched
   * @param {HTMLElement} reads has the logs
   * @param {() => void} schedule asks for `draw` at the next frame
   */
  constructor(view, reads, schedule) {
    this.#view = view;
    this.#schedule = schedule;
    this.#search = new Search(view.sieve);
    this.#input.addEventListener("input", () => {
      this.#search.ask(this.#input.value);
      this.#said.textContent = "";
      schedule();
    });
    this.#input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        this.#go(event.shiftKey ? 1 : -1);
      } else if (event.key === "Escape" && this.#input.value !== "") {
        event.preventDefault();
        this.#input.value = "";
        this.#input.dispatchEvent(new Event("input"));
      }
    });
    this.#older.addEventListener("click", () => this.#go(-1));
    this.#newer.addEventListener("click", () => this.#go(1));
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof Element && event.target.closest("input, select, textarea, [contenteditable]");
      if (event.key !== "/" || typing || reads.hasAttribute("data-no-letters") || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.#input.focus();
      this.#input.select();
    });
  }

  clear() {
    this.#search.ask(this.#input.value);
  }

  /** Searches another log. @param {import("./log-view.mjs").LogView} view */
  turnTo(view) {
    if (view === this.#view) return;
    for (const element of this.#view.box.querySelectorAll(".current")) element.classList.remove("current");
    this.#view = view;
    this.#search = new Search(view.sieve);
    this.clear();
  }

  /** @param {1 | -1} step */
  #go(step) {
    this.#search.work(Infinity, () => 0);
    const index = this.#search.go(step, step === -1 ? this.#view.window.top + this.#view.window.rows : this.#view.window.top);
    if (index !== undefined) {
      const element = this.#view.window.show(index);
      const details = element?.querySelector("details");
      // What was found may be in what is cut off of the one line.
      if (details) details.open = true;
      this.#said.textContent = `${this.#words()}: ${strip((element?.dataset.text ?? "").slice(0, 400)).slice(0, 200)}`;
    } else {
      this.#said.textContent = this.#words();
    }
    this.#schedule();
  }

  /** Goes on searching, and shows what was found. */
  draw() {
    const search = this.#search;
    search.work(BUDGET_MS, () => performance.now());
    if (search.due) this.#schedule();
    const none = search.query === "" || search.count === 0;
    this.#older.disabled = this.#newer.disabled = none;
    write(this.#found, this.#words());
    for (const element of this.#view.box.querySelectorAll(".current")) element.classList.remove("current");
    if (search.current !== undefined) {
      this.#view.box.querySelector(`[data-index="${search.current}"]`)?.classList.add("current");
    }
    this.#mark(search.query);
  }

  #words() {
    const { query, count: found, place } = this.#search;
    if (query === "") return "";
    if (found === 0) return "no match";
    return place === 0 ? `${count(found)} found` : `${count(place)} of ${count(found)}`;
  }

  /** @param {string} query */
  #mark(query) {
    // Marks without touching the rows; a browser that has none still counts and goes there.
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("found");
    if (query === "") return;
    const ranges = [];
    for (const element of this.#view.box.querySelectorAll(".chunk .text")) {
      ranges.push(...places(element, query));
      if (ranges.length > MAX_MARKED) break;
    }
    if (ranges.length > 0) CSS.highlights.set("found", new Highlight(...ranges));
  }
}

/**
 * Where a text stands in an element, over the borders of its spans.
 * @param {Element} element
 * @param {string} query in lower case
 */
function places(element, query) {
  const text = (element.textContent ?? "").toLowerCase();
  let at = text.indexOf(query);
  if (at === -1) return [];
  const ranges = [];
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let node = nodes.nextNode();
  let before = 0;
  /** @param {number} offset */
  const seek = (offset) => {
    while (node !== null && before + (node.nodeValue?.length ?? 0) < offset) {
      before += node.nodeValue?.length ?? 0;
      node = nodes.nextNode();
    }
    return node === null ? undefined : { node, offset: offset - before };
  };
  for (; at !== -1; at = text.indexOf(query, at + query.length)) {
    const [start, end] = [seek(at), seek(at + query.length)];
    if (start === undefined || end === undefined || end.offset > (end.node.nodeValue?.length ?? 0)) break;
    const range = new Range();
    range.setStart(start.node, start.offset);
    range.setEnd(end.node, end.offset);
    ranges.push(range);
  }
  return ranges;
}
