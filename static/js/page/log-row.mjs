// @ts-check
import { classes, parseAnsi, strip } from "./ansi.mjs";
import { cell } from "./cell.mjs";
import { ms, plural, size } from "../client/format.mjs";
import { parseJsonLine } from "./json-line.mjs";
import { levelOf } from "./level.mjs";

/** @typedef {import("./store.mjs").Entry} Entry */
/** @typedef {import("./sieve.mjs").Line} Line */

/** How much of a chunk's text a row shows; the download has all of it. */
const SHOWN = 2000;

const NAMES = { gap: "Missing", restart: "New run", lost: "Connection lost", stalled: "Waiting", back: "Back", end: "End" };

/**
 * What the log shows for one entry.
 * @param {Line} entry
 * @param {boolean} [unfolded] whether JSON is shown at once, line by line
 */
export function row(entry, unfolded = false) {
  const element = document.createElement("div");
  element.dataset.index = String(entry.index);
  element.dataset.id = String(entry.id);
  if (entry.mark !== undefined) {
    element.className = "mark";
    element.dataset.kind = entry.mark.kind;
    const name = document.createElement("strong");
    name.textContent = NAMES[entry.mark.kind];
    if (entry.feed !== undefined) element.append(badge(entry.feed), " ");
    element.append(name, " ", entry.mark.text);
    return element;
  }
  // Not by the row's place in the list, which changes with every row that goes.
  element.className = entry.index % 2 === 0 ? "chunk" : "chunk odd";
  if (entry.context) element.classList.add("context");
  const level = levelOf(strip(entry.text.slice(0, 4000)));
  if (level !== undefined) element.dataset.level = level;
  element.dataset.seq = String(entry.seq);
  element.dataset.bytes = String(entry.size);
  element.dataset.at = entry.at.toFixed(2);
  element.dataset.text = entry.text;
  const time = cell("time", clock(entry.micros));
  time.title = `published ${new Date(entry.micros / 1000).toISOString()}, ${size(entry.size)}`;
  if (entry.feed !== undefined) element.append(badge(entry.feed));
  element.append(
    cell("seq", `#${entry.seq}`),
    time,
    cell("gap", entry.gap === null ? "first" : `+${ms(entry.gap)}`),
    body(entry, unfolded),
  );
  return element;
}

/**
 * The name of a feed in its colour.
 * @param {import("./store.mjs").Named} feed
 */
export function badge({ name, colour }) {
  const element = cell("feed", name);
  element.classList.add(`feed-${colour}`);
  element.title = name;
  return element;
}

/**
 * @param {Entry} entry
 * @param {boolean} unfolded
 */
function body(entry, unfolded) {
  if (entry.text.includes("\0")) return cell("text binary", `${size(entry.size)} of binary data`);
  const json = parseJsonLine(entry.text);
  if (json === undefined) {
    const element = document.createElement("div");
    element.className = "text";
    fill(element, entry);
    return element;
  }
  const details = document.createElement("details");
  details.className = "text json";
  const summary = document.createElement("summary");
  // The log is one tab stop: Enter unfolds the row that the arrows have reached.
  summary.tabIndex = -1;
  const line = document.createElement("span");
  line.className = "line";
  line.textContent = json.summary.length > SHOWN ? `${json.summary.slice(0, SHOWN)}…` : json.summary;
  summary.append(cell("kind", json.kind), " ", line);
  details.append(summary);
  const unfold = () => {
    const pretty = details.querySelector("pre");
    if (!details.open) pretty?.remove();
    if (!details.open || pretty !== null) return;
    const text = document.createElement("pre");
    text.textContent = json.pretty();
    details.append(text);
  };
  details.addEventListener("toggle", () => {
    delete details.dataset.came;
    unfold();
  });
  if (unfolded) {
    // By no doing of the visitor's.
    details.dataset.came = "open";
    details.open = true;
    // The event comes later: by then the row has its place, and its height counts.
    unfold();
  }
  return details;
}

/**
 * @param {HTMLElement} element
 * @param {Entry} entry
 */
function fill(element, { text, style }) {
  const line = text.replace(/\r?\n$/, "");
  const { runs } = parseAnsi(line, style);
  let room = SHOWN;
  for (const run of runs) {
    const part = run.text.slice(0, room);
    room -= part.length;
    if (run.style === 0) {
      element.append(part);
    } else {
      const span = document.createElement("span");
      span.className = classes(run.style);
      span.textContent = part;
      element.append(span);
    }
    if (room === 0) break;
  }
  const all = runs.reduce((sum, run) => sum + run.text.length, 0);
  if (all > SHOWN) element.append(cell("more", `… (${plural(all - SHOWN, "more character")} in the download)`));
}

/** @param {number} micros since 1970 */
function clock(micros) {
  const date = new Date(micros / 1000);
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return `${parts}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}
