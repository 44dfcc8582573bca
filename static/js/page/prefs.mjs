// @ts-check
/** What a visitor chose, for the next time: kept by the browser, if it keeps anything. */

const KEY = "h3cast";

/** @returns {Record<string, string>} */
function all() {
  try {
    const value = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

/**
 * @param {string} name
 * @returns {string | undefined} undefined: nothing was chosen
 */
export function preferred(name) {
  const value = all()[name];
  return typeof value === "string" ? value : undefined;
}

/**
 * @param {string} name
 * @param {string} value
 */
export function prefer(name, value) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...all(), [name]: value }));
  } catch {
    // Then the choice holds for this page alone.
  }
}

/**
 * Keeps a choice in the address, so that a link or a reload shows the same.
 * @param {string} name
 * @param {string} value
 * @param {string} usual what needs no mention
 */
export function inAddress(name, value, usual) {
  listInAddress(name, value === usual ? [] : [value]);
}

/**
 * The same for what there may be several of.
 * @param {string} name
 * @param {string[]} values
 */
export function listInAddress(name, values) {
  const url = new URL(location.href);
  if (values.length === 0) {
    url.searchParams.delete(name);
  } else {
    // The first keeps its place.
    url.searchParams.set(name, values[0] ?? "");
    for (const value of values.slice(1)) url.searchParams.append(name, value);
  }
  // At every key of a text that is typed: browsers bound how often, and Safari throws.
  try {
    history.replaceState(null, "", url);
  } catch {
    // The page itself shows what was chosen.
  }
}
