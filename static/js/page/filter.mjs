// @ts-check
import { atLeast, levelNamed, levelOf } from "./level.mjs";

/**
 * What a visitor wants to see of a log, from one line of text:
 *
 * - `timed out` has both words, in any order; `"timed out"` has them as they stand
 * - `/GET|POST/` matches a regular expression; `/get/i` whatever the case
 * - `-debug` and `!debug` leave out what has the word; `-/re/` what matches
 * - `level:warn` is what is a warning or worse
 *
 * Words match whatever their case.
 */

/** @typedef {(text: string) => boolean} Test */

/** A quoted text or a regular expression stands until its end, anything else until a space. */
const TERM = /([-!]?)(?:"([^"]*)"?|\/((?:[^/\\]|\\.)+)\/([imsu]*)(?=\s|$)|(\S+))/g;

/** How much of an entry a regular expression looks at: what takes long grows with that. */
const LOOKED_AT = 4000;

/**
 * Whether a filter has a regular expression, which can take for ever.
 * @param {string} query
 */
export function hasPattern(query) {
  return [...query.matchAll(TERM)].some(([, , , pattern]) => pattern !== undefined);
}

/**
 * @param {string} query
 * @returns {{ test: Test | undefined, error: string }} no test: everything is wanted
 */
export function parseFilter(query) {
  /** @type {Test[]} */
  const tests = [];
  for (const [, not, quoted, pattern, flags, word] of query.matchAll(TERM)) {
    /** @type {Test} */
    let test;
    if (pattern !== undefined) {
      try {
        // Without flags that remember a place, it gives the same answer each time.
        const expression = new RegExp(pattern, flags);
        test = (text) => expression.test(text.slice(0, LOOKED_AT));
      } catch (cause) {
        return { test: undefined, error: cause instanceof Error ? cause.message : String(cause) };
      }
    } else {
      const wanted = (quoted ?? word ?? "").toLowerCase();
      if (wanted === "" || wanted === "-" || wanted === "!") continue;
      const named = wanted.startsWith("level:") ? levelNamed(wanted.slice(6)) : undefined;
      if (quoted === undefined && named !== undefined) test = (text) => atLeast(levelOf(text), named);
      else test = (text) => text.toLowerCase().includes(wanted);
    }
    tests.push(not ? (text) => !test(text) : test);
  }
  if (tests.length === 0) return { test: undefined, error: "" };
  return { test: (text) => tests.every((test) => test(text)), error: "" };
}
