// @ts-check
/** A longer line is shown as text: nobody reads it folded, and parsing it would hold the page up. */
const MAX_LINE = 256 * 1024;

/**
 * A line that is a JSON object or array, for folding.
 * @param {string} text
 * @returns {{ summary: string, kind: string, pretty: () => string } | undefined}
 */
export function parseJsonLine(text) {
  const line = text.trim();
  const [first, last] = [line[0], line.at(-1)];
  if (!((first === "{" && last === "}") || (first === "[" && last === "]")) || line.length > MAX_LINE) return undefined;
  try {
    /** @type {unknown} */
    const value = JSON.parse(line);
    const size = Array.isArray(value) ? value.length : Object.keys(/** @type {object} */ (value)).length;
    // There is nothing inside to unfold.
    if (size === 0) return undefined;
    return {
      summary: line,
      kind: Array.isArray(value) ? `[${size}]` : `{${size}}`,
      pretty: () => JSON.stringify(JSON.parse(line), null, 2),
    };
  } catch {
    return undefined;
  }
}
