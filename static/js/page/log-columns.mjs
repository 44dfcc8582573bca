// @ts-check
/** @typedef {import("./log-view.mjs").LogView} LogView */
/** @typedef {import("./store.mjs").Named} Named */

/**
 * An empty log of one feed among several, with a place for words about it.
 * @param {Named} feed
 */
export function column({ name }) {
  const element = document.createElement("section");
  element.className = "column";
  element.setAttribute("aria-label", name);
  const head = document.createElement("header");
  const frame = document.createElement("div");
  frame.className = "frame";
  const box = document.createElement("div");
  Object.assign(box, { className: "log", tabIndex: 0 });
  for (const [attribute, value] of [["role", "log"], ["aria-live", "off"], ["aria-label", `Log of ${name}`]]) box.setAttribute(/** @type {string} */ (attribute), /** @type {string} */ (value));
  const nothing = document.createElement("p");
  nothing.className = "nothing";
  const jump = document.createElement("button");
  Object.assign(jump, { className: "jump", type: "button", hidden: true });
  frame.append(box, nothing, jump);
  element.append(head, frame);
  return { element, head, parts: { box, nothing, jump } };
}

/**
 * Puts what some logs keep into others, in the order of publication: from one log of several feeds into one for each,
 * or back.
 * @param {LogView[]} from
 * @param {LogView[]} to
 */
export function move(from, to) {
  const all = from.flatMap((view, i) => {
    let last = -Infinity;
    return view.kept().map((kept) => {
      // What happened to a feed stands after its last chunk.
      last = Math.max(last, kept.chunk?.micros ?? last);
      return { ...kept, source: from.length === 1 ? kept.source : i, time: last };
    });
  });
  // A log of several has its order already.
  if (from.length > 1) all.sort((a, b) => a.time - b.time);
  for (const kept of all) to[to.length === 1 ? 0 : kept.source]?.put(kept, to.length === 1 ? kept.source : 0);
  // A character that has begun is completed there.
  const each = from.length === 1 ? to.map((_, i) => from[0]?.store.rest(i)) : from.map(({ store }) => store.rest(0));
  each.forEach((rest, i) => {
    if (rest !== undefined) to[to.length === 1 ? 0 : i]?.store.goOn(to.length === 1 ? i : 0, rest);
  });
}
