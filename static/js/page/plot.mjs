// @ts-check
import { ms, plural } from "../client/format.mjs";

const SVG = "http://www.w3.org/2000/svg";
/** How many of the latest times are drawn. */
export const MAX_SAMPLES = 120;
/** The narrowest division of the width, so that ten bars do not look like a wall. */
const MIN_SLOTS = 30;

/** The latest times between reads. */
export class Samples {
  /** @type {number[]} */
  values = [];

  /** @param {number} value milliseconds */
  add(value) {
    this.values.push(value);
    if (this.values.length > MAX_SAMPLES) this.values.shift();
  }

  clear() {
    this.values = [];
  }

  /** @returns {{ min: number, median: number, max: number } | null} */
  stats() {
    const sorted = [...this.values].sort((a, b) => a - b);
    const { length } = sorted;
    if (length === 0) return null;
    const at = (/** @type {number} */ i) => /** @type {number} */ (sorted[i]);
    const half = Math.floor(length / 2);
    return { min: at(0), median: length % 2 ? at(half) : (at(half - 1) + at(half)) / 2, max: at(length - 1) };
  }
}

/**
 * The times in words, for the caption and for those who do not see the plot.
 * @param {Samples} samples
 */
export function describe(samples) {
  const stats = samples.stats();
  if (stats === null) return "";
  return `median ${ms(stats.median)}, from ${ms(stats.min)} to ${ms(stats.max)}`;
}

/**
 * The top of the scale: the next 1, 2 or 5 times a power of ten that leaves some air.
 * @param {number} max
 */
export function scaleTop(max) {
  const wanted = Math.max(max * 1.1, 1);
  const power = 10 ** Math.floor(Math.log10(wanted));
  for (const factor of [1, 1.5, 2, 3, 5, 7.5]) {
    if (factor * power >= wanted) return factor * power;
  }
  return 10 * power;
}

/**
 * Where the bars go.
 * @param {number[]} values
 * @param {number} top
 * @param {number} width
 * @param {number} height
 */
export function bars(values, top, width, height) {
  const slot = width / Math.max(MIN_SLOTS, values.length);
  const gap = Math.min(3, slot * 0.3);
  return values.map((value, i) => {
    const tall = Math.max(1, Math.min(1, value / top) * height);
    return { x: i * slot + gap / 2, y: height - tall, width: slot - gap, height: tall };
  });
}

/** A small bar plot of the times between reads, drawn into an `<svg>` of the page. */
export class Plot {
  #svg;
  #caption;
  #top;
  #what;
  #median;
  /** @type {SVGRectElement[]} */
  #rects = [];
  #width = 0;
  #height = 0;

  /**
   * @param {SVGElement} svg
   * @param {HTMLElement} caption gets the times in words
   * @param {HTMLElement} top gets the value at the top of the scale
   * @param {string} [what] between what the times are
   */
  constructor(svg, caption, top, what = "reads") {
    this.#what = what;
    this.samples = new Samples();
    this.#svg = svg;
    this.#caption = caption;
    this.#top = top;
    this.#median = document.createElementNS(SVG, "line");
    this.#median.setAttribute("class", "median");
    svg.replaceChildren(this.#median);
    new ResizeObserver(([entry]) => {
      if (entry === undefined) return;
      this.#width = entry.contentRect.width;
      this.#height = entry.contentRect.height;
      this.draw();
    }).observe(svg);
    this.draw();
  }

  draw() {
    const { values } = this.samples;
    const stats = this.samples.stats();
    const words = describe(this.samples);
    this.#caption.textContent = words;
    this.#svg.setAttribute(
      "aria-label",
      words === "" ? `Times between ${this.#what}: none yet` : `The last ${plural(values.length, "time")} between ${this.#what}: ${words}`,
    );
    this.#svg.toggleAttribute("data-empty", stats === null);
    const top = scaleTop(stats?.max ?? 0);
    this.#top.textContent = stats === null ? "" : `${Number(top.toPrecision(3))} ms`;

    const places = bars(values, top, this.#width, this.#height);
    while (this.#rects.length < places.length) {
      const rect = document.createElementNS(SVG, "rect");
      this.#rects.push(rect);
      this.#svg.insertBefore(rect, this.#median);
    }
    while (this.#rects.length > places.length) this.#rects.pop()?.remove();
    places.forEach((place, i) => {
      for (const [name, value] of Object.entries(place)) this.#rects[i]?.setAttribute(name, value.toFixed(2));
    });

    const y = stats === null ? 0 : this.#height * (1 - stats.median / top);
    this.#median.setAttribute("x1", "0");
    this.#median.setAttribute("x2", this.#width.toFixed(2));
    for (const name of ["y1", "y2"]) this.#median.setAttribute(name, y.toFixed(2));
  }
}
