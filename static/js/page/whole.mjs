// @ts-check
/** A longer escape sequence that is cut is not waited for. */
const MAX_ESCAPE = 64;

/**
 * How much of `bytes` can be shown by itself: without the beginning of a character (UTF-8) or of an
 * escape sequence (ECMA-48) whose rest is still to come.
 * @param {Uint8Array} bytes
 */
export function wholePart(bytes) {
  const escape = bytes.lastIndexOf(0x1b);
  if (escape >= 0 && bytes.length - escape <= MAX_ESCAPE) {
    const rest = String.fromCharCode(...bytes.subarray(escape));
    if (/^\x1b(?:\[[0-?]*[ -/]*|[ -/]*)$/.test(rest)) return escape;
  }
  for (let back = 1; back <= 3 && back <= bytes.length; back += 1) {
    const byte = /** @type {number} */ (bytes[bytes.length - back]);
    if ((byte & 0xc0) === 0x80) continue;
    const needs = byte >= 0xf0 && byte < 0xf5 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
    return byte < 0xf5 && needs > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}
