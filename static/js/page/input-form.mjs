// @ts-check
import { environment } from "../client/environment.mjs";
import { ClientError, asClientError } from "../client/errors.mjs";
import { Token } from "../client/token.mjs";
import { byId } from "./panel.mjs";
import { askForPublishToken } from "./token-form.mjs";

/** @typedef {import("../client/types.mjs").SendInput} SendInput */

/** Sends what is typed to the command of the feed that is shown, a line at a time. */
export class InputForm {
  #form = byId("input", HTMLFormElement);
  #line = byId("input-line", HTMLInputElement);
  #end = byId("input-end", HTMLButtonElement);
  #said = byId("input-said", HTMLElement);
  #page;
  #env;
  #sender;
  #again;
  /** What is typed goes one line after the other. */
  #sent = Promise.resolve();

  /**
   * @param {import("../client/types.mjs").Env} env
   * @param {() => SendInput | undefined} sender of the connection that there is
   * @param {() => Promise<void>} again connects again
   */
  constructor(env, sender, again) {
    this.#page = env;
    this.#sender = sender;
    this.#again = again;
    // A token for sending is none for reading: the page keeps its own.
    const token = new Token({ fetch: globalThis.fetch.bind(globalThis), storage: undefined, href: env.href });
    token.set(env.token?.value ?? "");
    token.ask = askForPublishToken;
    this.#env = environment(env.href, token);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const line = this.#line.value;
      this.#queue(new TextEncoder().encode(`${line}\n`), () => {
        if (this.#line.value === "") this.#line.value = line;
      });
      this.#line.value = "";
    });
    this.#end.addEventListener("click", () => {
      this.#queue(null, () => {});
      this.#line.focus();
    });
  }

  /** @param {boolean} takes whether the feed takes input */
  show(takes) {
    if (this.#form.hidden === !takes) return;
    this.#form.hidden = !takes;
    this.#said.textContent = "";
  }

  /**
   * @param {Uint8Array<ArrayBuffer> | null} bytes null ends the input
   * @param {() => void} failed
   */
  #queue(bytes, failed) {
    this.#sent = this.#sent.then(async () => {
      try {
        await this.#send(bytes);
      } catch (cause) {
        failed();
        this.#said.textContent = asClientError(cause).message;
      }
    });
  }

  /** @param {Uint8Array<ArrayBuffer> | null} bytes */
  async #send(bytes) {
    const { signal } = new AbortController();
    for (let asked = false; ; asked = true) {
      const send = this.#sender();
      if (send === undefined) throw new ClientError("No command is running: press Start.", []);
      try {
        await send(bytes, { fetch: this.#env.fetch, onRefused: (error) => void this.#refused(error) });
        this.#said.textContent = bytes === null ? "The input has ended." : "";
        return;
      } catch (cause) {
        const error = asClientError(cause);
        const { token } = this.#env;
        if (asked || !(error.needsToken || error.otherToken) || !(await token?.after(error, signal))) throw error;
      }
    }
  }

  /**
   * A session has its token from the start: another one needs another session.
   * @param {import("../client/errors.mjs").ClientError} error
   */
  async #refused(error) {
    this.#said.textContent = error.message;
    if (!error.needsToken && !error.otherToken) return;
    const given = (await askForPublishToken(error.message, new AbortController().signal)).trim();
    if (given === "") return;
    this.#page.token?.set(given);
    await this.#again();
    this.#said.textContent = "Connecting with the token, to a new command.";
  }
}
