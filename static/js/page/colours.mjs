// @ts-check
/** How many colours there are for the names of feeds: feeds.css has them. */
export const COLOURS = 8;

/**
 * A colour for each feed. It depends on the name, so that a feed keeps it, unless another one has it already.
 * @param {readonly string[]} names
 * @returns {import("./store.mjs").Named[]}
 */
export function coloured(names) {
  /** @type {Set<number>} */
  const taken = new Set();
  return names.map((name) => {
    let colour = [...name].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 65_521, 7) % COLOURS;
    while (taken.size < COLOURS && taken.has(colour)) colour = (colour + 1) % COLOURS;
    taken.add(colour);
    return { name, colour: colour + 1 };
  });
}
