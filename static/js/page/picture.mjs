// @ts-check
/** What kind of image bytes are, and whether they are all of it: by the bytes alone, whatever anyone claims. */

/** The most that is shown; beyond it, the download is offered. */
export const MAX_PICTURE = 16_000_000;

/** The same for a document of text. */
export const MAX_DOCUMENT = 1_000_000;
/** How many bytes tell the kind of an image. */
const HEAD = 12;
/** What one begins with, that is shown as more than its lines: `<`, `{`, `[`. */
const DOCUMENT = [0x3c, 0x7b, 0x5b];
/** What an image may begin with; the length of its first box, if it is an AVIF. */
const FIRST = [0x89, 0xff, 0x47, 0x52, 0x00];

/** @typedef {{ type: string, name: string }} Kind */

const PNG = { type: "image/png", name: "PNG" };
const JPEG = { type: "image/jpeg", name: "JPEG" };
const GIF = { type: "image/gif", name: "GIF" };
const WEBP = { type: "image/webp", name: "WebP" };
const AVIF = { type: "image/avif", name: "AVIF" };
/** Never guessed: only a server that names it is believed. It is shown where its scripts do not run. */
export const SVG = { type: "image/svg+xml", name: "SVG" };

/**
 * @param {Uint8Array} bytes the beginning
 * @returns {Kind | undefined} undefined: it is none that is shown
 */
export function kindOf(bytes) {
  if (!FIRST.includes(bytes[0] ?? -1)) return undefined;
  const at = (/** @type {number} */ from, /** @type {string} */ text) => latin(bytes, from, from + text.length) === text;
  if (at(0, "\x89PNG\r\n\x1a\n")) return PNG;
  if (at(0, "\xff\xd8\xff")) return JPEG;
  if (at(0, "GIF87a") || at(0, "GIF89a")) return GIF;
  if (at(0, "RIFF") && at(8, "WEBP")) return WEBP;
  if (at(4, "ftyp") && (at(8, "avif") || at(8, "avis"))) return AVIF;
  return undefined;
}

/**
 * Whether an image ends where its bytes do.
 * @param {Kind} kind
 * @param {Pieces} pieces
 */
function isWhole({ type }, pieces) {
  const ends = (/** @type {string} */ text) => {
    const end = pieces.read(pieces.size - text.length, text.length);
    return latin(end, 0, end.length) === text;
  };
  switch (type) {
    case PNG.type: return ends("\0\0\0\0IEND\xaeB\x60\x82");
    case JPEG.type: return ends("\xff\xd9");
    case GIF.type: return ends("\0;");
    // Of an odd length it is padded.
    case WEBP.type: return [8, 9].includes(pieces.size - numberAt(pieces, 4, true));
    case AVIF.type: return pieces.boxesEnd();
    default: return false;
  }
}

/** Bytes in pieces, of which a few are looked at. */
class Pieces {
  /** @type {Uint8Array[]} */
  all = [];
  size = 0;
  /** Where the next box of an AVIF begins, as far as that is known. */
  #box = 0;
  /** The box with the pixels has begun. */
  #pixels = false;

  /** @param {Uint8Array} bytes */
  add(bytes) {
    this.all.push(bytes);
    this.size += bytes.length;
  }

  /**
   * @param {number} from
   * @param {number} length
   * @returns {Uint8Array} shorter where there is no more
   */
  read(from, length) {
    const found = new Uint8Array(Math.max(0, Math.min(length, this.size - Math.max(from, 0))));
    // From the end, where most of it is looked for.
    let end = this.size;
    for (let i = this.all.length - 1; i >= 0 && end > from; i -= 1) {
      const piece = /** @type {Uint8Array} */ (this.all[i]);
      const start = end - piece.length;
      const part = piece.subarray(Math.max(0, from - start), Math.max(0, from + length - start));
      if (part.length > 0) found.set(part, Math.max(0, start - Math.max(from, 0)));
      end = start;
    }
    return found;
  }

