// @ts-check
/** Which feeds the status page asks for, and what it says of those that it got. */
import { count, plural } from "../client/format.mjs";

/** @typedef {import("./status-data.mjs").Feeds} Feeds */
/** @typedef {import("./status-data.mjs").FeedRow} FeedRow */
/** @typedef {{ text: string, sort: string }} Choice what their names contain, and the order */

/** How many feeds are listed. */
export const LISTED = 20;

/**
 * The address of the numbers.
 * @param {string} href the page's
 * @param {Choice} choice
 */
export function dataUrl(href, { text, sort }) {
  const url = new URL("status/data", href);
  url.search = "";
  url.hash = "";
  url.searchParams.set("limit", String(LISTED));
  if (sort !== "viewers") url.searchParams.set("sort", sort);
  if (text !== "") url.searchParams.set("match", text);
  return url.href;
}

/**
 * "1,000 feeds: 997 open, 1 failed, 2 ended".
 * @param {Feeds} feeds
 */
export function states({ total, states }) {
  if (total === 0) return "none yet";
  const parts = /** @type {const} */ (["open", "failed", "stalled", "ended"])
    .filter((state) => states[state] > 0)
    .map((state) => `${count(states[state])} ${state}`);
  // One kind needs no list.
  return parts.length === 1 && states.open === total ? `${count(total)} open` : parts.join(", ");
}

/**
 * What is missing in the list, or "".
 * @param {Feeds} feeds
 * @param {Choice} choice
 */
export function note({ total, matching, list }, { text, sort }) {
  if (total === 0) return "Feeds appear here when the server has some.";
  if (matching === 0) return `No feed has “${text}” in its name.`;
  if (list.length === matching) return text === "" ? "" : `${plural(matching, "feed")} with “${text}” in the name.`;
  const of = text === "" ? `${count(matching)}` : `${count(matching)} with “${text}” in the name`;
  return `The first ${list.length} of ${of}, by ${sort}. Filter by name to find others.`;
}

/**
 * How a feed is, in words.
 * @param {FeedRow} feed
 */
export function state({ state, error }) {
  if (state === "failed") return error === "" ? "failed" : `failed: ${error}`;
  return state === "stalled" ? "stalled: the server cannot receive or store new chunks" : state;
}
