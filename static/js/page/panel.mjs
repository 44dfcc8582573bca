// @ts-check
import { pathName } from "../client/format.mjs";

/** @typedef {import("../client/types.mjs").State} State */
/** @typedef {import("../client/types.mjs").Verdict} Verdict */
/** @typedef {import("../client/types.mjs").Path} Path */

/**
 * An element that the page's markup must have.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`the page has no ${type.name} #${id}`);
  return element;
}

/**
 * Shows a text. The same text written again would have the browser lay out and paint what is around it once more.
 * @param {Element} element
 * @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** How a visitor tries again, in words. */
const AGAIN = { "": "", now: "Press Start to try again.", later: "Wait a moment, then press Start." };

const RUNNING = ["connecting", "streaming", "reconnecting"];

/** What every panel has: the two buttons, the state, the error and the protocol. */
export class Panel {
  start = byId("start", HTMLButtonElement);
  stop = byId("stop", HTMLButtonElement);
  #status = byId("status", HTMLElement);
  #error = byId("error", HTMLElement);
  #protocol = byId("protocol", HTMLElement);
  #protocolNote = byId("protocol-note", HTMLElement);

  /** Everything as it is before the first byte. */
  clear() {
    this.hideError();
    this.#protocol.textContent = "–";
    delete this.#protocol.dataset.protocol;
    delete this.#protocol.dataset.transport;
    delete this.#protocol.dataset.final;
    this.#protocolNote.textContent = "as the browser reports it";
  }

  get state() {
    return this.#status.dataset.state;
  }

  /**
   * @param {State} state
   * @param {string} text announced by screen readers, so only at turning points
   * @param {string} [brief] all that there is to see of it where there is no room; without it, all is shown
   */
  setState(state, text, brief = "") {
    const running = RUNNING.includes(state);
    // The keyboard's place must not be lost with the button that it was on.
    const focused = document.activeElement;
    this.start.disabled = running;
    this.stop.disabled = !running;
    if (focused === this.start && running) this.stop.focus();
    if (focused === this.stop && !running) this.start.focus();
    // The same words again would be read out again.
    if (this.#status.textContent !== text) this.#status.textContent = text;
    this.#status.dataset.state = state;
    if (brief === "") delete this.#status.dataset.brief;
    else this.#status.dataset.brief = brief;
  }

  /** @param {Path} path */
  showPath({ transport, protocol, final }) {
    this.#protocol.textContent = pathName(transport, protocol);
    this.#protocol.dataset.protocol = protocol;
    this.#protocol.dataset.transport = transport;
    this.#protocol.dataset.final = String(final);
    this.#protocolNote.textContent = note({ transport, protocol, final });
  }

  /** Several feeds come over different protocols. @param {string[]} names */
  showPaths(names) {
    this.#protocol.textContent = names.join(", ");
  }

  /**
   * The browser's report came.
   * @param {Path} path
   */
  showReport(path) {
    const before = this.#protocol.dataset.protocol;
    this.showPath(path);
    if (before !== undefined && before !== path.protocol) {
      this.#protocolNote.textContent += `; /info was loaded over ${before}`;
    }
  }

  /** @param {import("../client/errors.mjs").ClientError} error */
  showError(error) {
    fillError(this.#error, error, AGAIN[error.again]);
  }

  /**
   * The same while the page tries again by itself.
   * @param {import("../client/errors.mjs").ClientError} error
   */
  showRetried(error) {
    fillError(this.#error, error, "This page keeps trying.");
  }

  hideError() {
    this.#error.hidden = true;
    this.#error.replaceChildren();
  }
}

/**
 * Which ways were weighed, and why the one was taken.
 * @param {HTMLElement} list
 * @param {Verdict[]} verdicts none: nothing was weighed
 */
export function fillVerdicts(list, verdicts) {
  list.replaceChildren(...verdicts.map(({ way, verdict, reason }) => {
    const item = document.createElement("li");
    item.dataset.verdict = verdict;
    const head = document.createElement("p");
    const name = document.createElement("strong");
    name.textContent = way;
    const mark = document.createElement("span");
    mark.className = "verdict";
    mark.textContent = verdict;
    head.append(name, " ", mark);
    const text = document.createElement("p");
    text.textContent = reason;
    item.append(head, text);
    return item;
  }));
}

/**
 * Shows an error: what happened, and what to do about it.
 * @param {HTMLElement} box
 * @param {import("../client/errors.mjs").ClientError} error
 * @param {string} [again] how it is tried again
 */
export function fillError(box, error, again = "") {
  const steps = again === "" ? error.steps : [...error.steps, again];
  const key = JSON.stringify([error.message, steps, error.said]);
  // The same again would be read out again.
  if (!box.hidden && box.dataset.error === key) return;
  box.dataset.error = key;
  const title = document.createElement("p");
  title.className = "title";
  title.textContent = error.message;
  const list = document.createElement("ul");
  list.append(...steps.map((step) => {
    const item = document.createElement("li");
    item.textContent = step;
    return item;
  }));
  box.replaceChildren(title, list);
  if (error.said !== "") {
    const said = document.createElement("p");
    said.className = "said";
    said.textContent = `Browser error: ${error.said}`;
    box.append(said);
  }
  box.hidden = false;
}

/**
 * How the page knows the protocol.
 * @param {Path} path
 */
function note({ transport, protocol, final }) {
  if (transport === "webtransport") return "a session always runs on HTTP/3";
  if (!final) return "as for /info; confirmed when this request ends";
  return protocol === "unknown" ? "the browser does not say" : "as the browser reports it";
}
