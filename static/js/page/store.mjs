// @ts-check
import { PLAIN, parseAnsi } from "./ansi.mjs";
import { wholePart } from "./whole.mjs";

/** How many bytes of a feed are kept for looking back, search and download. */
export const MAX_BYTES = 16_000_000;
/** How many chunks and marks are kept; each costs 44 bytes more. */
export const MAX_ENTRIES = 50_000;

const ESCAPE = 0x1b;

/**
 * @typedef {object} Mark something that happened between two chunks
 * @property {"gap" | "restart" | "lost" | "back" | "end"} kind
 * @property {string} text
 *
 * @typedef {object} Entry
 * @property {number} index counts from 0 and never begins again
 * @property {Mark | undefined} mark undefined: it is a chunk
 * @property {number} seq
 * @property {number} micros
 * @property {number} at
 * @property {number | null} gap
 * @property {number} size bytes of the chunk as it came
 * @property {number} style the terminal's style before its first character
 * @property {string} text
 */

/**
 * The latest of what was received, in memory of a fixed size: one ring of bytes, and rings of
 * numbers that say what they are. The oldest go when there is no room.
 */
export class Store {
  #maxBytes;
  #maxEntries;
  /** @type {Uint8Array} made when the first chunk comes */
  #ring = new Uint8Array(0);
  /** Where the next bytes go; it only grows, and is taken modulo the ring's size. */
  #write = 0;
  #pos;
  #length;
  #seq;
  #micros;
  #at;
  #gap;
  #size;
  #style;
  /** @type {Map<number, Mark>} */
  #marks = new Map();
  #now = PLAIN;
  /** The beginning of a character or escape sequence that the next chunk may complete. */
  #carry = new Uint8Array(0);

  /** The oldest entry, and the one that comes next. */
  first = 0;
  end = 0;
  /** Bytes kept. */
  bytes = 0;
  /** What was let go. */
  dropped = { chunks: 0, bytes: 0 };

  /**
   * @param {number} [maxBytes]
   * @param {number} [maxEntries]
   */
  constructor(maxBytes = MAX_BYTES, maxEntries = MAX_ENTRIES) {
    this.#maxBytes = maxBytes;
    this.#maxEntries = maxEntries;
    const floats = () => new Float64Array(maxEntries);
    this.#pos = floats();
    this.#seq = floats();
    this.#micros = floats();
    this.#at = floats();
    this.#gap = new Float32Array(maxEntries);
    this.#length = new Uint32Array(maxEntries);
    this.#size = new Uint32Array(maxEntries);
    this.#style = new Uint16Array(maxEntries);
  }

  clear() {
    this.#marks.clear();
    this.first = this.end;
    this.bytes = 0;
    this.dropped = { chunks: 0, bytes: 0 };
    this.#reset();
  }

