// @ts-check
import { scaleTop } from "./plot.mjs";

/** @typedef {import("./compare-tally.mjs").Tally} Tally */
/** @typedef {{ name: string, tally: Tally | null, idle: string }} Row `idle` is shown while nothing has come */

/** How much time is shown at most, in milliseconds. */
export const WINDOW_MS = 10_000;
/** CSS pixels. */
const ROW = 44;
const NAME = 16;
const AXIS = 22;
/** The width of a column. */
const BAR = 2;
/** How tall a chunk is that came at once, or of which the lag is not known. */
const LEAST = 3;

/**
 * Columns of one row: the longest lag of the chunks that came in each, as a part of the scale; -1 without any.
 * @param {import("./compare-tally.mjs").Point[]} points
 * @param {{ from: number, perColumn: number, columns: number, top: number }} scale milliseconds
 */
export function columns(points, { from, perColumn, columns, top }) {
  const heights = new Array(columns).fill(-1);
  for (let i = points.length - 1; i >= 0; i -= 1) {
    const { at, lag } = /** @type {import("./compare-tally.mjs").Point} */ (points[i]);
    const column = Math.floor((at - from) / perColumn);
    // Those before it came earlier.
    if (column < 0) break;
    if (column < columns) heights[column] = Math.max(heights[column], Math.min(1, Math.max(0, lag ?? 0) / top));
  }
  return heights;
}

/** What came when, over each transport, on one axis of time. */
export class SharedPlot {
  #canvas;
  #scale;
  #width = 0;
  /** @type {() => void} */
  #again = () => {};

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} scale gets the scale in words
   */
  constructor(canvas, scale) {
    this.#canvas = canvas;
    this.#scale = scale;
    new ResizeObserver(([entry]) => {
      this.#width = entry?.contentRect.width ?? 0;
      this.#again();
    }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#again());
  }

  /**
   * @param {Row[]} rows
   * @param {number} startedAt when all were started
   * @param {number} now
   * @param {number} window how much time is shown, in milliseconds
   */
  draw(rows, startedAt, now, window) {
    this.#again = () => this.draw(rows, startedAt, now, window);
    const canvas = this.#canvas;
    const context = canvas.getContext("2d");
    const width = Math.floor(this.#width);
    if (context === null || width === 0) return;
    const height = rows.length * ROW + AXIS;
    const dense = globalThis.devicePixelRatio || 1;
    if (canvas.width !== width * dense || canvas.height !== height * dense) {
      canvas.width = width * dense;
      canvas.height = height * dense;
    }
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    context.font = `12px ${style.fontFamily}`;
    context.textBaseline = "middle";

    const from = Math.max(startedAt, now - window);
    const perColumn = (window / width) * BAR;
    const lags = rows.flatMap(({ tally }) => tally?.points.filter(({ at }) => at >= from).map(({ lag }) => lag ?? 0) ?? []);
    const top = scaleTop(lags.reduce((most, lag) => Math.max(most, lag), 0));
    this.#scale.textContent = lags.length === 0 ? "" : `The height is the lag; a full row is ${Number(top.toPrecision(3))} ms.`;

    rows.forEach(({ name, tally, idle }, index) => {
      const bottom = (index + 1) * ROW - 2;
      context.fillStyle = colour("--line");
      context.fillRect(0, bottom, width, 1);
      context.fillStyle = colour("--bar");
      columns(tally?.points ?? [], { from, perColumn, columns: Math.ceil(width / BAR), top }).forEach((part, x) => {
        if (part < 0) return;
        const tall = LEAST + part * (ROW - NAME - LEAST - 2);
        context.fillRect(x * BAR, bottom - tall, BAR, tall);
      });
      context.fillStyle = colour("--ink");
      context.fillText(name, 0, index * ROW + NAME / 2 + 1);
      if ((tally?.chunks ?? 0) > 0) return;
      context.fillStyle = colour("--soft");
      context.fillText(idle, 0, index * ROW + NAME + 14);
    });

    context.fillStyle = colour("--soft");
    for (let second = Math.ceil((from - startedAt) / 1000); second * 1000 <= from - startedAt + window; second += 1) {
      const x = Math.round((second * 1000 - (from - startedAt)) * (width / window));
      context.fillRect(Math.min(x, width - 1), rows.length * ROW - 1, 1, 4);
      if (second % 2 > 0 && window > 5000) continue;
      const text = `${second} s`;
      const wide = context.measureText(text).width;
      context.fillText(text, Math.min(Math.max(0, x - wide / 2), width - wide), rows.length * ROW + 13);
    }
  }
}
