// @ts-check
/** One feed over one transport, once: each of these resolves at the feed's end, and rejects with what went wrong. */
import { ClientError, broken, feedFailed, tokenExpired } from "../client/errors.mjs";
import { openFetch } from "../client/fetch-source.mjs";
import { readFrames } from "../client/frame-reader.mjs";
import { orAbort } from "../client/or-abort.mjs";
import { UNKNOWN, watchProtocol } from "../client/timing.mjs";
import { openSession, openWebTransport } from "../client/webtransport-source.mjs";
import { stamp } from "./compare-tally.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */
/** @typedef {import("../client/types.mjs").Source} Source */
/** @typedef {import("./compare-tally.mjs").Tally} Tally */

/**
 * @typedef {object} Run
 * @property {Env} env
 * @property {AbortSignal} signal
 * @property {Tally} tally
 * @property {string} url
 * @property {boolean} stamped the chunks themselves have their number and time: those of the demo feed
 * @property {() => void} onOpen
 * @property {(protocol: string) => void} onProtocol what the browser reports, when it does
 *
 * @typedef {Run & { certificateHashes: import("../client/info.mjs").CertificateHash[] }} SessionRun
 */

/** How long the end of a stream waits for the browser's report on it. */
const REPORT_MS = 1000;
/** How long datagrams may come after the word that all have been sent. */
const LATE_MS = 300;
/** A number and a time fit into this many bytes. */
const STAMP = 64;

const decoder = new TextDecoder();

/** @param {Run} run */
export async function byFetch(run) {
  const source = await openFetch(run);
  try {
    await frames(source, run);
  } finally {
    const protocol = await source.protocol(REPORT_MS);
    if (protocol !== UNKNOWN) run.onProtocol(protocol);
    source.close();
  }
}

/** @param {SessionRun} run */
export async function byStream(run) {
  const source = await openWebTransport(run);
  try {
    await frames(source, run);
  } finally {
    source.close();
  }
}

/**
 * @param {Source} source
 * @param {Run} run
 */
async function frames(source, { env, signal, tally, stamped, onOpen }) {
  tally.startedAt = source.startedAt;
  onOpen();
  let over = false;
  let expired = false;
  const end = await readFrames(source.stream, {
    now: () => env.performance.now(),
    breathe: env.breathe,
    signal,
    onBytes: () => {},
    onFrame: (frame) => {
      if (frame.type === "sparse") tally.sparse = true;
      if (frame.type === "gap" && frame.restarted) tally.restarted();
      if (frame.type === "gap" && !frame.restarted) tally.sentUpTo(frame.from + frame.missing);
      if (frame.type === "expired") expired = true;
      if (frame.type === "chunk") arrived(tally, env, frame.bytes, { number: frame.seq, due: frame.micros / 1000 }, stamped);
      over ||= frame.type === "end";
    },
  });
  if (signal.aborted && !over) return;
  if (expired) throw tokenExpired();
  if (end.how === "ended") {
    if (end.end.failed) throw feedFailed(end.end.reason);
    return;
  }
  throw end.how === "bad" ? broken("The received data is not in the format that this page reads.", end.cause, true) : await source.failure(end.cause, tally.bytes);
}

/**
 * Counts a chunk.
 * @param {Tally} tally
 * @param {Env} env
 * @param {Uint8Array} bytes
 * @param {{ number: number | null, due: number | null }} told by the transport
 * @param {boolean} stamped
 */
function arrived(tally, env, bytes, told, stamped) {
  const at = env.performance.now();
  const own = stamped ? stamp(decoder.decode(bytes.subarray(0, STAMP))) : { number: null, due: null };
  const due = own.due ?? told.due;
  const lag = due === null ? null : env.performance.timeOrigin + at - due;
  tally.add({ at, bytes: bytes.byteLength, number: told.number ?? own.number, lag });
}

/**
 * The browser's own reader of events, which tells no times; the chunks of the demo feed have theirs.
 * @param {Run & { EventSource: typeof globalThis.EventSource }} run
 */
