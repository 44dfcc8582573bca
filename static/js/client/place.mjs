// @ts-check
/**
 * What a viewer did not get.
 * @typedef {object} Missed
 * @property {number} missing how many chunks
 * @property {boolean} restarted the feed was started again: what comes now is another run of numbers
 * @property {boolean} told false: the server did not say so, the numbers do
 */

/**
 * Where a viewer is in a feed, over as many connections as it takes. Nothing is shown twice, and
 * nothing is missing in silence, whatever the server sends.
 */
export class Place {
  #asked;
  /** The run of numbers that `#next` belongs to, in hexadecimal. @type {string | undefined} */
  #epoch;
  /** The number that comes next, as soon as one is known. @type {number | undefined} */
  #next;
  /** Another run began, and what is missing of it has not been told. */
  #restarted = false;

  /** Numbers are left out between the chunks: a jump is no loss. */
  #sparse = false;

  /** @param {string} from where to begin: `now`, `start`, `-N` for the last N chunks, or after a cursor */
  constructor(from) {
    this.#asked = from;
    const [, epoch, seq] = /^([0-9a-f]{1,16})-(\d+)$/i.exec(from) ?? [];
    if (epoch === undefined) return;
    this.#epoch = BigInt(`0x${epoch}`).toString(16);
    this.#next = Number(seq) + 1;
  }

  get epoch() {
    return this.#epoch;
  }

  get next() {
    return this.#next;
  }

  /** Whether another run has begun and nobody has said what of it is missing. */
  get restarted() {
    return this.#restarted;
  }

  /**
   * The feed has ended: nothing more will be said.
   * @returns {Missed | undefined}
   */
  end() {
    if (!this.#restarted) return undefined;
    this.#restarted = false;
    return { missing: 0, restarted: true, told: true };
  }

  /** What to ask the server for: `from`'s value. */
  get from() {
    if (this.#restarted || this.#next === 0) return "start";
    return this.#next === undefined ? this.#asked : `${this.#epoch}-${this.#next - 1}`;
  }

  /**
   * @param {string} epoch
   * @param {number} [next] the number of the chunk that comes next, unless some are missing
   */
  begin(epoch, next) {
    this.#sparse = false;
    // Of a run that had not begun nothing was lost, and all of the new one is wanted.
    if (this.#next !== undefined && this.#next > 0 && epoch !== this.#epoch) {
      this.#restarted = true;
      this.#next = undefined;
    }
    this.#epoch = epoch;
    // So that what is lost before the first chunk has come is known too.
    if (!this.#restarted) this.#next ??= next;
  }

  /** The feed leaves numbers out. */
  sparse() {
    this.#sparse = true;
  }

  /**
   * @param {import("./frames.mjs").GapFrame} frame
   * @returns {Missed | undefined} undefined: it was told before
   */
  gap({ from, missing, restarted }) {
    const end = from + missing;
    if (!restarted && this.#next !== undefined) {
      const more = end - Math.max(from, this.#next);
      const skipped = Math.max(0, from - this.#next);
      if (more <= 0) return undefined;
      this.#next = end;
      return { missing: more + skipped, restarted: false, told: skipped === 0 };
    }
    const again = restarted || this.#restarted;
    this.#restarted = false;
    this.#next = end;
    return { missing, restarted: again, told: true };
  }

  /**
   * @param {number} seq
   * @returns {{ fresh: boolean, missed: Missed | undefined }} not `fresh`: it was there before
   */
  chunk(seq) {
    if (this.#next !== undefined && seq < this.#next) return { fresh: false, missed: undefined };
    /** @type {Missed | undefined} */
    let missed;
    if (this.#restarted) {
      missed = { missing: seq, restarted: true, told: false };
    } else if (this.#next !== undefined && seq > this.#next && !this.#sparse) {
      missed = { missing: seq - this.#next, restarted: false, told: false };
    }
    this.#restarted = false;
    this.#next = seq + 1;
    return { fresh: true, missed };
  }
}