  /** Whether boxes, each with its length in front, fill the bytes (ISO/IEC 14496-12 §4.2). */
  boxesEnd() {
    while (this.#box + 8 <= this.size) {
      this.#pixels ||= latin(this.read(this.#box + 4, 4), 0, 4) === "mdat";
      let length = numberAt(this, this.#box, false);
      if (length === 1) length = numberAt(this, this.#box + 8, false) * 2 ** 32 + numberAt(this, this.#box + 12, false);
      // One of no length goes on to the end of the file, wherever that is.
      if (length < 8) return length === 0;
      this.#box += length;
    }
    return this.#pixels && this.#box === this.size;
  }
}

/**
 * Four bytes as a number.
 * @param {Pieces} pieces
 * @param {number} at
 * @param {boolean} little whether the least of them comes first
 */
function numberAt(pieces, at, little) {
  const bytes = pieces.read(at, 4);
  return bytes.length < 4 ? NaN : new DataView(bytes.buffer).getUint32(0, little);
}

/**
 * @param {Uint8Array} bytes
 * @param {number} from
 * @param {number} end
 */
function latin(bytes, from, end) {
  return String.fromCharCode(...bytes.subarray(Math.max(from, 0), end));
}

/**
 * Gathers the images that a feed brings: one after the other of a live feed, each in one chunk or several; or the one
 * that a whole feed is. And a whole feed that may be a document which is shown in another way than line by line.
 */
export class Pictures {
  #events;
  #whole;
  /** What may become an image or a document; undefined: neither is looked for any more. @type {Pieces | undefined} */
  #pieces = new Pieces();
  /** @type {Kind | undefined} */
  #kind;
  /** How many images have come. */
  count = 0;

  /**
   * @param {object} events
   * @param {(kind: Kind, bytes: Uint8Array[]) => void} events.onImage
   * @param {(kind: Kind) => void} events.onLarge there is an image that is too large to be shown
   * @param {() => void} events.onTorn an image began, and not all of it came
   * @param {(bytes: Uint8Array[]) => void} events.onDocument the feed is over, and may be SVG or JSON
   * @param {boolean} whole whether it is one feed from beginning to end, and not a live one
   */
  constructor(events, whole) {
    this.#events = events;
    this.#whole = whole;
  }

  /** @param {{ seq: number, bytes: Uint8Array }} chunk */
  add({ seq, bytes }) {
    // A camera that broke off begins its next image in a chunk of its own.
    if (!this.#whole && kindOf(bytes) !== undefined) this.broken();
    const pieces = this.#pieces;
    if (pieces === undefined) return;
    const before = pieces.size;
    if (this.#whole && before === 0 && seq !== 0) {
      // The rest of something is no image.
      this.#pieces = undefined;
      return;
    }
    // Most live feeds are text.
    if (!this.#whole && before === 0 && !FIRST.includes(bytes[0] ?? -1)) return;
    pieces.add(bytes);
    // Where lines are split, an image is too, also within what tells its kind.
    if (before < HEAD) {
      const head = pieces.read(0, HEAD);
      this.#kind = kindOf(head);
      const open = head.length < HEAD ? FIRST.includes(head[0] ?? -1) : this.#kind !== undefined;
      if (!open && !(this.#whole && DOCUMENT.includes(head[0] ?? 0))) {
        this.#again();
        return;
      }
    }
    const kind = this.#kind;
    if (pieces.size > (kind === undefined ? MAX_DOCUMENT : MAX_PICTURE)) {
      this.#again();
      if (kind !== undefined) this.#events.onLarge(kind);
    } else if (!this.#whole && kind !== undefined && isWhole(kind, pieces)) {
      this.count += 1;
      this.#again();
      this.#events.onImage(kind, pieces.all);
    }
  }

  /** Looks for the next image, if there can be one. */
  #again() {
    this.#pieces = this.#whole ? undefined : new Pieces();
    this.#kind = undefined;
  }

  /** Something is missing: what comes is not all of anything. */
  broken() {
    const torn = this.#kind !== undefined;
    this.#again();
    if (torn) this.#events.onTorn();
  }

  /** The feed is over, and all of it has come. */
  ended() {
    const [pieces, kind] = [this.#pieces, this.#kind];
    this.#pieces = undefined;
    if (!this.#whole || pieces === undefined || pieces.size === 0) return;
    if (kind === undefined) this.#events.onDocument(pieces.all);
    else this.#events.onImage(kind, pieces.all);
  }
}
