// @ts-check
import { count, ms, plural, size } from "../client/format.mjs";
import { EDGES, Tally } from "./compare-tally.mjs";
import { fillError } from "./panel.mjs";

/** @typedef {"idle" | "connecting" | "running" | "done" | "stopped" | "failed" | "unavailable"} LaneState */

const SVG = "http://www.w3.org/2000/svg";
const WORDS = {
  idle: "ready", connecting: "connecting…", running: "running", done: "done", stopped: "stopped", failed: "failed",
  unavailable: "cannot run here",
};
/** Of the histogram's drawing. */
const COLUMN = 10;
const HEIGHT = 40;

/** One transport's card. */
export class Lane {
  /** @type {LaneState} */
  state = "idle";
  /** @type {Tally | null} */
  tally = null;
  #card;
  #tooLong = 0;
  /** @type {SVGRectElement[]} */
  #rects = [];

  /**
   * @param {HTMLTemplateElement} template
   * @param {HTMLElement} list gets the card
   * @param {string} id
   * @param {string} name
   */
  constructor(template, list, id, name) {
    this.id = id;
    this.name = name;
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.#card = /** @type {HTMLElement} */ (copy.firstElementChild);
    this.#card.dataset.lane = id;
    this.#at("name").textContent = name;
    const svg = this.#card.querySelector("svg");
    for (let column = 0; column <= EDGES.length; column += 1) {
      const rect = document.createElementNS(SVG, "rect");
      rect.setAttribute("x", String(column * COLUMN));
      rect.setAttribute("width", String(COLUMN - 2));
      svg?.append(rect);
      this.#rects.push(rect);
    }
    list.append(copy);
    this.draw();
  }

  /** @param {string} field @returns {HTMLElement} */
  #at(field) {
    return /** @type {HTMLElement} */ (this.#card.querySelector(`[data-field="${field}"]`));
  }

  /** @param {LaneState} state */
  set(state) {
    this.state = state;
    this.#card.dataset.state = state;
    this.#at("state").textContent = WORDS[state];
  }

  /**
   * Everything as it is before the first byte.
   * @param {number | null} base the number of the first chunk, if that is known
   */
  begin(base) {
    this.tally = new Tally(base);
    this.#tooLong = 0;
    this.#at("error").hidden = true;
    this.set("connecting");
    return this.tally;
  }

  /**
   * @param {string} protocol
   * @param {string} note how it is known
   */
  showProtocol(protocol, note) {
    this.#at("protocol").textContent = protocol;
    this.#at("protocol-note").textContent = note;
  }

  /** @param {number} chunks that do not fit into a datagram */
  showTooLong(chunks) {
    this.#tooLong = chunks;
  }

  /** @param {import("../client/errors.mjs").ClientError} error */
  fail(error) {
    fillError(this.#at("error"), error);
    this.set("failed");
  }

  /**
   * It cannot run here.
   * @param {import("../client/errors.mjs").ClientError} why
   */
  refuse(why) {
    this.tally = null;
    this.showProtocol("–", "");
    fillError(this.#at("error"), why);
    this.set("unavailable");
    this.draw();
  }

  draw() {
    const { tally } = this;
    const set = (/** @type {string} */ field, /** @type {string} */ text) => {
      const element = this.#at(field);
      if (element.textContent !== text) element.textContent = text;
    };
    const first = tally === null || tally.firstAt === null ? null : tally.firstAt - tally.startedAt;
    const { missing } = tally ?? { missing: 0 };
    set("first", first === null ? "–" : ms(first));
    set("chunks", count(tally?.chunks ?? 0));
    set("bytes", size(tally?.bytes ?? 0));
    set("missing", missing === null ? "unknown" : count(missing));
    set("missing-note", this.#tooLong > 0 ? `${count(this.#tooLong)} too long for a datagram` : "");
    set("lag", tally?.lag ? ms(tally.lag.newest) : "–");
    set("lag-note", tally?.lag ? `max ${ms(tally.lag.longest)}` : "");
    const words = tally === null ? "" : intervals(tally);
    set("intervals", words);
    this.#card.querySelector("svg")?.setAttribute("aria-label", words === "" ? "Times between chunks: none yet" : `Times between chunks: ${words}`);
    const most = Math.max(1, ...(tally?.histogram ?? []));
    this.#rects.forEach((rect, column) => {
      const number = tally?.histogram[column] ?? 0;
      const tall = number === 0 ? 1 : Math.max(2, (number / most) * HEIGHT);
      rect.setAttribute("y", (HEIGHT - tall).toFixed(1));
      rect.setAttribute("height", tall.toFixed(1));
      rect.toggleAttribute("data-none", number === 0);
    });
  }

  /** In one sentence, for those who do not see the plot. */
  words() {
    const { tally } = this;
    if (tally === null || tally.chunks === 0) return `${this.name}: ${WORDS[this.state]}.`;
    const lag = tally.lag === null ? "" : `, lag ${ms(tally.lag.newest)}, at most ${ms(tally.lag.longest)}`;
    const missing = tally.missing === null ? "" : `, ${count(tally.missing)} missing`;
    return `${this.name}: ${plural(tally.chunks, "chunk")}${lag}${missing}.`;
  }
}

/** @param {Tally} tally */
function intervals(tally) {
  const [half, most] = [tally.below(0.5), tally.below(0.99)];
  if (half === null || most === null) return "";
  const edge = (/** @type {number} */ value) => (value === Infinity ? `over ${EDGES.at(-1)} ms` : `under ${value} ms`);
  return `half ${edge(half)}, 99 % ${edge(most)}, longest ${ms(tally.longest)}`;
}
