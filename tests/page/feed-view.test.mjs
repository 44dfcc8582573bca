// What is told of one feed: its state in words, short where there is little room, and the times between its chunks.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FeedView, STALLED } from "../../static/js/page/feed-view.mjs";
import { Samples } from "../../static/js/page/plot.mjs";
import { bytes } from "./fakes.mjs";

function shown() {
  const seen = { states: [], gaps: [], marks: [], samples: new Samples() };
  const nothing = () => {};
  const panel = {
    state: "idle", showPath: nothing, showReport: nothing, showError: nothing, showRetried: nothing, hideError: nothing, clear: nothing,
    setState: (state, text, brief = "") => {
      panel.state = state;
      seen.states.push([text, brief]);
    },
  };
  const view = new FeedView({
    panel, retry: { show: nothing, trying: nothing, hide: nothing }, samples: seen.samples,
    log: { add: ({ gap }) => seen.gaps.push(gap), mark: (kind, text) => seen.marks.push([kind, text]), clear: nothing, finish: nothing },
    weigh: nothing, schedule: nothing, soon: nothing, flush: nothing,
  });
  return { ...seen, view, events: view.events, last: () => seen.states.at(-1) };
}
const PATH = { transport: "fetch", protocol: "h3", final: false };

test("a feed is live in short only while it is", () => {
  const { view, events, last, marks } = shown();
  events.onConnecting(0);
  events.onOpen(PATH, []);
  assert.deepEqual(last(), ["Connected with fetch. Waiting for the first chunk.", "Waiting"]);
  events.onChunk({ seq: 0, micros: Date.now() * 1000, at: 1, gap: null, bytes: bytes("x") });
  view.draw();
  assert.deepEqual(last(), ["Streaming with fetch.", "Live"]);
  events.onStalled(true, "the disk that stores it is full");
  assert.deepEqual(last(), [STALLED, "Stalled"]);
  assert.match(marks.at(-1)[1], /chunks of this feed: the disk that stores it is full\. The feed resumes/);
  events.onStalled(true, undefined);
  assert.deepEqual(last(), [STALLED, "Stalled"]);
  // Where nothing is stored (`?live`), what is sent meanwhile is lost, and a full disk does answer.
  assert.equal(marks.at(-1)[0], "stalled");
  for (const text of [STALLED, marks.at(-1)[1]]) assert.doesNotMatch(text, /lost|the server’s storage|cannot reach the storage/);
  assert.match(marks.at(-1)[1], /NATS .* disk is full/);
  events.onStalled(false);
  assert.deepEqual(last(), ["Streaming with fetch.", "Live"]);
  events.onLost(Object.assign(new Error("gone"), { steps: [] }), 100, 1, []);
  assert.equal(last()[1], "");
});

test("between chunks of history is what was between their publications, and the plot has none of it", () => {
  const { events, gaps, samples } = shown();
  const chunk = (seq, micros, gap) => events.onChunk({ seq, micros, at: seq, gap, bytes: bytes("x") });
  events.onConnecting(0);
  events.onOpen(PATH, []);
  const now = (Date.now() + 1000) * 1000;
  chunk(0, now - 90_000_000, null);
  chunk(1, now - 60_000_000, 0.1);
  // A clock that went back.
  chunk(2, now - 61_000_000, 0.1);
  chunk(3, now, 500);
  chunk(4, now + 20_000, 30);
  assert.deepEqual(gaps, [null, 30_000, 0, 61_000, 30]);
  assert.deepEqual(samples.values, [30]);
});
