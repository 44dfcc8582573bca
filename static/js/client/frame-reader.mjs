// @ts-check
import { FrameDecoder, FrameError } from "./frames.mjs";

/** @typedef {import("./frames.mjs").Frame} Frame */
/** @typedef {import("./frames.mjs").EndFrame} EndFrame */

/** How long frames are worked on before the page gets a turn. */
export const TURN_MS = 8;

/**
 * How a stream of frames came to its end. `ended` is what the feed itself said; a stream without
 * that is a loss, however it ended.
 * @typedef {{ how: "ended", end: EndFrame } | { how: "lost" | "bad", cause: unknown }} FramesEnd
 */

/**
 * Reads a stream of frames to its end. Never rejects.
 *
 * @param {ReadableStream<Uint8Array>} stream
 * @param {object} options
 * @param {() => number} options.now milliseconds
 * @param {() => Promise<void>} options.breathe gives the page a turn
 * @param {AbortSignal} options.signal stops reading and cancels the stream
 * @param {(bytes: number) => void} options.onBytes
 * @param {(frame: Frame) => void} options.onFrame
 * @returns {Promise<FramesEnd>}
 */
export async function readFrames(stream, { now, breathe, signal, onBytes, onFrame }) {
  const decoder = new FrameDecoder();
  const reader = stream.getReader();
  const cancel = () => {
    // A stream that has already failed refuses to be cancelled; the read says so too.
    reader.cancel(signal.reason).catch(() => {});
  };
  /** @type {EndFrame | undefined} */
  let end;
  signal.addEventListener("abort", cancel);
  try {
    if (signal.aborted) cancel();
    let turn = now();
    for (;;) {
      const asked = now();
      const { value, done } = await reader.read();
      // Where reading had to wait, the page has had its turn.
      if (now() - asked >= 1) turn = now();
      // What comes after the feed's end is only waited for: the browser reports on a request that has ended.
      if (end !== undefined && !done && !signal.aborted) continue;
      if (end !== undefined) return { how: "ended", end };
      if (signal.aborted) return { how: "lost", cause: signal.reason };
      if (done) {
        const inside = decoder.atBoundary ? "" : ", inside a frame";
        return { how: "lost", cause: new Error(`the stream ended before the feed did${inside}`) };
      }
      onBytes(value.byteLength);
      decoder.push(value);
      for (let frame = decoder.pop(); frame !== undefined; frame = decoder.pop()) {
        onFrame(frame);
        if (frame.type === "end") {
          end = frame;
          break;
        }
        // Who stops in the middle gets nothing more, though more is here.
        if (signal.aborted) return { how: "lost", cause: signal.reason };
        if (now() - turn > TURN_MS) {
          await breathe();
          if (signal.aborted) return { how: "lost", cause: signal.reason };
          turn = now();
        }
      }
    }
  } catch (cause) {
    if (end !== undefined) return { how: "ended", end };
    cancel();
    return { how: cause instanceof FrameError ? "bad" : "lost", cause: signal.aborted ? signal.reason : cause };
  } finally {
    signal.removeEventListener("abort", cancel);
    reader.releaseLock();
  }
}
