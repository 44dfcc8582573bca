import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { FrameDecoder, FrameError } from "../../static/js/client/frames.mjs";

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

/** How many bytes are copied while `act` runs. */
function copied(act) {
  const { set, slice } = Uint8Array.prototype;
  let bytes = 0;
  Uint8Array.prototype.set = function (from, at) {
    bytes += from.length;
    return set.call(this, from, at);
  };
  Uint8Array.prototype.slice = function (...range) {
    const part = slice.apply(this, range);
    bytes += part.length;
    return part;
  };
  try {
    act();
  } finally {
    // Both are inherited.
    delete Uint8Array.prototype.set;
    delete Uint8Array.prototype.slice;
  }
  return bytes;
}

for (const [what, times, work] of [
  // Once when it comes, and less than twice more as the buffer grows to twice its size each time.
  ["one huge frame in small pieces", 3, (size) => {
    const decoder = new FrameDecoder();
    decoder.push(Uint8Array.of(0, 0x80 | (size >>> 24), size >>> 16 & 255, size >>> 8 & 255, size & 255));
    for (let left = size; left > 0; left -= 16) {
      assert.equal(decoder.pop(), undefined);
      decoder.push(new Uint8Array(16));
    }
    assert.equal(decoder.pop().bytes.length, size - 2);
  }],
  ["one huge piece of small frames", 0, (size) => {
    const decoder = new FrameDecoder();
    decoder.push(new Uint8Array(size).map((_, i) => (i % 2 === 0 ? 4 : 0)));
    let frames = 0;
    while (decoder.pop() !== undefined) frames += 1;
    assert.equal(frames, size / 2);
  }],
]) {
  test(`frames: the bytes of ${what} are copied a bounded number of times`, () => {
    const size = 160_000;
    const bytes = copied(() => work(size));
    assert.ok(bytes <= times * size, `${bytes} bytes of ${size}`);
  });
}
