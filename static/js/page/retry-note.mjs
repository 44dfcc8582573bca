// @ts-check
import { byId } from "./panel.mjs";

/**
 * What happens after a lost connection, second by second. It stands next to the status, which is read out: a countdown
 * that is read out drowns everything else.
 */
export class RetryNote {
  #box = byId("retry", HTMLElement);
  #text = byId("retry-text", HTMLElement);
  #timer = 0;

  /** @param {() => void} now */
  onNow(now) {
    byId("retry-now", HTMLButtonElement).addEventListener("click", now);
  }

  /**
   * @param {import("../client/errors.mjs").ClientError} error
   * @param {number} waitMs
   * @param {number} attempt
   */
  show(error, waitMs, attempt) {
    const until = performance.now() + waitMs;
    const tell = () => {
      const left = Math.max(0, until - performance.now());
      const offline = navigator.onLine ? "" : " This computer is offline.";
      const soon = left < 1000 ? "now" : `in ${Math.ceil(left / 1000)} s`;
      this.#text.textContent = `${error.message}${offline} Retrying ${soon} (attempt ${attempt}).`;
      if (left > 0) this.#timer = window.setTimeout(tell, 1000);
    };
    window.clearTimeout(this.#timer);
    this.#box.hidden = false;
    tell();
  }

  /**
   * @param {number} attempt
   * @param {string} [feed] one of several
   */
  trying(attempt, feed = "") {
    window.clearTimeout(this.#timer);
    this.#text.textContent = `${feed === "" ? "" : `${feed}: `}Connecting (attempt ${attempt})…`;
  }

  hide() {
    window.clearTimeout(this.#timer);
    this.#box.hidden = true;
  }
}
