// @ts-check
import { byId } from "./panel.mjs";
import { inAddress, prefer, preferred } from "./prefs.mjs";

/** @typedef {"log" | "demo"} Look */

/**
 * How the start page looks: `log` is the log alone, in the whole window; `demo` explains what is shown. A live feed
 * has the one and a feed that starts over for each viewer the other, unless the visitor or the address says otherwise.
 */
export class Layout {
  #root = document.documentElement;
  #main = /** @type {HTMLElement} */ (document.querySelector("main"));
  #title = byId("title", HTMLElement);
  #titleText = this.#title.textContent;
  #pageTitle = document.title;
  #feed = "";
  #settings = byId("settings", HTMLElement);
  #details = byId("details", HTMLElement);
  #drawer = byId("drawer", HTMLButtonElement);
  #switch = byId("view-switch", HTMLButtonElement);
  #nav = /** @type {HTMLElement} */ (document.querySelector(".top nav"));
  #footer = /** @type {HTMLElement} */ (document.querySelector("footer"));
  #asked;
  #live = false;

  /** @param {string | null} asked what the address says */
  constructor(asked) {
    this.#asked = look(asked);
    this.#drawer.addEventListener("click", () => this.#open(this.#root.dataset.drawer === undefined));
    this.#switch.addEventListener("click", () => {
      const next = this.look === "log" ? "demo" : "log";
      prefer(this.#live ? "view" : "demo-view", next);
      this.#asked = next;
      this.#show(next);
      inAddress("view", next, this.#usual);
      (next === "log" ? this.#drawer : this.#switch).focus();
    });
    this.#details.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.look !== "log") return;
      this.#open(false);
      this.#drawer.focus();
    });
  }

  /** @returns {Look | undefined} undefined: not decided */
  get look() {
    return look(this.#root.dataset.view ?? null);
  }

  /** @returns {Look} */
  get #usual() {
    return this.#live ? "log" : "demo";
  }

  /** Whether the address asks for the log alone. */
  get logAsked() {
    return this.#asked === "log";
  }

  /**
   * @param {string} kind the feed's, as `/info` has it
   * @param {string} feed
   */
  decide(kind, feed) {
    this.#live = kind === "live";
    this.#feed = feed;
    const chosen = this.#asked ?? look(preferred(this.#live ? "view" : "demo-view") ?? null) ?? this.#usual;
    this.#show(chosen);
    if (chosen !== this.#usual) inAddress("view", chosen, this.#usual);
  }

  /** @param {Look} now */
  #show(now) {
    delete this.#main.dataset.undecided;
    document.title = now === "log" ? `${this.#feed} · h3cast` : this.#pageTitle;
    this.#title.textContent = now === "log" ? `The ${this.#feed.includes(", ") ? "feeds" : "feed"} ${this.#feed}, live` : this.#titleText;
    const before = this.#root.dataset.view;
    if (before === now) return;
    const focused = document.activeElement;
    this.#root.dataset.view = now;
    const alone = now === "log";
    this.#switch.textContent = alone ? "Explain this page" : "Show the log alone";
    this.#drawer.hidden = !alone;
    for (const link of document.querySelectorAll(".mini")) /** @type {HTMLElement} */ (link).hidden = !alone;
    if (alone) {
      this.#details.prepend(this.#settings);
      this.#details.append(this.#nav, this.#footer);
    } else if (before === "log") {
      // Else they are in their places: what is moved loses the focus.
      byId("feed-row", HTMLElement).after(this.#settings);
      document.querySelector(".top")?.append(this.#nav);
      document.body.append(this.#footer);
    }
    if (focused instanceof HTMLElement && focused !== document.body) this.#keepFocus(focused);
  }

  /** What is moved or hidden loses the focus: it gets it back, or else the log does. @param {HTMLElement} focused */
  #keepFocus(focused) {
    if (focused.checkVisibility()) focused.focus({ preventScroll: true });
    else byId("log", HTMLElement).focus({ preventScroll: true });
  }

  /** @param {boolean} open */
  #open(open) {
    if (open) this.#root.dataset.drawer = "";
    else delete this.#root.dataset.drawer;
    this.#drawer.setAttribute("aria-expanded", String(open));
  }
}

/**
 * @param {string | null} text
 * @returns {Look | undefined}
 */
function look(text) {
  return text === "log" || text === "demo" ? text : undefined;
}
