// @ts-check
import { PLAIN, parseAnsi } from "./ansi.mjs";
import { wholePart } from "./whole.mjs";

/** How many bytes of a feed are kept for looking back, search and download. */
export const MAX_BYTES = 16_000_000;
/** How many chunks and marks are kept; each costs 44 bytes more. */
export const MAX_ENTRIES = 50_000;

const ESCAPE = 0x1b;
const NEWLINE = 0x0a;

/**
 * @typedef {object} Mark something that happened between two chunks
 * @property {"gap" | "restart" | "lost" | "stalled" | "back" | "end"} kind
 * @property {string} text
 *
 * @typedef {object} Named one of several feeds in a log
 * @property {string} name
 * @property {number} colour from 1
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
 * @property {Named | undefined} feed where it is from, in a log of several
 */

/** Where a feed's bytes go on: the terminal's style, what is incomplete, and the last chunk of it. */
const fresh = () => ({
  now: PLAIN,
  /** The beginning of a character or escape sequence that the next chunk may complete. */
  carry: new Uint8Array(0),
  last: /** @type {{ seq: number, micros: number, at: number } | undefined} */ (undefined),
});

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
  /** The feeds of a log of several. @type {readonly Named[]} */
  #feeds = [];
  #source;
  /** For each feed. @type {ReturnType<typeof fresh>[]} */
  #tracks = [];

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
    this.#source = new Uint8Array(maxEntries);
  }

  /** @param {readonly Named[]} [feeds] whose chunks come, in a log of several */
  clear(feeds = []) {
    this.#feeds = feeds;
    this.#tracks = [];
    this.#marks.clear();
    // Another log may need the room.
    this.#ring = new Uint8Array(0);
    this.first = this.end;
    this.bytes = 0;
    this.dropped = { chunks: 0, bytes: 0 };
  }

  /** @param {number} source */
  #track(source) {
    return (this.#tracks[source] ??= fresh());
  }

  /**
   * @param {{ seq: number, micros: number, at: number, gap: number | null, bytes: Uint8Array }} chunk
   * @param {number} [source] its feed's place among several
   */
  add({ seq, micros, at, gap, bytes }, source = 0) {
    const track = this.#track(source);
    let body = bytes;
    if (track.carry.length > 0) {
      body = new Uint8Array(track.carry.length + bytes.length);
      body.set(track.carry);
      body.set(bytes, track.carry.length);
    }
    const whole = wholePart(body);
    track.carry = whole < body.length ? body.slice(whole) : new Uint8Array(0);
    track.last = { seq, micros, at };
    this.#put(body.subarray(0, whole), { seq, micros, at, gap, size: bytes.length, source });
  }

  /**
   * @param {Mark} mark
   * @param {number} [source]
   */
  mark(mark, source = 0) {
    this.flush(source);
    // What comes next does not go on where the last chunk ended.
    this.#tracks[source] = fresh();
    const slot = this.#slot();
    this.#pos[slot] = this.#write;
    this.#length[slot] = 0;
    this.#source[slot] = source;
    this.#marks.set(this.end, mark);
    this.end += 1;
  }

  /** Keeps what a feed's last chunk ended with, though it was never completed. @param {number} [source] */
  flush(source = 0) {
    const { carry, last } = this.#track(source);
    if (carry.length === 0 || last === undefined || this.end === this.first) return;
    this.#track(source).carry = new Uint8Array(0);
    this.#put(carry, { ...last, gap: null, size: 0, source });
  }

  /**
   * @param {Uint8Array} bytes
   * @param {{ seq: number, micros: number, at: number, gap: number | null, size: number, source: number }} about
   */
  #put(bytes, { seq, micros, at, gap, size, source }) {
    const track = this.#track(source);
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
    this.#style[slot] = track.now;
    this.#source[slot] = source;
    if (kept.includes(ESCAPE)) track.now = parseAnsi(decode(kept), track.now).style;
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
      feed: this.#feeds[this.#source[slot] ?? 0],
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

  /**
   * An entry as it came, to be put elsewhere.
   * @param {number} index of one that is kept
   */
  raw(index) {
    const slot = index % this.#maxEntries;
    const gap = this.#gap[slot] ?? -1;
    const mark = this.#marks.get(index);
    return {
      source: this.#source[slot] ?? 0,
      mark,
      chunk: mark !== undefined ? undefined : {
        seq: this.#seq[slot] ?? 0, micros: this.#micros[slot] ?? 0, at: this.#at[slot] ?? 0, gap: gap < 0 ? null : gap,
        size: this.#size[slot] ?? 0, style: this.#style[slot] ?? PLAIN, bytes: this.#view(index).slice(),
      },
    };
  }

  /**
   * Takes what another store had: what it did not complete is not in it, and comes by `goOn`.
   * @param {ReturnType<Store["raw"]>} raw
   * @param {number} source
   */
  restore({ chunk, mark }, source) {
    if (mark !== undefined) this.mark(mark, source);
    if (chunk === undefined) return;
    const { seq, micros, at, gap, size, style, bytes } = chunk;
    this.#tracks[source] = { ...fresh(), now: style, last: { seq, micros, at } };
    this.#put(bytes, { seq, micros, at, gap, size, source });
  }

  /** Where a feed's bytes go on. @param {number} source */
  rest(source) {
    return this.#track(source);
  }

  /**
   * A feed goes on here as it would have elsewhere.
   * @param {number} source
   * @param {ReturnType<typeof fresh>} track
   */
  goOn(source, track) {
    this.#tracks[source] = track;
  }

  /** All that is kept, as it came. */
  blob() {
    return this.blobOf(Array.from({ length: this.end - this.first }, (_, i) => this.first + i), true);
  }

  /**
   * What some entries are, as it came; of several feeds, each line after its feed's name.
   * @param {number[]} ids entries
   * @param {boolean} [rest] also what has not been completed
   */
  blobOf(ids, rest = false) {
    const chunks = ids.filter((id) => id >= this.first && !this.#marks.has(id));
    /** @type {(string | Uint8Array)[]} */
    const parts = [];
    if (this.#feeds.length > 0) {
      for (const id of chunks) {
        const bytes = this.#view(id);
        parts.push(`${this.#feeds[this.#source[id % this.#maxEntries] ?? 0]?.name} | `, bytes);
        if (bytes.at(-1) !== NEWLINE) parts.push("\n");
      }
    } else {
      for (const id of chunks) parts.push(this.#view(id));
      if (rest) parts.push(this.#track(0).carry);
    }
    return new Blob(/** @type {(string | Uint8Array<ArrayBuffer>)[]} */ (parts), { type: "application/octet-stream" });
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** @param {Uint8Array} bytes */
function decode(bytes) {
  return decoder.decode(bytes);
}