  /** What comes next does not go on where the last chunk ended. */
  #reset() {
    this.#now = PLAIN;
    this.#carry = new Uint8Array(0);
  }

  /** @param {{ seq: number, micros: number, at: number, gap: number | null, bytes: Uint8Array }} chunk */
  add({ seq, micros, at, gap, bytes }) {
    let body = bytes;
    if (this.#carry.length > 0) {
      body = new Uint8Array(this.#carry.length + bytes.length);
      body.set(this.#carry);
      body.set(bytes, this.#carry.length);
    }
    const whole = wholePart(body);
    this.#carry = whole < body.length ? body.slice(whole) : new Uint8Array(0);
    this.#put(body.subarray(0, whole), { seq, micros, at, gap, size: bytes.length });
  }

  /** @param {Mark} mark */
  mark(mark) {
    this.flush();
    this.#reset();
    const slot = this.#slot();
    this.#pos[slot] = this.#write;
    this.#length[slot] = 0;
    this.#marks.set(this.end, mark);
    this.end += 1;
  }

  /** Keeps what the last chunk ended with, though it was never completed. */
  flush() {
    if (this.#carry.length === 0 || this.end === this.first) return;
    const carry = this.#carry;
    this.#carry = new Uint8Array(0);
    const last = (this.end - 1) % this.#maxEntries;
    this.#put(carry, {
      seq: this.#seq[last] ?? 0, micros: this.#micros[last] ?? 0, at: this.#at[last] ?? 0, gap: null, size: 0,
    });
  }

  /**
   * @param {Uint8Array} bytes
   * @param {{ seq: number, micros: number, at: number, gap: number | null, size: number }} about
   */
  #put(bytes, { seq, micros, at, gap, size }) {
    if (this.#ring.length === 0) this.#ring = new Uint8Array(this.#maxBytes);
    // A chunk that would fill more than the whole ring cannot be kept; the server's are far shorter.
    const kept = bytes.subarray(0, this.#maxBytes);
    const offset = this.#write % this.#maxBytes;
    // Each chunk lies in one piece.
    if (offset + kept.length > this.#maxBytes) this.#write += this.#maxBytes - offset;
    while (this.first < this.end && this.#write + kept.length - this.#posOf(this.first) > this.#maxBytes) this.#drop();
    const slot = this.#slot();
    this.#ring.set(kept, this.#write % this.#maxBytes);
    this.#pos[slot] = this.#write;
    this.#write += kept.length;
    this.#length[slot] = kept.length;
    this.#seq[slot] = seq;
    this.#micros[slot] = micros;
    this.#at[slot] = at;
    this.#gap[slot] = gap ?? -1;
    this.#size[slot] = size;
    this.#style[slot] = this.#now;
    if (kept.includes(ESCAPE)) this.#now = parseAnsi(decode(kept), this.#now).style;
    this.bytes += kept.length;
    this.end += 1;
  }

  /** @returns {number} a place for one entry more */
  #slot() {
    if (this.end - this.first === this.#maxEntries) this.#drop();
    return this.end % this.#maxEntries;
  }

  #drop() {
    const length = this.#length[this.first % this.#maxEntries] ?? 0;
    if (!this.#marks.delete(this.first)) {
      this.dropped.chunks += 1;
      this.dropped.bytes += length;
      this.bytes -= length;
    }
    this.first += 1;
  }

  /** @param {number} index */
  #posOf(index) {
    return this.#pos[index % this.#maxEntries] ?? 0;
  }

  /**
   * @param {number} index
   * @returns {Uint8Array} only good until the next chunk is added
   */
  #view(index) {
    const offset = this.#posOf(index) % this.#maxBytes;
    return this.#ring.subarray(offset, offset + (this.#length[index % this.#maxEntries] ?? 0));
  }

  /**
   * @param {number} index
   * @returns {Entry | undefined} undefined: it is not kept
   */
  entry(index) {
    if (index < this.first || index >= this.end) return undefined;
    const slot = index % this.#maxEntries;
    const gap = this.#gap[slot] ?? -1;
    return {
      index,
      mark: this.#marks.get(index),
      seq: this.#seq[slot] ?? 0,
      micros: this.#micros[slot] ?? 0,
      at: this.#at[slot] ?? 0,
      gap: gap < 0 ? null : gap,
      size: this.#size[slot] ?? 0,
      style: this.#style[slot] ?? PLAIN,
      text: this.text(index),
    };
  }

  /** @param {number} index of an entry that is kept */
  text(index) {
    return this.#marks.has(index) ? "" : decode(this.#view(index));
  }

  /** @param {number} index */
  isMark(index) {
    return this.#marks.has(index);
  }

  /** All that is kept, as it came. */
  blob() {
    const ids = Array.from({ length: this.end - this.first }, (_, i) => this.first + i);
    return this.blobOf(ids, this.#carry);
  }

  /**
   * @param {number[]} ids entries
   * @param {Uint8Array} [rest]
   */
  blobOf(ids, rest = new Uint8Array(0)) {
    const parts = ids.filter((id) => id >= this.first && !this.#marks.has(id)).map((id) => this.#view(id));
    return new Blob(/** @type {Uint8Array<ArrayBuffer>[]} */ ([...parts, rest]), { type: "application/octet-stream" });
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** @param {Uint8Array} bytes */
function decode(bytes) {
  return decoder.decode(bytes);
}
