// Follows a feed with the installed package and prints each thing that it is told as a line of JSON.
import { follow } from "h3cast";

const [url, options = "{}"] = process.argv.slice(2);
const told = (kind, value) => console.log(JSON.stringify({ kind, value }));
const over = new AbortController();
process.stdin.on("data", () => over.abort());
const { until, input, ...given } = JSON.parse(options);
const following = follow(url, {
  ...given,
  signal: over.signal,
  onChunk({ bytes, ...chunk }) {
    told("chunk", { ...chunk, text: new TextDecoder().decode(bytes) });
    if (chunk.seq === until) over.abort();
  },
  onGap: (gap) => told("gap", gap),
  onState: ({ state, transport }) => {
    told("state", transport === undefined ? state : `${state} ${transport}`);
    // Without a wait in between.
    if (state === "streaming" && input !== undefined) {
      for (const [i, part] of input.entries()) {
        const bytes = i === 0 && part !== null ? new TextEncoder().encode(part) : part;
        following.send(bytes).then(() => told("sent", part), ({ message }) => told("not sent", message));
      }
    }
  },
});
await following.done.then((summary) => told("done", summary), ({ name, message, steps }) => told("failed", { name, message, steps }));
process.stdin.destroy();
