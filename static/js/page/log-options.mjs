// @ts-check
import { byId } from "./panel.mjs";
import { prefer, preferred } from "./prefs.mjs";
import { closeable } from "./several-menu.mjs";

/** What a log shows of each line unless the visitor says otherwise. */
const USUAL = { wrap: true, number: true, time: true, interval: true, levels: true, folded: true, letters: true };

/** How logs look: the menu, what it changes, and what is remembered of it. */
export class LogOptions {
  #reads = byId("reads", HTMLElement);
  #size = byId("log-size", HTMLSelectElement);
  #context = byId("log-context", HTMLSelectElement);
  #full = byId("full-screen", HTMLButtonElement);
  /** The lines around what is filtered are wanted, or no longer. */
  onContext = () => {};
  /** JSON is folded, or no longer. */
  onFolded = () => {};

  constructor() {
    for (const [name, usual] of Object.entries(USUAL)) {
      const box = byId(`log-${name}`, HTMLInputElement);
      const chosen = preferred(name);
      box.checked = chosen === undefined ? usual : chosen === "on";
      const show = () => {
        this.#reads.toggleAttribute(`data-no-${name}`, !box.checked);
        if (name === "letters") this.#announce(box.checked);
      };
      box.addEventListener("change", () => {
        prefer(name, box.checked ? "on" : "off");
        show();
        if (name === "folded") this.onFolded();
      });
      show();
    }
    for (const [name, select] of /** @type {const} */ ([["size", this.#size], ["context", this.#context]])) {
      const chosen = preferred(name);
      if ([...select.options].some(({ value }) => value === chosen)) select.value = chosen ?? select.value;
      select.addEventListener("change", () => {
        prefer(name, select.value);
        if (name === "context") this.onContext();
        else this.#reads.dataset.size = select.value;
      });
    }
    this.#reads.dataset.size = this.#size.value;
    closeable(byId("log-menu", HTMLDetailsElement));
    this.#full.hidden = !document.fullscreenEnabled;
    this.#full.addEventListener("click", () => this.fullScreen());
    document.addEventListener("fullscreenchange", () => this.#full.setAttribute("aria-pressed", String(document.fullscreenElement !== null)));
  }

  /** Says the keys of the two fields, which screen readers read out, unless they are off. @param {boolean} letters */
  #announce(letters) {
    for (const [id, key] of /** @type {const} */ ([["filter", "f"], ["find", "/"]])) {
      const field = byId(id, HTMLInputElement);
      if (letters) field.setAttribute("aria-keyshortcuts", key);
      else field.removeAttribute("aria-keyshortcuts");
    }
  }

  get context() {
    return Number(this.#context.value);
  }

  /** Into full screen, or out of it. */
  fullScreen() {
    const done = document.fullscreenElement === null ? document.documentElement.requestFullscreen() : document.exitFullscreen();
    // A browser may refuse: then nothing changes.
    done.catch(() => {});
  }

  /** @param {"wrap" | "time" | "number" | "interval"} name */
  toggle(name) {
    byId(`log-${name}`, HTMLInputElement).click();
  }
}