export async function byEvents(run) {
  const { env, signal, tally, url, stamped, onOpen, onProtocol } = run;
  const timing = watchProtocol(url, env);
  tally.startedAt = env.performance.now();
  const source = new run.EventSource(url);
  const encoder = new TextEncoder();
  try {
    await orAbort(new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      source.onopen = onOpen;
      source.onmessage = ({ data, lastEventId }) => {
        // The newline at a chunk's end is not part of its event.
        const bytes = encoder.encode(stamped ? `${data}\n` : data);
        const seq = /-(\d+)$/.exec(lastEventId);
        arrived(tally, env, bytes, { number: seq === null ? null : Number(seq[1]), due: null }, stamped);
      };
      /** @param {(told: any) => void} act @returns {(event: Event) => void} */
      const told = (act) => (event) => act(JSON.parse(String(/** @type {MessageEvent} */ (event).data)));
      source.addEventListener("gap", told((gap) => (gap.restarted ? tally.restarted() : tally.sentUpTo(gap.from + gap.missing))));
      source.addEventListener("end", told(({ error }) => (error === undefined ? resolve() : reject(feedFailed(error)))));
      source.addEventListener("expired", () => reject(tokenExpired()));
      source.addEventListener("refused", told(({ detail, title }) => reject(new ClientError(`The server refused: ${detail ?? title}`, []))));
      source.onerror = () => reject(new ClientError("The EventSource was cut off. Browsers do not say why.", []));
    }), signal);
  } catch (cause) {
    if (!signal.aborted) throw cause;
  } finally {
    source.close();
    const protocol = await timing.protocol(REPORT_MS);
    if (protocol !== UNKNOWN) onProtocol(protocol);
    timing.stop();
  }
}

/**
 * One datagram for each chunk, and a stream that tells of those that were too long for one.
 * @param {SessionRun & { onTooLong: (chunks: number) => void }} run
 */
export async function byDatagrams(run) {
  const { env, signal, tally, stamped, onOpen, onTooLong } = run;
  const { session, startedAt, ended, why, close } = await openSession(run);
  tally.startedAt = startedAt;
  onOpen();
  const datagrams = /** @type {ReadableStream<Uint8Array>} */ (session.datagrams.readable).getReader();
  let tooLong = 0;
  /** How many the server has sent, once it says so. */
  let sent = Infinity;
  let caughtUp = () => {};
  const reading = (async () => {
    for (;;) {
      const { value, done } = await datagrams.read();
      if (done) return;
      arrived(tally, env, value, { number: null, due: null }, stamped);
      if (tally.chunks >= sent) caughtUp();
    }
  })();
  // A session that ends ends this too, and the stream below tells of it.
  reading.catch(() => {});
  try {
    await orAbort(lines(session, (line) => {
      if (line.skipped !== undefined) onTooLong((tooLong += 1));
      if (line.gap?.restarted === false) tally.sentUpTo(line.gap.from + line.gap.missing);
      if (line.expired !== undefined) throw tokenExpired();
      if (line.end !== undefined) {
        sent = line.end.sent;
        if (stamped) tally.sentUpTo(line.end.chunks);
      }
    }), signal);
    if (sent === Infinity) throw new ClientError("The stream of the session ended before the feed did.", []);
    // The last datagrams may be slower than the stream.
    if (tally.chunks < sent) {
      await orAbort(new Promise((/** @type {(value: void) => void} */ resolve) => {
        caughtUp = resolve;
        env.setTimer(resolve, LATE_MS);
      }), signal);
    }
  } catch (cause) {
    if (signal.aborted) return;
    if (cause instanceof ClientError) throw cause;
    await ended(cause);
    throw new ClientError(why() === "" ? "The session was lost." : `The session was lost: ${why()}.`, [], cause);
  } finally {
    close();
  }
}

/**
 * Reads the lines of JSON of the one stream that the server opens.
 * @param {WebTransport} session
 * @param {(line: any) => void} onLine
 */
async function lines(session, onLine) {
  const streams = /** @type {ReadableStream<ReadableStream<Uint8Array>>} */ (session.incomingUnidirectionalStreams).getReader();
  const first = await streams.read();
  if (first.done) return;
  const reader = first.value.getReader();
  const text = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + text.decode(value, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) onLine(JSON.parse(part));
  }
}
