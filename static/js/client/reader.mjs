// @ts-check
/** @typedef {import("./types.mjs").ChunkRead} ChunkRead */
/** @typedef {import("./types.mjs").Summary} Summary */

/**
 * Reads a stream to its end, whichever transport it came from. Keeps no bytes.
 *
 * Never rejects: how it ended is in the summary. The stream's own backpressure holds, because the
 * next read is asked for only when `onChunk` has returned.
 *
 * @param {ReadableStream<Uint8Array>} stream
 * @param {object} options
 * @param {number} options.startedAt what `at` counts from, on the clock of `now`
 * @param {() => number} options.now milliseconds
 * @param {AbortSignal} options.signal stops reading and cancels the stream
 * @param {(chunk: ChunkRead) => void} options.onChunk
 * @returns {Promise<Summary>}
 */
export async function readStream(stream, { startedAt, now, signal, onChunk }) {
  // ignoreBOM keeps a byte order mark in the text instead of swallowing it.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let chunks = 0;
  let bytes = 0;
  /** @type {number | null} */
  let firstAt = null;
  /** @type {number | null} */
  let previous = null;

  /**
   * @param {Summary["outcome"]} outcome
   * @param {unknown} [cause]
   * @returns {Summary}
   */
  const summary = (outcome, cause) => ({
    outcome, chunks, bytes, firstAt, duration: now() - startedAt, tail: decoder.decode(), cause,
  });

  const reader = stream.getReader();
  const cancel = () => {
    // A stream that has already failed refuses to be cancelled; the read says so too.
    reader.cancel(signal.reason).catch(() => {});
  };
  signal.addEventListener("abort", cancel);
  try {
    if (signal.aborted) cancel();
    for (;;) {
      const { value, done } = await reader.read();
      const at = now() - startedAt;
      if (signal.aborted) return summary("stopped");
      if (done) return summary("ended");
      if (value.byteLength === 0) continue;
      firstAt ??= at;
      bytes += value.byteLength;
      const text = decoder.decode(value, { stream: true });
      onChunk({ index: chunks, at, gap: previous === null ? null : at - previous, bytes: value.byteLength, text });
      chunks += 1;
      previous = at;
    }
  } catch (cause) {
    if (signal.aborted) return summary("stopped");
    cancel();
    return summary("failed", cause);
  } finally {
    signal.removeEventListener("abort", cancel);
    reader.releaseLock();
  }
}
