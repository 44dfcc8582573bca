// @ts-check
/** A longer line is shown as text: nobody reads it folded, and parsing it would hold the page up. */
const MAX_LINE = 256 * 1024;
/** The most characters that are shown formatted: a few bytes that are nested deeply become very many by their indentation. */
const MAX_FORMATTED = 4_000_000;
const INDENT = 2;

/**
 * JSON over several lines; undefined if there would be too much of it, or if it is none.
 * @param {string} text
 */
export function formatJson(text) {
  if (formattedSize(text) > MAX_FORMATTED) return undefined;
  try {
    return JSON.stringify(JSON.parse(text), null, INDENT);
  } catch {
    return undefined;
  }
}

/**
 * About how many characters JSON has once it is formatted. That bounds its depth, too.
 * @param {string} text
 */
function formattedSize(text) {
  let [size, depth, quoted] = [text.length, 0, false];
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (quoted) {
      if (char === "\\") at += 1;
      else if (char === '"') quoted = false;
    } else if (char === '"') {
      quoted = true;
    } else if (char === "{" || char === "[") {
      depth += 1;
      size += 1 + INDENT * depth;
    } else if (char === "}" || char === "]") {
      depth = Math.max(0, depth - 1);
      size += 1 + INDENT * depth;
    } else if (char === ",") {
      size += 1 + INDENT * depth;
    }
  }
  return size;
}

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
    if (size === 0 || formattedSize(line) > MAX_FORMATTED) return undefined;
    return {
      summary: line,
      kind: Array.isArray(value) ? `[${size}]` : `{${size}}`,
      pretty: () => formatJson(line) ?? line,
    };
  } catch {
    return undefined;
  }
}
