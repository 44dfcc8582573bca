// @ts-check

/** How long a filter may take over one line. */
export const LINE_MS = 2000;
/** How much later its answer may be read where the page itself was busy. */
const GRACE_MS = 200;
const STOPPED = "This expression took too long and was stopped. The log is not filtered.";

/**
 * @typedef {{ query: string, texts: string[] }} Question
 * @typedef {Pick<Worker, "postMessage" | "terminate" | "onmessage" | "onerror">} Runner a worker, as far as it is used
 * @typedef {object} Asked
 * @property {Question} question
 * @property {(hits: boolean[]) => void} answered whether each text passes, for at least one and maybe not all of them
 * @property {(why: string) => void} stopped the filter cannot be used
 */

/** Runs a filter in a worker: a regular expression that takes for ever holds up nothing else there, and can be stopped. */
export class Matcher {
  #make;
  /** @type {Runner | undefined} */
  #worker;
  #ready = false;
  /** @type {Asked | undefined} */
  #asked;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {() => Runner} [make] */
  constructor(make = () => new Worker(new URL("match-worker.mjs", import.meta.url), { type: "module" })) {
    this.#make = make;
  }

  /** Whether an answer is to come. */
  get busy() {
    return this.#asked !== undefined;
  }

  /** @param {Asked} asked */
  ask(asked) {
    this.#asked = asked;
    if (this.#worker === undefined) {
      const worker = this.#worker = this.#make();
      worker.onmessage = ({ data }) => this.#take(data);
      worker.onerror = (event) => {
        event.preventDefault();
        this.#fail("The filter cannot run: the browser did not start a worker for it.");
      };
    }
    if (this.#ready) this.#send(asked);
  }

  /** Gives up what is asked; a worker that has nothing to do is kept. */
  drop() {
    if (this.busy) this.end();
  }

  /** Ends the worker too. What is asked later has another one. */
  end() {
    clearTimeout(this.#timer);
    if (this.#worker !== undefined) {
      this.#worker.onmessage = null;
      this.#worker.terminate();
    }
    this.#worker = undefined;
    this.#ready = false;
    this.#asked = undefined;
  }

  /** @param {Asked} asked */
  #send({ question }) {
    this.#worker?.postMessage(question);
    this.#timer = setTimeout(() => {
      this.#timer = setTimeout(() => this.#fail(STOPPED), GRACE_MS);
    }, LINE_MS);
  }

  /** @param {"ready" | "failed" | boolean[]} data */
  #take(data) {
    const asked = this.#asked;
    if (data === "ready") {
      this.#ready = true;
      if (asked !== undefined) this.#send(asked);
      return;
    }
    if (data === "failed") return this.#fail(STOPPED);
    clearTimeout(this.#timer);
    this.#asked = undefined;
    asked?.answered(data);
  }

  /** @param {string} why */
  #fail(why) {
    const asked = this.#asked;
    this.end();
    asked?.stopped(why);
  }
}
