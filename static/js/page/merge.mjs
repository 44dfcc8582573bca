// @ts-check
/**
 * How long a chunk waits for older ones of other feeds. Longer than what connections to one server differ by as a rule,
 * shorter than what a reader notices.
 */
export const WAIT_MS = 250;
/** They are given together every so often: a timer for each chunk costs more. */
const STEP_MS = 25;
/** How long all wait for a feed that has not been opened yet, and for its history. */
export const START_MS = 3000;
/** What waits at most, in chunks and bytes: the oldest go then, whatever may still come. */
export const MAX_WAITING = 20_000;
export const MAX_WAITING_BYTES = 8_000_000;

/**
 * Puts what several feeds bring into one order, by the time of publication. Each feed's own order stays. A chunk waits
 * until every other feed is known to be past its time, and for `WAIT_MS` at most: one that comes later than that stands
 * where it came.
 *
 * @template T
 */
export class Merge {
  #give;
  #env;
  #timer = 0;
  /** When the timer fires. */
  #timerAt = 0;
  /** Until when all wait for the feeds to open. */
  #holdUntil;
  #count = 0;
  #bytes = 0;
  /** @type {{ waiting: { time: number, at: number, size: number, item: T }[], from: number, last: number, opened: boolean, over: boolean }[]} */
  #feeds;

  /**
   * @param {number} feeds how many
   * @param {(item: T, feed: number) => void} give takes what is next
   * @param {{ now: () => number, setTimer: (callback: () => void, ms: number) => number, clearTimer: (handle: number) => void }} env
   */
  constructor(feeds, give, env) {
    this.#give = give;
    this.#env = env;
    this.#holdUntil = env.now() + START_MS;
    this.#feeds = Array.from({ length: feeds }, () => ({ waiting: [], from: 0, last: -Infinity, opened: false, over: false }));
  }

  /** How many wait. */
  get waiting() {
    return this.#count;
  }

  /**
   * @param {number} feed
   * @param {number} time of publication; the feed's last where there is none
   * @param {T} item
   * @param {number} size bytes
   */
  add(feed, time, item, size) {
    const own = this.#feeds[feed];
    if (own === undefined) return;
    // The order of a feed holds, also where its clock went back.
    own.last = Math.max(own.last, time);
    own.waiting.push({ time: own.last, at: this.#env.now(), size, item });
    this.#count += 1;
    this.#bytes += size;
    this.#work();
  }

  /** A feed has been opened: its history is about to come. @param {number} feed */
  opened(feed) {
    this.#begun(feed, false);
  }

  /** Nothing more comes of a feed, or nobody knows when. @param {number} feed */
  over(feed) {
    this.#begun(feed, true);
  }

  /**
   * @param {number} feed
   * @param {boolean} over
   */
  #begun(feed, over) {
    const own = this.#feeds[feed];
    if (own === undefined) return;
    const first = !own.opened;
    own.opened = true;
    own.over = over;
    if (first && this.#feeds.every(({ opened }) => opened)) {
      this.#holdUntil = Math.min(this.#holdUntil, this.#env.now() + WAIT_MS);
    }
    this.#work();
  }

  /** Gives all that waits, and stops. */
  end() {
    this.#env.clearTimer(this.#timer);
    this.#timer = 0;
    for (let next = this.#oldest(); next !== undefined; next = this.#oldest()) this.#take(next);
  }

  /** The feed whose next is the oldest of all. */
  #oldest() {
    /** @type {number | undefined} */
    let found;
    let time = Infinity;
    this.#feeds.forEach(({ waiting, from }, feed) => {
      const next = waiting[from];
      if (next !== undefined && (found === undefined || next.time < time)) [found, time] = [feed, next.time];
    });
    return found;
  }

  /** @param {number} feed */
  #take(feed) {
    const own = this.#feeds[feed];
    const next = own?.waiting[own.from];
    if (own === undefined || next === undefined) return;
    own.from += 1;
    // Now and then, so that each is moved a bounded number of times.
    if (own.from * 2 > own.waiting.length) {
      own.waiting.splice(0, own.from);
      own.from = 0;
    }
    this.#count -= 1;
    this.#bytes -= next.size;
    this.#give(next.item, feed);
  }

  #work() {
    for (let feed = this.#oldest(); feed !== undefined; feed = this.#oldest()) {
      const full = this.#count > MAX_WAITING || this.#bytes > MAX_WAITING_BYTES;
      if (!full && !this.#passed(feed)) {
        const due = this.#due();
        if (due > this.#env.now()) {
          this.#wake(Math.ceil(due / STEP_MS) * STEP_MS);
          return;
        }
      }
      this.#take(feed);
    }
  }

  /** Whether no other feed can bring anything older than a feed's next. @param {number} feed */
  #passed(feed) {
    const own = this.#feeds[feed];
    const time = own?.waiting[own.from]?.time ?? 0;
    return this.#feeds.every((other, i) => i === feed || other.over || other.last >= time);
  }

  /** When what came first has waited long enough. */
  #due() {
    const first = Math.min(...this.#feeds.map(({ waiting, from }) => waiting[from]?.at ?? Infinity));
    return Math.max(first + WAIT_MS, this.#holdUntil);
  }

  /** @param {number} due */
  #wake(due) {
    if (this.#timer !== 0 && this.#timerAt <= due) return;
    this.#env.clearTimer(this.#timer);
    this.#timerAt = due;
    this.#timer = this.#env.setTimer(() => {
      this.#timer = 0;
      this.#work();
    }, due - this.#env.now());
  }
}
