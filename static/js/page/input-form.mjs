// @ts-check
import { ClientError, asClientError } from "../client/errors.mjs";
import { byId } from "./panel.mjs";
import { askForPublishToken, envForWriting } from "./token-form.mjs";

/** @typedef {import("../client/types.mjs").SendInput} SendInput */

const LATE = "Not sent: the command that this was typed for has ended.";

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
  /** The line that was sent last, and where to. @type {{ line: string, send: SendInput | undefined }} */
  #last = { line: "", send: undefined };
  /** What takes nothing any more, and why. @type {{ send: SendInput, why: string } | undefined} */
  #refuses;
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
    this.#env = envForWriting(env);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const line = this.#line.value;
      const send = this.#sender();
      this.#last = { line, send };
      this.#queue(new TextEncoder().encode(`${line}\n`), send, () => this.#giveBack(line));
      this.#line.value = "";
    });
    this.#end.addEventListener("click", () => {
      this.#queue(null, this.#sender(), () => {});
      this.#line.focus();
    });
  }

  /** @param {boolean} takes whether the feed takes input */
  show(takes) {
    if (this.#form.hidden === !takes) return;
    this.#form.hidden = !takes;
    this.#said.textContent = "";
  }

  /** There is another command, or will be: what was said of the one before does not hold for it. */
  anew() {
    if (this.#said.textContent !== LATE) this.#said.textContent = "";
  }

  /** @param {string} line what was not sent */
  #giveBack(line) {
    if (this.#line.value === "") this.#line.value = line;
  }

  /**
   * @param {Uint8Array<ArrayBuffer> | null} bytes null ends the input
   * @param {SendInput | undefined} send of the command that it was typed for
   * @param {() => void} failed
   */
  #queue(bytes, send, failed) {
    this.#sent = this.#sent.then(async () => {
      try {
        await this.#send(bytes, send);
      } catch (cause) {
        failed();
        this.#said.textContent = asClientError(cause).message;
      }
    });
  }

  /**
   * @param {Uint8Array<ArrayBuffer> | null} bytes
   * @param {SendInput | undefined} send
   */
  async #send(bytes, send) {
    const { signal } = new AbortController();
    for (let asked = false; ; asked = true) {
      if (send === undefined) throw new ClientError("No command is running: press Start.", []);
      if (this.#refuses?.send === send) throw new ClientError(this.#refuses.why, []);
      if (this.#sender() !== send) throw new ClientError(LATE, []);
      try {
        await send(bytes, { fetch: this.#env.fetch, onRefused: (error) => void this.#refused(error, send) });
        if (this.#refuses?.send !== send) this.#said.textContent = bytes === null ? "The input has ended." : "";
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
   * @param {SendInput} send
   */
  async #refused(error, send) {
    const forToken = error.needsToken || error.otherToken;
    this.#refuses = { send, why: forToken ? "Not sent: this command takes no input without a token." : error.message };
    if (this.#last.send === send) this.#giveBack(this.#last.line);
    this.#said.textContent = error.message;
    if (!forToken) return;
    const given = (await askForPublishToken(error.message, new AbortController().signal)).trim();
    // Another feed may be shown by now.
    if (given === "" || this.#sender() !== send) return;
    this.#page.token?.set(given);
    await this.#again();
    this.#said.textContent = "Starting a new command with the token.";
  }
}
