// @ts-check
/**
 * Text with terminal escapes, as runs of plain text in a style. Colours and weights (SGR, ECMA-48
 * §8.3.117) are kept; every other escape sequence and control character is left out.
 *
 * A style is one number, so that a log can keep one for each of its lines: five bits of foreground
 * and five of background (0: none, 1 to 16: the terminal's colours), then a bit for each attribute.
 */

/** @typedef {{ text: string, style: number }} Run */

export const PLAIN = 0;
/** The attributes, each with the class that shows it. */
const ATTRIBUTES = /** @type {const} */ ([
  ["bold", 1 << 10], ["dim", 1 << 11], ["italic", 1 << 12], ["underline", 1 << 13], ["inverse", 1 << 14], ["strike", 1 << 15],
]);
const [BOLD, DIM, ITALIC, UNDERLINE, INVERSE, STRIKE] = /** @type {[number, number, number, number, number, number]} */ (
  ATTRIBUTES.map(([, bit]) => bit));

/**
 * The sequences: CSI, then strings with their terminators, then what is short. A string has an end,
 * so that one without it is not looked for again and again through a long text.
 */
const ESCAPE = new RegExp(
  "(?:\\x1b\\[|\\x9b)([0-?]*)[ -/]*([@-~])" +
  "|(?:\\x1b\\]|\\x9d)[^\\x07\\x1b\\x90\\x98\\x9b-\\x9f]{0,4096}(?:\\x07|\\x1b\\\\|\\x9c)" +
  "|(?:\\x1b[PX^_]|[\\x90\\x98\\x9e\\x9f])[^\\x1b\\x90\\x98\\x9b-\\x9f]{0,4096}(?:\\x1b\\\\|\\x9c)" +
  "|\\x1b[ -/]*[0-~]", "g");
/** Control characters that are no white space of a text. */
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f]/g;

/**
 * @param {string} text
 * @param {number} [style] the style before it
 * @returns {{ runs: Run[], style: number }} and the style behind it
 */
export function parseAnsi(text, style = PLAIN) {
  /** @type {Run[]} */
  const runs = [];
  let at = 0;
  const take = (/** @type {number} */ end) => {
    const plain = text.slice(at, end).replace(CONTROL, "");
    if (plain === "") return;
    const last = runs.at(-1);
    if (last !== undefined && last.style === style) last.text += plain;
    else runs.push({ text: plain, style });
  };
  for (const match of text.matchAll(ESCAPE)) {
    take(match.index);
    at = match.index + match[0].length;
    if (match[2] === "m") style = graphics(match[1] ?? "", style);
  }
  take(text.length);
  return { runs, style };
}

/**
 * The text without escapes.
 * @param {string} text
 */
export function strip(text) {
  return text.replace(ESCAPE, "").replace(CONTROL, "");
}

/**
 * The classes that show a style: `fg-1` to `fg-16`, `bg-1` to `bg-16`, and the attributes' names.
 * @param {number} style
 */
export function classes(style) {
  let [front, back] = [style & 31, (style >> 5) & 31];
  const names = ATTRIBUTES.filter(([, bit]) => style & bit).map(([name]) => /** @type {string} */ (name));
  if (style & INVERSE) {
    [front, back] = [back, front];
    // Without a colour behind the text it is the page's own that change places.
    if (back !== 0) names.splice(names.indexOf("inverse"), 1);
  }
  if (front !== 0) names.push(`fg-${front}`);
  if (back !== 0) names.push(`bg-${back}`);
  return names.join(" ");
}

/**
 * The style after "select graphic rendition".
 * @param {string} parameters
 * @param {number} style
 */
function graphics(parameters, style) {
  // 38:2::r:g:b is one parameter with parts, 38;2;r;g;b are five.
  const list = parameters.split(";").map((parameter) => parameter.split(":").map((part) => (part === "" ? -1 : Number(part))));
  for (let i = 0; i < list.length; i += 1) {
    const parts = /** @type {number[]} */ (list[i]);
    const [code = 0] = parts;
    if (code === 38 || code === 48) {
      const shift = code === 38 ? 0 : 5;
      /** @type {number[]} */
      let how;
      if (parts.length > 1) {
        how = parts.slice(1);
        // The colour space, which nobody gives, stands before the three of 2.
        if (how[0] === 2 && how.length > 4) how.splice(1, 1);
      } else {
        const flat = list.slice(i + 1, i + 5).map(([part = 0]) => part);
        how = flat[0] === 5 ? flat.slice(0, 2) : flat;
        i += how[0] === 5 ? 2 : how[0] === 2 ? 4 : 0;
      }
      const index = nearest(how);
      if (index !== undefined) style = colour(style, shift, index);
      continue;
    }
    style = simple(style, code, parts[1]);
  }
  return style;
}

/**
 * @param {number} style
 * @param {number} code
 * @param {number | undefined} part
 */
function simple(style, code, part) {
  switch (code) {
    case -1: case 0: return PLAIN;
    case 1: return style | BOLD;
    case 2: return style | DIM;
    case 3: return style | ITALIC;
    case 4: return part === 0 ? style & ~UNDERLINE : style | UNDERLINE;
    case 7: return style | INVERSE;
    case 9: return style | STRIKE;
    case 21: return style | UNDERLINE;
    case 22: return style & ~(BOLD | DIM);
    case 23: return style & ~ITALIC;
    case 24: return style & ~UNDERLINE;
    case 27: return style & ~INVERSE;
    case 29: return style & ~STRIKE;
    case 39: return colour(style, 0, 0);
    case 49: return colour(style, 5, 0);
    default:
      if (code >= 30 && code <= 37) return colour(style, 0, code - 29);
      if (code >= 40 && code <= 47) return colour(style, 5, code - 39);
      if (code >= 90 && code <= 97) return colour(style, 0, code - 81);
      if (code >= 100 && code <= 107) return colour(style, 5, code - 91);
      return style;
  }
}

/**
 * @param {number} style
 * @param {number} shift
 * @param {number} index
 */
function colour(style, shift, index) {
  return (style & ~(31 << shift)) | (index << shift);
}

/** The sixteen as xterm has them. */
const SIXTEEN = [
  [0, 0, 0], [205, 0, 0], [0, 205, 0], [205, 205, 0], [0, 0, 238], [205, 0, 205], [0, 205, 205], [229, 229, 229],
  [127, 127, 127], [255, 0, 0], [0, 255, 0], [255, 255, 0], [92, 92, 255], [255, 0, 255], [0, 255, 255], [255, 255, 255],
];

/**
 * The one of the sixteen that is nearest to `5;n` or `2;r;g;b`; undefined if it is neither.
 * @param {number[]} how
 */
function nearest(how) {
  const [kind, ...rest] = how.map((part) => Math.min(Math.max(part || 0, 0), 255));
  /** @type {number[]} */
  let rgb;
  const [index] = rest;
  if (kind === 5 && index !== undefined) {
    if (index < 16) return index + 1;
    const cube = index - 16;
    const level = (/** @type {number} */ step) => (step === 0 ? 0 : 55 + 40 * step);
    rgb = index >= 232
      ? Array(3).fill(8 + 10 * (index - 232))
      : [level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)];
  } else if (kind === 2 && rest.length >= 3) {
    rgb = rest;
  } else {
    return undefined;
  }
  const distances = SIXTEEN.map((candidate) => candidate.reduce((sum, part, i) => sum + (part - (rgb[i] ?? 0)) ** 2, 0));
  return distances.indexOf(Math.min(...distances)) + 1;
}
