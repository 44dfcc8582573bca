// @ts-check
import { count, plural, size } from "../client/format.mjs";
import { byId, write } from "./panel.mjs";
import { Publication, PublishError } from "./publish.mjs";
import { envForWriting } from "./token-form.mjs";

/** @typedef {{ publication: Publication, name: string, feed: string }} Work what is published, how it is called, and where */

/** Writes the feed that is shown, if clients may write it: a line at a time, or a file. */
export class PublishForm {
  #form = byId("publish", HTMLFormElement);
  #line = byId("publish-line", HTMLInputElement);
  #file = byId("publish-file", HTMLInputElement);
  #send = byId("publish-send", HTMLButtonElement);
  #cancel = byId("publish-cancel", HTMLButtonElement);
  #said = byId("publish-said", HTMLElement);
  #env;
  /** The feed that is shown, and whether clients may write it. */
  #feed = "";
  #writable = false;
  /** What runs. @type {AbortController | undefined} */
  #running;
  /** What runs, ran last, or broke off. @type {Work | undefined} */
  #work;
  #broken = false;
  /** How it stands; `to` names its feed where the page shows another. */
  #words = (/** @type {string} */ _to) => "";

  #shown;
  #address;

  /**
   * @param {import("../client/types.mjs").Env} env
   * @param {() => string} shown the feed that the page shows
   * @param {(feed: string) => string} address of a feed
   */
  constructor(env, shown, address) {
    this.#shown = shown;
    this.#address = address;
    this.#env = envForWriting(env);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running !== undefined) return;
      // Where that goes is said next to the button.
      if (this.#broken && this.#work !== undefined) void this.#run(this.#work);
      else if (this.#writable && !this.#elsewhere() && this.#line.value !== "") void this.#start(new Blob([`${this.#line.value}\n`]), "");
    });
    this.#line.addEventListener("input", () => {
      this.#forget();
      this.#tell();
    });
    this.#file.addEventListener("change", () => this.#take(this.#file.files));
    this.#cancel.addEventListener("click", () => this.#running?.abort());
    this.#form.addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      this.#form.dataset.over = "";
    });
    this.#form.addEventListener("dragleave", () => delete this.#form.dataset.over);
    this.#form.addEventListener("drop", (event) => {
      event.preventDefault();
      delete this.#form.dataset.over;
      this.#take(event.dataTransfer?.files ?? null);
    });
  }

  /**
   * @param {string} feed
   * @param {boolean} writable
   */
  show(feed, writable) {
    const other = this.#feed !== feed;
    this.#feed = feed;
    this.#writable = writable;
    // What broke off while another feed was shown can be continued at its own.
    if (other && this.#running === undefined && !(this.#broken && this.#work?.feed === feed)) {
      this.#forget();
      this.#work = undefined;
      this.#words = () => "";
    }
    this.#tell();
  }

  /** What runs stays to be seen, and how it ended, whatever feed is shown by then. */
  #tell() {
    const there = this.#work !== undefined && this.#work.feed !== this.#feed;
    const said = this.#running !== undefined || this.#broken || there;
    const hidden = !this.#writable && !said;
    if (this.#form.hidden !== hidden) this.#form.hidden = hidden;
    if (this.#writable) delete this.#form.dataset.closed;
    else this.#form.dataset.closed = "";
    this.#send.hidden = !this.#writable && !this.#broken;
    write(this.#said, this.#words(there ? ` to “${this.#work?.feed}”` : ""));
  }

  /** @param {(to: string) => string} words how a publication stands */
  #say(words) {
    this.#words = words;
    this.#tell();
  }

  /** Whether the page shows another feed than this writes. It is told, and nothing is written anywhere. */
  #elsewhere() {
    const shown = this.#shown();
    if (this.#feed === shown) return false;
    const feed = this.#feed;
    this.#say(() => `Nothing was published: the page shows “${shown}” now, and this was for “${feed}”.`);
    return true;
  }

  /** @param {FileList | null} files */
  #take(files) {
    const file = files?.[0];
    if (file === undefined || !this.#writable || this.#running !== undefined || this.#elsewhere()) return;
    this.#forget();
    if (file.size === 0) this.#say(() => `${file.name} is empty.`);
    else void this.#start(file, file.name);
  }

  /** Whoever writes something else gives up what broke off. */
  #forget() {
    if (this.#broken) this.#words = () => "";
    this.#broken = false;
    this.#send.textContent = "Publish";
  }

  /**
   * @param {Blob} body
   * @param {string} name "" for a line
   */
  #start(body, name) {
    const url = new URL(this.#address(this.#feed));
    // Text comes line by line, however it is cut on the way.
    if (name !== "" && !/^(image|audio|video|font)\/|octet-stream|zip/.test(body.type)) url.searchParams.set("chunk", "lines");
    return this.#run({ publication: new Publication(this.#env, url.href, body), name, feed: this.#feed });
  }

  /** @param {Work} what */
  async #run(what) {
    const { publication, name } = what;
    const all = publication.size;
    const running = (this.#running = new AbortController());
    this.#work = what;
    this.#forget();
    this.#busy(true);
    this.#say((to) => (name === "" ? `Publishing${to}…` : `Publishing ${name} (${size(all)})${to}…`));
    try {
      await publication.run(running.signal, (taken) => {
        if (taken > 0 && taken < all) this.#say((to) => `${size(taken)} of ${size(all)} published${to}; continuing.`);
      });
      this.#words = (to) => (name === "" ? `Published${to}.` : `Published ${name}${to}, ${size(all)}.`);
      if (name === "") this.#line.value = "";
    } catch (cause) {
      if (!(cause instanceof PublishError)) throw cause;
      const { error, taken } = cause;
      this.#broken = true;
      this.#send.textContent = "Continue";
      const why = running.signal.aborted ? "Cancelled." : error.message;
      this.#words = (to) => `${why} ${inWords(taken, all, to)}`;
    } finally {
      this.#running = undefined;
      this.#file.value = "";
      this.#tell();
      this.#busy(false);
    }
  }

  /** @param {boolean} busy */
  #busy(busy) {
    const focused = document.activeElement;
    this.#line.readOnly = busy;
    this.#file.disabled = busy;
    this.#send.disabled = busy;
    this.#cancel.hidden = !busy;
    if (focused === this.#line) this.#line.focus();
    // The keyboard's place must not be lost with the button that it was on.
    if (busy && (focused === this.#send || focused === this.#file)) this.#cancel.focus();
    if (!busy && focused === this.#cancel) this.#send.focus();
  }
}

/**
 * What the feed has of a publication that broke off.
 * @param {number | undefined} taken
 * @param {number} all
 * @param {string} to
 */
function inWords(taken, all, to) {
  if (taken === undefined) return `It is unclear how much was published${to}. Continue asks the server and publishes only the rest.`;
  if (taken === 0) return `Nothing was published${to}.`;
  return `${count(taken)} of ${plural(all, "byte")} ${taken === 1 ? "was" : "were"} published${to}. Continue publishes the rest.`;
}
