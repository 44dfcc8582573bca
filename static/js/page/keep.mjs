// @ts-check
/** How many rows the log keeps. */
export const MAX_ROWS = 2000;
/** How many characters of text the log keeps, over all its rows: large reads would pin memory. */
export const MAX_TEXT = 2_000_000;

/**
 * Which of a log's rows still fit: a queue of row sizes with two limits. The newest row always fits.
 */
export class Keep {
  /** @type {number[]} */
  #sizes = [];
  #first = 0;
  #text = 0;

  /**
   * @param {number} [maxRows]
   * @param {number} [maxText]
   */
  constructor(maxRows = MAX_ROWS, maxText = MAX_TEXT) {
    this.maxRows = maxRows;
    this.maxText = maxText;
    /** How many rows were let go since the last `clear`. */
    this.dropped = 0;
  }

  get rows() {
    return this.#sizes.length - this.#first;
  }

  clear() {
    this.#sizes = [];
    this.#first = 0;
    this.#text = 0;
    this.dropped = 0;
  }

  /**
   * Counts a new row in.
   * @param {number} characters
   * @returns {number} how many of the oldest rows have to go
   */
  add(characters) {
    this.#sizes.push(characters);
    this.#text += characters;
    let out = 0;
    while (this.rows > 1 && (this.rows > this.maxRows || this.#text > this.maxText)) {
      this.#text -= /** @type {number} */ (this.#sizes[this.#first]);
      this.#first += 1;
      out += 1;
    }
    if (this.#first > this.maxRows) {
      this.#sizes = this.#sizes.slice(this.#first);
      this.#first = 0;
    }
    this.dropped += out;
    return out;
  }
}
