import assert from "node:assert/strict";
import { test } from "node:test";
import { readStream } from "../../static/js/client/reader.mjs";
import { bytes, handDriven, settled } from "./fakes.mjs";

/** A reading in progress, with a clock that only moves by hand. */
function reading() {
  const driven = handDriven();
  const abort = new AbortController();
  const clock = { time: 500 };
  const chunks = [];
  const summary = readStream(driven.stream, {
    startedAt: 500, now: () => clock.time, signal: abort.signal, onChunk: (chunk) => chunks.push(chunk),
  });
  const push = async (data, at) => {
    clock.time = 500 + at;
    driven.push(data);
    await settled();
  };
  return { ...driven, driven, abort, clock, chunks, summary, push };
}

test("each read is told when it comes, before the next chunk exists", async () => {
  const r = reading();
  await r.push("data chunk #0\n", 40);
  assert.deepEqual(r.chunks, [{ index: 0, at: 40, gap: null, bytes: 14, text: "data chunk #0\n" }]);
  await r.push("data chunk #1\n", 140);
  assert.deepEqual(r.chunks[1], { index: 1, at: 140, gap: 100, bytes: 14, text: "data chunk #1\n" });
  r.clock.time = 700;
  r.end();
  assert.deepEqual(await r.summary, {
    outcome: "ended", chunks: 2, bytes: 28, firstAt: 40, duration: 200, tail: "", cause: undefined,
  });
});

test("a stream without chunks ends with nothing read", async () => {
  const r = reading();
  r.end();
  const { outcome, chunks, firstAt } = await r.summary;
  assert.deepEqual({ outcome, chunks, firstAt }, { outcome: "ended", chunks: 0, firstAt: null });
});

test("an empty chunk is no read", async () => {
  const r = reading();
  await r.push(new Uint8Array(0), 10);
  assert.equal(r.chunks.length, 0);
  await r.push("x", 20);
  r.end();
  assert.equal((await r.summary).firstAt, 20);
});

test("a character cut in two comes whole with its second half", async () => {
  const r = reading();
  const euro = bytes("a€");
  await r.push(euro.slice(0, 2), 1);
  await r.push(euro.slice(2), 2);
  r.end();
  assert.deepEqual(r.chunks.map(({ text, bytes }) => [text, bytes]), [["a", 2], ["€", 2]]);
  assert.equal((await r.summary).tail, "");
});

test("a character that never comes whole is in the tail", async () => {
  const r = reading();
  await r.push(bytes("€").slice(0, 2), 1);
  r.end();
  assert.equal((await r.summary).tail, "\uFFFD");
});

test("a byte order mark stays in the text", async () => {
  const r = reading();
  await r.push("\uFEFFa", 1);
  assert.equal(r.chunks[0].text, "\uFEFFa");
  r.end();
  await r.summary;
});

test("a stop cancels the stream and is no failure", async () => {
  const r = reading();
  await r.push("one", 10);
  r.abort.abort();
  const { outcome, chunks, bytes: total } = await r.summary;
  assert.deepEqual({ outcome, chunks, total }, { outcome: "stopped", chunks: 1, total: 3 });
  assert.ok(r.driven.cancelled);
  assert.equal(r.driven.stream.locked, false);
});

test("a stop that the stream itself answers with an error is still a stop", async () => {
  const r = reading();
  await r.push("one", 10);
  r.abort.signal.addEventListener("abort", () => r.fail(new DOMException("aborted", "AbortError")));
  r.abort.abort();
  assert.equal((await r.summary).outcome, "stopped");
});

test("a stop before the start reads nothing", async () => {
  const driven = handDriven();
  driven.push("too late");
  const chunks = [];
  const summary = await readStream(driven.stream, {
    startedAt: 0, now: () => 0, signal: AbortSignal.abort(), onChunk: (chunk) => chunks.push(chunk),
  });
  assert.equal(summary.outcome, "stopped");
  assert.deepEqual(chunks, []);
});

test("a failure keeps what came and says why", async () => {
  const r = reading();
  await r.push("half", 10);
  const cause = new TypeError("network error");
  r.fail(cause);
  const summary = await r.summary;
  assert.equal(summary.outcome, "failed");
  assert.equal(summary.bytes, 4);
  assert.equal(summary.cause, cause);
});

test("one read is asked for at a time, so a slow page slows the stream", async () => {
  let pulled = 0;
  const stream = new ReadableStream(
    {
      pull(controller) {
        pulled += 1;
        if (pulled > 3) controller.close();
        else controller.enqueue(bytes("x"));
      },
    },
    { highWaterMark: 0 },
  );
  const seen = [];
  await readStream(stream, {
    startedAt: 0, now: () => 0, signal: new AbortController().signal, onChunk: () => seen.push(pulled),
  });
  assert.deepEqual(seen, [1, 2, 3]);
});
