// @ts-check
import { plural } from "../client/format.mjs";
import { byId } from "./panel.mjs";
import { prefer, preferred } from "./prefs.mjs";

/** How many feeds are followed at once: each is a request of its own, and has a colour of its own. */
export const MAX_FEEDS = 8;

/** The menu in which several feeds are chosen. */
export class SeveralMenu {
  #menu = byId("several", HTMLDetailsElement);
  #list = byId("several-list", HTMLElement);
  #follow = byId("several-follow", HTMLButtonElement);
  #said = byId("several-said", HTMLElement);
  #arrange = byId("arrange", HTMLSelectElement);
  /** @type {HTMLInputElement[]} */
  #boxes = [];

  /**
   * @param {(feeds: string[]) => void} chosen
   * @param {() => void} arranged
   */
  constructor(chosen, arranged) {
    closeable(this.#menu);
    const asked = new URL(location.href).searchParams.get("arrange") ?? preferred("arrange");
    if (asked === "columns") this.#arrange.value = asked;
    this.#arrange.addEventListener("change", () => {
      prefer("arrange", this.#arrange.value);
      arranged();
    });
    this.#list.addEventListener("change", () => this.#tell());
    this.#follow.addEventListener("click", () => {
      const feeds = this.#ticked;
      prefer("feeds", JSON.stringify(feeds));
      this.#menu.open = false;
      this.#menu.querySelector("summary")?.focus();
      chosen(feeds);
    });
  }

  /** Whether several are shown side by side. */
  get columns() {
    return this.#arrange.value === "columns";
  }

  get #ticked() {
    return this.#boxes.filter(({ checked }) => checked).map(({ value }) => value);
  }

  /**
   * @param {string[]} names of the feeds that there are
   * @param {string[]} shown those that are chosen
   */
  list(names, shown) {
    const now = `${names.join("\n")}\n\n${shown.join("\n")}`;
    // What the visitor ticks meanwhile stays.
    if (this.#list.dataset.now === now) return;
    this.#list.dataset.now = now;
    const ticked = shown.length > 1 ? shown : remembered().filter((name) => names.includes(name));
    this.#boxes = names.map((name) => {
      const box = document.createElement("input");
      Object.assign(box, { type: "checkbox", value: name, autocomplete: "off", checked: ticked.includes(name) || shown.includes(name) });
      return box;
    });
    this.#list.replaceChildren(...this.#boxes.map((box) => {
      const label = document.createElement("label");
      label.append(box, " ", box.value);
      return label;
    }));
    this.#tell();
  }

  #tell() {
    const { length } = this.#ticked;
    for (const box of this.#boxes) box.disabled = !box.checked && length >= MAX_FEEDS;
    this.#follow.disabled = length === 0;
    this.#follow.textContent = length === 0 ? "Follow" : `Follow ${plural(length, "feed")}`;
    this.#said.textContent = length >= MAX_FEEDS && this.#boxes.length > MAX_FEEDS ? `${MAX_FEEDS} at most` : "";
  }
}

/** Those that were followed together last. @returns {string[]} */
function remembered() {
  try {
    const value = JSON.parse(preferred("feeds") ?? "[]");
    return Array.isArray(value) ? value.filter((name) => typeof name === "string") : [];
  } catch {
    return [];
  }
}

/**
 * A menu that Escape and a click elsewhere close.
 * @param {HTMLDetailsElement} menu
 */
export function closeable(menu) {
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    event.stopPropagation();
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
  document.addEventListener("click", ({ target }) => {
    if (target instanceof Node && !menu.contains(target)) menu.open = false;
  });
}
