// @ts-check
/** Where the token outlives a reload of its tab, and nothing else. */
const KEY = "h3cast-token";
/** How long the renewal may take. */
const RENEWAL_MS = 15_000;

/**
 * The token that the page shows to a server that asks for one, and where it gets another. A page whose cookie lets
 * it in has none of its own until it needs one: for a session, or when the cookie's has ended.
 */
export class Token {
  #fetch;
  #storage;
  #href;
  #value = "";
  /** Where a new one can be had; null: nowhere, undefined: not known yet. */
  /** @type {string | null | undefined} */
  renewal;
  /**
   * Asks the visitor for a token; "" if there is none. Pages that have a place for that set it.
   * @type {((why: string, signal: AbortSignal) => Promise<string>) | undefined}
   */
  ask;

  /**
   * @param {object} options
   * @param {typeof globalThis.fetch} options.fetch the browser's own
   * @param {Pick<Storage, "getItem" | "setItem" | "removeItem"> | undefined} options.storage undefined: none to be had
   * @param {string} options.href the page's address
   */
  constructor({ fetch, storage, href }) {
    this.#fetch = fetch;
    this.#storage = storage;
    this.#href = href;
    this.#value = storage?.getItem(KEY) ?? "";
  }

  get value() {
    return this.#value;
  }

  /** @param {string} value "" for none */
  set(value) {
    this.#value = value;
    if (value === "") this.#storage?.removeItem(KEY);
    else this.#storage?.setItem(KEY, value);
  }

  /**
   * Like the browser's `fetch`, with the token. Cookies stay behind then: two tokens are one too many.
   * @type {typeof globalThis.fetch}
   */
  fetch = (input, init) => {
    const own = typeof input === "string" && new URL(input, this.#href).origin === new URL(this.#href).origin;
    if (this.#value === "" || !own) return this.#fetch(input, init);
    const headers = new Headers(init?.headers);
    headers.set("authorization", `Bearer ${this.#value}`);
    return this.#fetch(input, { ...init, headers, credentials: "omit" });
  };

  /**
   * The address of a session, whose request cannot have a header.
   * @param {string} url
   */
  inUrl(url) {
    if (this.#value === "") return url;
    const shown = new URL(url);
    shown.searchParams.set("token", this.#value);
    return shown.href;
  }

  /**
   * Gets the token that a refusal asks for.
   * @param {import("./errors.mjs").ClientError} error
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>} whether there is one now
   */
  after(error, signal) {
    // What the token does not allow, a renewal of it does not allow either.
    return error.otherToken ? this.#asked(error.message, signal) : this.renew(error.message, signal);
  }

  /**
   * Gets another token than the one that there is: from the server's renewal, or else from the visitor.
   * @param {string} why
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>} whether there is one now
   */
  async renew(why, signal) {
    return (await this.renewAlone(signal)) || this.#asked(why, signal);
  }

  /**
   * Asks the visitor.
   * @param {string} why
   * @param {AbortSignal} signal
   */
  async #asked(why, signal) {
    if (this.ask === undefined || signal.aborted) return false;
    const given = (await this.ask(why, signal)).trim();
    if (given === "") return false;
    this.set(given);
    return true;
  }

  /**
   * The same, without asking anybody.
   * @param {AbortSignal} signal
   */
  async renewAlone(signal) {
    try {
      if (this.renewal === undefined) this.renewal = await this.#learn(signal);
      if (this.renewal === null) return false;
      const limit = AbortSignal.any([signal, AbortSignal.timeout(RENEWAL_MS)]);
      const url = new URL(this.renewal, this.#href);
      if (url.origin !== new URL(this.#href).origin) return false;
      const response = await this.#fetch(url.href, {
        method: "POST", cache: "no-store", credentials: "same-origin", signal: limit,
      });
      if (!response.ok) return false;
      const token = tokenIn(await response.text());
      if (token === "" || token === this.#value) return false;
      this.set(token);
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Where a new token can be had, from a server that refuses the one that there is.
   * @param {AbortSignal} signal
   * @returns {Promise<string | null>}
   */
  async #learn(signal) {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(RENEWAL_MS)]);
    const response = await this.#fetch(new URL("info", this.#href).href, {
      cache: "no-store", credentials: "omit", signal: limit,
    });
    const renewal = (await response.json())?.auth?.renewal;
    return typeof renewal === "string" ? renewal : null;
  }
}

/**
 * The token of a renewal's answer: text, or the member of an object.
 * @param {string} text
 */
export function tokenIn(text) {
  const plain = text.trim();
  if (!plain.startsWith("{")) return /\s/.test(plain) ? "" : plain;
  try {
    const { token } = JSON.parse(plain);
    return typeof token === "string" ? token : "";
  } catch {
    return "";
  }
}
