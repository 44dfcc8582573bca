import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { FrameDecoder, FrameError } from "../../static/js/frames.mjs";

const { vectors } = JSON.parse(readFileSync(new URL("../../crates/proto/tests/vectors/frames.json", import.meta.url), "utf8"));
const unhex = (text) => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));

/** What is read of a stream that comes in these pieces, up to its end or an error. */
function readAll(pieces, limit = 1 << 20) {
  const decoder = new FrameDecoder(limit);
  const frames = [];
  try {
    for (const piece of pieces) {
      decoder.push(piece);
      for (let frame; (frame = decoder.pop()) !== undefined;) frames.push(frame);
    }
    return { frames, error: decoder.atBoundary ? undefined : "cut" };
  } catch (error) {
    assert.ok(error instanceof FrameError, error);
    assert.throws(() => decoder.pop(), error, "an error stays");
    return { frames, error: error.kind };
  }
}
const told = ({ frames, error }) => ({
  frames: frames.map((frame) => (frame.type === "chunk" ? { ...frame, bytes: Buffer.from(frame.bytes).toString("hex") } : frame)),
  error,
});

for (const { name, hex, limit, frames, error, javascript } of vectors) {
  const bytes = unhex(hex);
  const expected = {
    frames: javascript === undefined ? frames : frames.slice(0, javascript.frames),
    error: javascript?.error ?? error,
  };
  test(`frames: ${name}`, () => {
    assert.deepEqual(told(readAll([bytes], limit)), expected, "whole");
    assert.deepEqual(told(readAll([...bytes].map((byte) => Uint8Array.of(byte)), limit)), expected, "byte by byte");
    for (let cut = 1; cut < bytes.length; cut += 1) {
      assert.deepEqual(told(readAll([bytes.slice(0, cut), bytes.slice(cut)], limit)), expected, `cut at ${cut}`);
    }
  });
}

test("frames: what was handed out is not written over by what comes after", () => {
  const decoder = new FrameDecoder();
  const kept = [];
  for (let seq = 0; seq < 60; seq += 1) {
    const bytes = Uint8Array.of(0, 6, seq, 0, seq, seq, seq, seq);
    for (const piece of [bytes.slice(0, 5), bytes.slice(5)]) {
      decoder.push(piece);
      const frame = decoder.pop();
      if (frame !== undefined) kept.push(frame);
    }
  }
  assert.deepEqual(kept.map(({ bytes }) => [...bytes]), Array.from({ length: 60 }, (_, seq) => Array(4).fill(seq)));
});

/** How long `act` takes, in milliseconds: the best of three, so that a busy machine does not count. */
function best(act) {
  const once = () => {
    const from = performance.now();
    act();
    return performance.now() - from;
  };
  return Math.min(once(), once(), once());
}

// Ten times the work would be a hundred times the time if every piece were copied again.
for (const [what, work] of [
  ["one huge frame in small pieces", (size) => {
    const decoder = new FrameDecoder();
    decoder.push(Uint8Array.of(0, 0x80 | (size >>> 24), size >>> 16 & 255, size >>> 8 & 255, size & 255));
    for (let left = size; left > 0; left -= 16) {
      assert.equal(decoder.pop(), undefined);
      decoder.push(new Uint8Array(16));
    }
    assert.equal(decoder.pop().bytes.length, size - 2);
  }],
  ["one huge piece of small frames", (size) => {
    const decoder = new FrameDecoder();
    decoder.push(new Uint8Array(size).map((_, i) => (i % 2 === 0 ? 4 : 0)));
    let frames = 0;
    while (decoder.pop() !== undefined) frames += 1;
    assert.equal(frames, size / 2);
  }],
]) {
  test(`frames: ${what} take time in proportion`, () => {
    work(160_000);
    const small = best(() => work(160_000));
    const large = best(() => work(1_600_000));
    assert.ok(large < 40 * small + 20, `${small} ms, and ten times as much ${large} ms`);
  });
}
