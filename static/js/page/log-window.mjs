// @ts-check
import { row } from "./log-row.mjs";

/** @typedef {import("./sieve.mjs").Sieve} Sieve */

/** How many rows the log has at most, and how much text: the rest is in the store. */
export const MAX_ROWS = 300;
const MAX_TEXT = 400_000;
/** How many go at once while it follows: each time all others move, and are painted anew. */
const GOING = 40;
/** How many rows are made in one frame. */
const STEP = 100;
/** How near to an end of the list, in pixels, more rows are made there. */
const NEAR = 300;
/** What counts as the very end. */
const END = 24;
/** When a smooth scroll is over. What moves the view later is somebody's wish, as it comes without a key or a pointer too. */
const SETTLED_MS = 1000;

/** How often the visitor has touched anything. One count for all logs: a listener of its own would keep each for ever. */
let touches = 0;
for (const type of ["keydown", "pointerdown", "wheel", "touchstart"]) {
  document.addEventListener(type, () => (touches += 1), { capture: true, passive: true });
}

/**
 * The rows of a log: a window on what is kept. It follows what comes until the visitor looks at something else: scrolls
 * up, chooses a row, unfolds one. Scrolling to the end follows again, unless a row is chosen.
 */
export class LogWindow {
  #box;
  #store;
  #changed;
  #marked;
  /** The entries that have rows: from `#from`, before `#to`. */
  #from = 0;
  #to = 0;
  #text = 0;
  /** What the visitor wants, wherever the view happens to stand. */
  #following = true;
  /** Where the view was when this looked last: what is less is the visitor's scrolling up. */
  #at = 0;
  /** Where the view is held, while it is paused. @type {number | undefined} */
  #held;
  #moving = false;
  /** When the end was asked for, and how much the visitor had touched by then. */
  #returned = { at: -Infinity, touches: 0 };

