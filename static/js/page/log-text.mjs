// @ts-check
import { strip } from "./ansi.mjs";

/**
 * A log as text, without escapes, a line for each entry.
 * @param {import("./sieve.mjs").Sieve} sieve
 * @param {boolean} times whether each line begins with the time of its publication
 * @param {number} from
 * @param {number} end
 */
export function asText(sieve, times, from, end) {
  const lines = [];
  for (let index = from; index < end; index += 1) {
    const entry = sieve.entry(index);
    if (entry === undefined) continue;
    const text = entry.mark?.text ?? strip(entry.text).replace(/\r?\n$/, "");
    const name = entry.feed === undefined ? "" : `${entry.feed.name} | `;
    const time = times && entry.mark === undefined ? `${new Date(entry.micros / 1000).toISOString()} ` : "";
    lines.push(`${name}${time}${text}`);
  }
  return lines.map((line) => `${line}\n`).join("");
}

/**
 * The lines that are selected, or undefined where none are.
 * @param {HTMLElement} box
 * @returns {[from: number, end: number] | undefined}
 */
export function selected(box) {
  const selection = getSelection();
  if (selection === null || selection.isCollapsed) return undefined;
  const places = [...box.children].filter((row) => selection.containsNode(row, true)).map((row) => Number(/** @type {HTMLElement} */ (row).dataset.index));
  return places.length === 0 ? undefined : [/** @type {number} */ (places[0]), /** @type {number} */ (places.at(-1)) + 1];
}
