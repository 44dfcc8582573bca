// @ts-check
import { batch, browserClock } from "./batch.mjs";
import { coloured } from "./colours.mjs";
import { FeedLines } from "./feed-lines.mjs";
import { FeedView } from "./feed-view.mjs";
import { Figures } from "./figures.mjs";
import { LogPane } from "./log-pane.mjs";
import { Panel, byId, fillVerdicts } from "./panel.mjs";
import { PictureView } from "./picture-view.mjs";
import { RetryNote } from "./retry-note.mjs";

/** How long a drawing stays at least, while chunks come, and while more come in a second than anybody reads. */
const DRAW_MS = 100;
const FAST_DRAW_MS = 250;
const FAST = 100;
/** How long the numbers stay, if that goes on. */
const FAST_COUNT_MS = 500;

/** Shows what is followed: the panel, the numbers, the plot and the log. */
export class FollowView {
  panel = new Panel();
  retry = new RetryNote();
  #why = byId("why", HTMLElement);
  #figures = new Figures();
  #draw = batch(() => this.#flush(), browserClock());
  /** When it was drawn last, and what draws it next. */
  #drawn = 0;
  #timer = 0;
  /** How much came since, and how long the drawing stays. */
  #came = 0;
  #stays = DRAW_MS;
  /** When the numbers were drawn last, and what draws them next, where that was put off. */
  #counted = 0;
  #counting = 0;
  #log = new LogPane(() => this.#draw.schedule(), () => this.#soon());
  #pictures = new PictureView();
  /** @type {FeedView[]} */
  #feeds = [];
  /** The line of each of several feeds. @type {import("./feed-line.mjs").FeedLine[]} */
  #each = [];

  /**
   * What is to be followed now.
   * @param {string[]} feeds one or several
   * @param {boolean} columns whether several are shown side by side, and not as one log
   * @param {(() => Promise<string>) | undefined} typeOf asks the server what the only one is, if that may end
   * @param {string} address of its download
   * @returns {import("../client/follow.mjs").FollowEvents[]} what shows each
   */
  show(feeds, columns, typeOf, address) {
    if (feeds.length > 1) return this.#several(coloured(feeds), columns);
    const [feed = ""] = feeds;
    const rows = this.#log.show(feed);
    const pictures = this.#pictures;
    const begin = () => pictures.begin(feed, typeOf, address);
    begin();
    /** @type {import("./feed-view.mjs").Sink} */
    const log = {
      ...rows,
      add: (chunk) => {
        rows.add(chunk);
        pictures.add(chunk);
      },
      mark: (kind, text) => {
        rows.mark(kind, text);
        if (kind === "gap" || kind === "restart") pictures.broken();
      },
      clear: () => {
        rows.clear();
        begin();
      },
      ended: () => pictures.ended(),
    };
    this.#feeds = [new FeedView({ panel: this.panel, retry: this.retry, log, ...this.#shared() })];
    return this.#feeds.map(({ events }) => events);
  }

  /** Shows several feeds in another way. @param {boolean} columns */
  arrange(columns) {
    if (this.#each.length > 0) this.#log.arrange(columns);
  }

  /**
   * @param {readonly import("./store.mjs").Named[]} feeds
   * @param {boolean} columns
   */
  #several(feeds, columns) {
    this.#pictures.clear();
    const states = new FeedLines(feeds, this.panel, this.retry);
    const sinks = this.#log.several(feeds, columns, states.lines.map(({ element }) => element));
    this.#feeds = states.lines.map((line, i) => new FeedView({
      panel: line, retry: states.retryOf(line), log: /** @type {import("./feed-view.mjs").Sink} */ (sinks[i]), ...this.#shared(),
    }));
    this.#each = states.lines;
    return this.#feeds.map(({ events }) => events);
  }

  #shared() {
    this.#each = [];
    return {
      weigh: (/** @type {import("../client/types.mjs").Verdict[]} */ verdicts) => fillVerdicts(this.#why, verdicts),
      samples: this.#figures.samples,
      schedule: () => this.#draw.schedule(),
      soon: () => this.#soon(),
      flush: () => this.#draw.flush(),
    };
  }

  /**
   * What the server reports of a feed.
   * @param {number} place of the feed among those that are shown
   * @param {{ empty: boolean, behind: number | undefined }} told
   */
  told(place, { empty, behind }) {
    const feed = this.#feeds[place];
    if (feed === undefined) return;
    feed.empty = empty;
    feed.behind(behind);
  }

  /** Draws at once what comes after a while, and together what comes fast: nobody reads faster than that. */
  #soon() {
    this.#came += 1;
    if (this.#timer !== 0) return;
    const left = Math.max(0, this.#drawn + this.#stays - performance.now());
    this.#timer = window.setTimeout(() => {
      this.#timer = 0;
      // Before the frame and not in it: the log scrolls, and what a frame scrolls is told in a frame of its own.
      this.#flush(true);
    }, left);
  }

  /** @param {boolean} [fast] whether the numbers may wait */
  #flush(fast = false) {
    const now = performance.now();
    const before = this.#stays;
    this.#stays = this.#came * 1000 > FAST * (now - this.#drawn) ? FAST_DRAW_MS : DRAW_MS;
    this.#drawn = now;
    this.#came = 0;
    this.#log.draw();
    this.#feeds.forEach((feed, i) => {
      feed.draw();
      this.#each[i]?.draw(feed.numbers);
    });
    const left = this.#counted + FAST_COUNT_MS - now;
    if (!fast || before !== FAST_DRAW_MS || this.#stays !== FAST_DRAW_MS || left <= 0) this.#count();
    else if (this.#counting === 0) this.#counting = window.setTimeout(() => this.#count(), left);
  }

  /** Draws the numbers. */
  #count() {
    window.clearTimeout(this.#counting);
    this.#counting = 0;
    this.#counted = performance.now();
    this.#figures.draw(this.#feeds.map(({ numbers }) => numbers));
  }
}
