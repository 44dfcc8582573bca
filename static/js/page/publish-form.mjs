// @ts-check
import { environment } from "../client/environment.mjs";
import { plural, size } from "../client/format.mjs";
import { Token } from "../client/token.mjs";
import { byId } from "./panel.mjs";
import { Publication, PublishError } from "./publish.mjs";
import { askForPublishToken } from "./token-form.mjs";

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
  #feed = "";
  /** What runs. @type {AbortController | undefined} */
  #running;
  /** What broke off. @type {Work | undefined} */
  #broken;

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
    // A token for writing is none for reading: the page keeps its own.
    const token = new Token({ fetch: globalThis.fetch.bind(globalThis), storage: undefined, href: env.href });
    token.set(env.token?.value ?? "");
    token.ask = askForPublishToken;
    this.#env = environment(env.href, token);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running !== undefined || this.#elsewhere()) return;
      if (this.#broken?.feed === this.#feed) void this.#run(this.#broken);
      else if (this.#line.value !== "") void this.#start(new Blob([`${this.#line.value}\n`]), "");
    });
    this.#line.addEventListener("input", () => this.#forget());
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
    if (this.#feed !== feed && this.#running === undefined) {
      this.#feed = feed;
      this.#forget();
      this.#said.textContent = "";
    }
    // What runs stays to be seen, whatever becomes of the feed.
    const hidden = this.#running === undefined && !(writable && this.#feed === feed) && this.#broken === undefined;
    if (this.#form.hidden !== hidden) this.#form.hidden = hidden;
  }

  /** Whether the page shows another feed than this writes. It is told, and nothing is written anywhere. */
  #elsewhere() {
    const shown = this.#shown();
    if (this.#feed === shown) return false;
    this.#said.textContent = `Nothing was published: the page shows “${shown}” now, and this was for “${this.#feed}”.`;
    return true;
  }

  /** @param {FileList | null} files */
  #take(files) {
    const file = files?.[0];
    if (file === undefined || this.#running !== undefined || this.#elsewhere()) return;
    this.#forget();
    if (file.size === 0) this.#said.textContent = `${file.name} is empty.`;
    else void this.#start(file, file.name);
  }

  /** Whoever writes something else gives up what broke off. */
  #forget() {
    this.#broken = undefined;
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
    const running = (this.#running = new AbortController());
    this.#forget();
    this.#busy(true);
    this.#said.textContent = name === "" ? "Publishing…" : `Publishing ${name} (${size(publication.size)})…`;
    try {
      await publication.run(running.signal, (taken) => {
        if (taken > 0 && taken < publication.size) this.#said.textContent = `${size(taken)} of ${size(publication.size)} published; continuing.`;
      });
      this.#said.textContent = name === "" ? "Published." : `Published ${name}, ${size(publication.size)}.`;
      if (name === "") this.#line.value = "";
    } catch (cause) {
      if (!(cause instanceof PublishError)) throw cause;
      const { error, taken } = cause;
      this.#broken = what;
      this.#send.textContent = "Continue";
      const why = running.signal.aborted ? "Cancelled." : error.message;
      this.#said.textContent = `${why} ${inWords(taken, publication.size)}`;
    } finally {
      this.#running = undefined;
      this.#file.value = "";
      this.#busy(false);
    }
  }

  /** @param {boolean} busy */
  #busy(busy) {
    const focused = document.activeElement === this.#line;
    this.#line.readOnly = busy;
    this.#file.disabled = busy;
    this.#send.disabled = busy;
    this.#cancel.hidden = !busy;
    if (focused) this.#line.focus();
  }
}

/**
 * What the feed has of a publication that broke off.
 * @param {number | undefined} taken
 * @param {number} all
 */
function inWords(taken, all) {
  if (taken === undefined) return "It is unclear how much was published. Continue asks the server and publishes only the rest.";
  if (taken === 0) return "Nothing was published.";
  return `${plural(taken, "byte")} of ${plural(all, "byte").replace(/ bytes?$/, "")} were published. Continue publishes the rest.`;
}