  /**
   * @param {HTMLElement} box scrolls
   * @param {Sieve} store what is to be shown
   * @param {() => void} changed what is shown is not what was shown, by the visitor's own doing
   * @param {(id: number) => boolean} [marked] whether the visitor has marked a line
   */
  constructor(box, store, changed, marked = (/** @type {number} */ _id) => false) {
    this.#marked = marked;
    this.#box = box;
    this.#store = store;
    this.#changed = changed;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    box.addEventListener("toggle", ({ target }) => {
      if (target instanceof HTMLDetailsElement && target.open && target.dataset.came !== "open") this.#stop();
    }, { capture: true });
    box.addEventListener("focusin", ({ target }) => {
      if (target !== box) this.#stop();
    });
    new ResizeObserver(() => {
      if (this.#following) this.#toEnd();
    }).observe(box);
  }

  get following() {
    return this.#following && this.#held === undefined;
  }

  get paused() {
    return this.#held !== undefined;
  }

  /** How many entries came that the view does not show yet. */
  get waiting() {
    return this.#store.end - Math.max(this.#to, this.#store.first);
  }

  get rows() {
    return this.#box.childElementCount;
  }

  /** The entry nearest to the top of what is seen. */
  get top() {
    const { top } = this.#box.getBoundingClientRect();
    for (const element of this.#box.children) {
      if (element.getBoundingClientRect().bottom > top) return Number(/** @type {HTMLElement} */ (element).dataset.index);
    }
    return this.#to;
  }

  /** The same by its place in the store. */
  get topId() {
    const id = this.#row(this.top)?.dataset.id;
    return id === undefined ? undefined : Number(id);
  }

  clear() {
    this.#box.replaceChildren();
    this.#from = this.#to = this.#store.end;
    this.#text = 0;
    this.#following = true;
    this.#held = undefined;
  }

  /** What is to be shown is numbered anew: its end, or what stood in sight. @param {number} [id] that in the store */
  reset(id) {
    this.#held = undefined;
    this.#restart(this.#store.first);
    this.#following = id === undefined;
    if (id !== undefined) this.show(this.#store.at(id));
  }

  /** @param {boolean} on */
  pause(on) {
    this.#held = on ? this.#store.end : undefined;
    if (!on) this.#scrolled();
  }

  /** To the oldest that is kept. */
  oldest() {
    this.show(this.#store.first);
  }

  /** Back to what comes. */
  jump() {
    this.#held = undefined;
    this.#following = true;
    this.#returned = { at: performance.now(), touches };
    this.draw();
    // Also where nothing new came.
    this.#toEnd();
  }

  /**
   * Shows what came, if the view follows it: a burst over some frames, a flood by its end.
   * @returns {boolean} whether there is more to show
   */
  draw() {
    const end = this.#limit;
    if (!this.#following || this.#to >= end) return false;
    if (end - this.#to > MAX_ROWS) this.#restart(end - STEP);
    // Asked before rows are added: the layout is still valid then.
    const most = Math.min(MAX_ROWS, this.#to - this.#from - this.#above + Math.min(end - this.#to, STEP));
    this.#append(Math.min(end, this.#to + STEP));
    while (this.rows > most || (this.#text > MAX_TEXT && this.rows > 1)) this.#removeFirst();
    this.#toEnd();
    return this.#to < end;
  }

  /**
   * How many rows can go, that are far above what is seen: each that stays is laid out and painted with those that come.
   * What a page up shows at once stays.
   */
  get #above() {
    if (this.rows < GOING) return 0;
    const box = this.#box;
    const room = box.scrollTop - Math.max(box.clientHeight / 2, 2 * NEAR);
    const top = this.#offset(0);
    let rows = 0;
    while (rows < this.rows && this.#offset(rows + 1) - top <= room) rows += 1;
    return rows < GOING ? 0 : rows;
  }

  /** @param {number} place of a row in the list */
  #offset(place) {
    const row = this.#box.children[place];
    return row instanceof HTMLElement ? row.offsetTop : Infinity;
  }

  #toEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#at = this.#box.scrollTop;
  }

  #stop() {
    if (!this.#following) return;
    this.#following = false;
    this.#changed();
  }

  /**
   * Brings an entry into sight.
   * @param {number} index
   * @returns {HTMLElement | undefined} its row
   */
  show(index) {
    this.#following = false;
    // What was found is shown, also behind the place where the view was held.
    if (this.#held !== undefined && index >= this.#held) this.#held = index + 1;
    if (index < this.#from || index >= this.#to) {
      this.#restart(Math.max(this.#store.first, index - STEP / 2));
      this.#append(Math.min(this.#limit, this.#from + STEP));
    }
    const element = this.#row(index);
    element?.scrollIntoView({ block: "nearest" });
    return element;
  }

  /**
   * The row next to another, also where it has yet to be made.
   * @param {HTMLElement} row
   * @param {1 | -1} step
   * @returns {HTMLElement | undefined}
   */
  beside(row, step) {
    const index = Number(row.dataset.index) + step;
    if (index === this.#to && this.#to < this.#limit) this.#newer();
    if (index < this.#from && this.#from > this.#store.first) this.#older();
    return this.#row(index);
  }

  /** @param {number} index */
  #row(index) {
    const element = this.#box.children[index - this.#from];
    return element instanceof HTMLElement ? element : undefined;
  }

  /** Where the view ends: what had come when the pause began is still shown. */
  get #limit() {
    return this.#held ?? this.#store.end;
  }

  /** @param {number} from */
  #restart(from) {
    this.#box.replaceChildren();
    this.#text = 0;
    this.#from = this.#to = Math.max(from, this.#store.first);
  }

  /** @param {number} end */
  #append(end) {
    const rows = [];
    for (; this.#to < end; this.#to += 1) {
      const element = this.#make(this.#to);
      if (element !== undefined) rows.push(element);
    }
    this.#box.append(...rows);
  }

  /** @param {number} index */
  #make(index) {
    const entry = this.#store.entry(index);
    if (entry === undefined) return undefined;
    this.#text += entry.text.length;
    const element = row(entry, this.#box.closest(".reads")?.hasAttribute("data-no-folded"));
    if (this.#marked(entry.id)) element.classList.add("marked");
    return element;
  }

  #removeFirst() {
    this.#forget(this.#box.firstElementChild);
    this.#from += 1;
  }

  #removeLast() {
    this.#forget(this.#box.lastElementChild);
    this.#to -= 1;
  }

  /** @param {Element | null} element */
  #forget(element) {
    if (!(element instanceof HTMLElement)) return;
    this.#text -= element.dataset.text?.length ?? 0;
    // The keyboard's place must not be lost with its row.
    if (element.contains(document.activeElement)) this.#box.focus({ preventScroll: true });
    element.remove();
  }

  #scrolled() {
    if (this.#moving) return;
    const box = this.#box;
    const below = box.scrollHeight - box.scrollTop - box.clientHeight;
    const moved = box.scrollTop - this.#at;
    const atEnd = below < END && this.#to >= this.#limit;
    this.#at = box.scrollTop;
    const before = [this.#from, this.#to, this.#following].join();
    // A browser moves the view up as well, where it got higher: then the end stays in sight.
    if (moved < 0 && below > 1) {
      // A smooth scroll that began before the end was asked for must not lead away from it.
      const { at, touches: then } = this.#returned;
      if (this.#following && then === touches && performance.now() - at < SETTLED_MS) return this.#toEnd();
      this.#following = false;
    }
    if (box.scrollTop < NEAR && this.#from > this.#store.first) this.#older();
    else if (below < NEAR && this.#to < this.#limit && !this.#following) this.#newer();
    const chosen = document.activeElement !== box && box.contains(document.activeElement);
    if (atEnd && moved > 0 && !chosen) this.#following = true;
    if (before !== [this.#from, this.#to, this.#following].join()) this.#changed();
  }

  #older() {
    this.#keepPlace(() => {
      const rows = [];
      const from = Math.max(this.#store.first, this.#from - STEP);
      for (let index = this.#from - 1; index >= from; index -= 1) {
        const element = this.#make(index);
        if (element === undefined) break;
        rows.unshift(element);
        this.#from = index;
      }
      this.#box.prepend(...rows);
      while (this.rows > MAX_ROWS || (this.#text > MAX_TEXT && this.rows > STEP)) this.#removeLast();
    });
  }

  #newer() {
    // What comes next is no longer kept: then with the oldest that is.
    if (this.#to < this.#store.first) {
      // Held, there is nothing that comes next.
      if (this.#store.first >= this.#limit) return;
      this.#restart(this.#store.first);
    }
    this.#keepPlace(() => {
      this.#append(Math.min(this.#limit, this.#to + STEP));
      while (this.rows > MAX_ROWS || (this.#text > MAX_TEXT && this.rows > STEP)) this.#removeFirst();
    });
  }

  /**
   * Changes rows outside of what is seen, without moving it.
   * @param {() => void} change
   */
  #keepPlace(change) {
    const box = this.#box;
    const anchor = this.#row(this.top);
    const before = anchor?.offsetTop ?? 0;
    this.#moving = true;
    change();
    if (anchor?.isConnected) box.scrollTop += anchor.offsetTop - before;
    this.#at = box.scrollTop;
    this.#moving = false;
  }
}
