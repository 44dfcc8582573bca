// @ts-check
/** Numbers as the page shows them. */

/** @param {number} value milliseconds */
export function ms(value) {
  if (value >= 7_200_000) return `${(value / 3_600_000).toFixed(1)} h`;
  if (value >= 600_000) return `${(value / 60_000).toFixed(1)} min`;
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ms`;
}

/** @param {number} value */
export function size(value) {
  if (value < 1000) return `${value} B`;
  if (value < 1_000_000) return `${(value / 1000).toFixed(1)} kB`;
  if (value < 1_000_000_000) return `${(value / 1_000_000).toFixed(1)} MB`;
  return `${(value / 1_000_000_000).toFixed(2)} GB`;
}

/** @param {number} value */
export function count(value) {
  return value.toLocaleString("en-GB");
}

/**
 * @param {number} value
 * @param {string} noun
 */
export function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/**
 * What is not kept, in a sentence.
 * @param {number} value
 * @param {string} noun
 * @param {string} [more]
 */
export function noLonger(value, noun, more = "") {
  return `${plural(value, noun)}${more === "" ? "" : ` (${more})`} ${value === 1 ? "is" : "are"} no longer kept.`;
}

/**
 * A path's name as a visitor reads it.
 * @param {import("./types.mjs").Transport} transport
 * @param {string} protocol
 */
export function pathName(transport, protocol) {
  return transport === "webtransport" ? `${protocol} (WebTransport)` : protocol;
}
