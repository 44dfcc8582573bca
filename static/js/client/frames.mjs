// @ts-check
/**
 * Reads the `frames` format out of the pieces of a stream: bytes in, frames out. The server's
 * counterpart is `crates/proto/src/feed/frames.rs`; `crates/proto/tests/vectors/frames.json` holds for both.
 *
 * @typedef {{ type: "chunk", seq: number, micros: number, bytes: Uint8Array }} ChunkFrame `micros`
 *   is when it was published, since 1970
 * @typedef {{ type: "gap", from: number, missing: number, restarted: boolean }} GapFrame
 * @typedef {{ type: "end", failed: boolean, reason: string }} EndFrame
 * @typedef {{ type: "begin", epoch: string, next?: number }} BeginFrame `epoch` as a cursor has it:
 *   hexadecimal; `next` is the number of the chunk that comes next, unless some are missing
 * @typedef {{ type: "heartbeat" }} HeartbeatFrame
 * @typedef {{ type: "sparse" }} SparseFrame numbers are left out between the feed's chunks
 * @typedef {{ type: "stalled", stalled: boolean, cause?: string }} StalledFrame nothing can come now to the server, and
 *   why, if it says that; or it can again
 * @typedef {{ type: "expired" }} ExpiredFrame the viewer's right to read has ended: the last frame
 * @typedef {ChunkFrame | GapFrame | EndFrame | BeginFrame | HeartbeatFrame | SparseFrame | StalledFrame | ExpiredFrame} Frame
 */

/** The longest payload that the page accepts; the server's own chunks have at most 64 KiB. */
export const MAX_PAYLOAD = 16 * 1024 * 1024;

/** What is gathered is gathered in buffers of at least this size. */
const MIN_BUFFER = 4096;

const CHUNK = 0;
const GAP = 1;
const END = 2;
const BEGIN = 3;
const HEARTBEAT = 4;
const SPARSE = 5;
const STALLED = 6;
const EXPIRED = 7;

/** The bytes are no frames, or none that a Number can hold; nothing more can be read then. */
export class FrameError extends Error {
  /**
   * @param {"short" | "long" | "big"} kind
   * @param {string} message
   */
  constructor(kind, message) {
    super(message);
    this.name = "FrameError";
    this.kind = kind;
  }
}

/**
 * Takes time in proportion to the bytes, however they are cut: a byte is copied a bounded number of
 * times, and a frame's head is read once.
 */
export class FrameDecoder {
  /** Bytes from `#start` to `#end` are unread. What was handed out is never written to again. */
  /** @type {Uint8Array} */
  #buffer = new Uint8Array(0);
  #start = 0;
  #end = 0;
  /** @type {{ kind: number, length: number } | undefined} the head of the frame that is coming */
  #head;
  /** @type {FrameError | undefined} */
  #failed;

  /** @param {number} [limit] the longest payload that is accepted */
  constructor(limit = MAX_PAYLOAD) {
    this.limit = limit;
  }

  /** Whether the stream may end here: not inside a frame. */
  get atBoundary() {
    return this.#start === this.#end && this.#head === undefined;
  }

