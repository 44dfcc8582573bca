// @ts-check
/** The other side of `Matcher`, in a worker. */
import { parseFilter } from "./filter.mjs";

/** How long is worked for one answer. */
const ANSWER_MS = 50;

/** @type {{ query: string, test: import("./filter.mjs").Test | undefined }} */
let filter = { query: "", test: undefined };

addEventListener("message", ({ data }) => {
  const { query, texts } = /** @type {import("./matcher.mjs").Question} */ (data);
  if (query !== filter.query) filter = { query, test: parseFilter(query).test };
  const until = performance.now() + ANSWER_MS;
  const hits = [];
  try {
    for (const text of texts) {
      hits.push(filter.test?.(text) ?? true);
      // The clock is looked at after each line, so that only one that takes long itself makes the answer late.
      if (performance.now() > until) break;
    }
    postMessage(hits);
  } catch {
    // Firefox gives up by itself where an expression goes too deep.
    postMessage("failed");
  }
});
postMessage("ready");