  /**
   * Takes the next bytes of the stream; they must not be changed afterwards.
   * @param {Uint8Array} bytes
   */
  push(bytes) {
    const unread = this.#end - this.#start;
    if (bytes.length > this.#buffer.length - this.#end) {
      if (unread === 0) {
        this.#buffer = bytes;
        this.#start = 0;
        this.#end = bytes.length;
        return;
      }
      // Twice as much as there is, so that a long frame in short pieces is moved only so often.
      const larger = new Uint8Array(Math.max(2 * unread, unread + bytes.length, MIN_BUFFER));
      larger.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = larger;
      this.#start = 0;
      this.#end = unread;
    }
    this.#buffer.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /**
   * @returns {Frame | undefined} the next frame; undefined until more bytes come
   * @throws {FrameError}
   */
  pop() {
    if (this.#failed !== undefined) throw this.#failed;
    try {
      for (;;) {
        const head = (this.#head ??= this.#readHead());
        if (head === undefined || this.#end - this.#start < head.length) return undefined;
        const payload = this.#buffer.subarray(this.#start, this.#start + head.length);
        this.#start += head.length;
        this.#head = undefined;
        const frame = read(head.kind, payload);
        if (frame !== undefined) return frame;
      }
    } catch (error) {
      if (error instanceof FrameError) this.#failed = error;
      throw error;
    }
  }

  #readHead() {
    const unread = this.#buffer.subarray(this.#start, this.#end);
    const first = varintLength(unread, 0);
    if (first === 0) return undefined;
    const second = varintLength(unread, first);
    if (second === 0) return undefined;
    const length = approximate(unread, first);
    if (length > this.limit) {
      throw new FrameError("long", `a frame of ${length} bytes is longer than this reader accepts`);
    }
    this.#start += first + second;
    return { kind: approximate(unread, 0), length };
  }
}

/**
 * @param {number} kind
 * @param {Uint8Array} payload
 * @returns {Frame | undefined} undefined: of an unknown type, to be skipped
 */
function read(kind, payload) {
  let at = 0;
  const skip = () => {
    const length = varintLength(payload, at);
    if (length === 0) throw new FrameError("short", "a frame's payload is too short for its type");
    const here = at;
    at += length;
    return here;
  };
  const integer = () => {
    const value = approximate(payload, skip());
    if (value > Number.MAX_SAFE_INTEGER) throw new FrameError("big", "a number in a frame is above 2^53 - 1");
    return value;
  };
  switch (kind) {
    case CHUNK: {
      const seq = integer();
      const micros = integer();
      return { type: "chunk", seq, micros, bytes: payload.subarray(at) };
    }
    case GAP: {
      const from = integer();
      const missing = integer();
      return { type: "gap", from, missing, restarted: approximate(payload, skip()) !== 0 };
    }
    case END: {
      const failed = approximate(payload, skip()) !== 0;
      const reason = new TextDecoder("utf-8", { ignoreBOM: true }).decode(payload.subarray(at));
      return { type: "end", failed, reason: failed ? reason : "" };
    }
    case BEGIN: {
      const epoch = exact(payload, skip()).toString(16);
      // The first servers did not say what comes next.
      return varintLength(payload, at) === 0 ? { type: "begin", epoch } : { type: "begin", epoch, next: integer() };
    }
    case HEARTBEAT:
      return { type: "heartbeat" };
    case SPARSE:
      return { type: "sparse" };
    case STALLED: {
      const stalled = integer() !== 0;
      if (!stalled || at === payload.length) return { type: "stalled", stalled };
      return { type: "stalled", stalled, cause: new TextDecoder("utf-8", { ignoreBOM: true }).decode(payload.subarray(at)) };
    }
    case EXPIRED:
      return { type: "expired" };
    default:
      return undefined;
  }
}

/**
 * The length of QUIC's variable-length integer at `at` (RFC 9000 §16); 0 if it is not all there.
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function varintLength(bytes, at) {
  const first = bytes[at];
  if (first === undefined) return 0;
  const length = 1 << (first >> 6);
  return at + length <= bytes.length ? length : 0;
}

/**
 * The two halves of the integer at `at`, which must be all there.
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {[high: number, low: number]} 30 and 32 bits
 */
function halves(bytes, at) {
  const byte = (/** @type {number} */ i) => /** @type {number} */ (bytes[at + i]);
  const four = (/** @type {number} */ i) => byte(i) * 2 ** 24 + (byte(i + 1) << 16) + (byte(i + 2) << 8) + byte(i + 3);
  const first = byte(0);
  switch (first >> 6) {
    case 0: return [0, first];
    case 1: return [0, ((first & 0x3f) << 8) + byte(1)];
    case 2: return [0, four(0) - 0x8000_0000];
    default: return [four(0) - 0xc000_0000, four(4)];
  }
}

/**
 * The integer at `at`: exact up to 2^53 - 1, and above it at least known to be above.
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function approximate(bytes, at) {
  const [high, low] = halves(bytes, at);
  return high * 2 ** 32 + low;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function exact(bytes, at) {
  const [high, low] = halves(bytes, at);
  return (BigInt(high) << 32n) + BigInt(low);
}
