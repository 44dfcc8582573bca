// @ts-check
import { count, plural, size } from "../client/format.mjs";
import { formatJson } from "./json-line.mjs";
import { byId, write } from "./panel.mjs";
import { MAX_PICTURE, Pictures, SVG } from "./picture.mjs";

/** @typedef {import("./picture.mjs").Kind} Kind */
/** @typedef {{ kind: Kind, blob: Blob }} Picture */

/** Shows a feed that is an image, or the newest of a feed of images, in place of its log. */
export class PictureView {
  #figure = byId("picture", HTMLElement);
  #place = byId("picture-place", HTMLElement);
  #about = byId("picture-about", HTMLElement);
  #link = byId("picture-link", HTMLAnchorElement);
  #switch = byId("picture-switch", HTMLButtonElement);
  #reads = byId("reads", HTMLElement);
  #feed = "";
  /** What is shown, and what is being loaded. */
  #url = "";
  #loading = "";
  /** What came meanwhile: only the newest is shown. @type {Picture | undefined} */
  #next;
  #pictures = none();
  /** What is in its place, in words, and how many images could not be shown. */
  #words = "";
  #failed = 0;
  /** Whether the visitor wants the image or its chunks. @type {boolean | undefined} */
  #wanted;
  /** What the button shows again. */
  #what = "the image";

  constructor() {
    this.#switch.addEventListener("click", () => {
      this.#wanted = this.#reads.dataset.shown !== "picture";
      this.#turn(this.#wanted);
    });
  }

  /**
   * Another feed comes, or the same again.
   * @param {string} feed
   * @param {(() => Promise<string>) | undefined} typeOf asks the server what it is; undefined: it is nothing that ends
   * @param {string} address of its download
   */
  begin(feed, typeOf, address) {
    this.clear();
    this.#feed = feed;
    this.#link.href = address;
    this.#link.download = feed;
    const pictures = (this.#pictures = new Pictures({
      onImage: (kind, parts) => this.#image(kind, parts),
      onLarge: ({ name }) => this.#fail(`This ${name} image is larger than ${size(MAX_PICTURE)}, so it is not shown here.`),
      onTorn: () => this.#fail(""),
      onDocument: async (parts) => {
        const type = (await typeOf?.())?.split(";")[0]?.trim() ?? "";
        if (this.#pictures !== pictures) return;
        // Where an <img> shows it, none of its scripts runs.
        if (type === SVG.type) this.#image(SVG, parts);
        else if (/^application\/(.+\+)?json$/.test(type)) await this.#json(new Blob(/** @type {Uint8Array<ArrayBuffer>[]} */ (parts)));
      },
    }, typeOf !== undefined));
  }

  /**
   * @param {Kind} kind
   * @param {Uint8Array[]} parts
   */
  #image(kind, parts) {
    this.#next = { kind, blob: new Blob(/** @type {Uint8Array<ArrayBuffer>[]} */ (parts), { type: kind.type }) };
    this.#load();
  }

  /** @param {Blob} blob */
  async #json(blob) {
    const [feed, pictures] = [this.#feed, this.#pictures];
    const pretty = formatJson(await blob.text());
    // Lines of JSON, or none, or too deep: its rows show it. And the feed may have been started again.
    if (pretty === undefined || pictures !== this.#pictures) return;
    const text = document.createElement("pre");
    text.tabIndex = 0;
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", `JSON of the feed ${feed}`);
    text.textContent = pretty;
    this.#place.replaceChildren(text);
    this.#about.textContent = `JSON, ${size(blob.size)}`;
    this.#what = "it formatted";
    this.#figure.hidden = false;
    this.#turn(true);
  }

  /** An image is not shown: the one before stays, if there is one. @param {string} why */
  #fail(why) {
    this.#failed += 1;
    if (this.#words !== "") {
      this.#tell();
    } else if (why !== "") {
      write(this.#about, why);
      this.#figure.hidden = false;
      this.#turn(false);
    }
  }

  #tell() {
    const failed = this.#failed === 0 ? "" : `. ${plural(this.#failed, "image")} could not be shown.`;
    write(this.#about, this.#words + failed);
  }

  clear() {
    this.#figure.hidden = true;
    delete this.#reads.dataset.shown;
    this.#place.replaceChildren();
    for (const url of [this.#url, this.#loading]) URL.revokeObjectURL(url);
    this.#url = this.#loading = "";
    this.#next = undefined;
    this.#pictures = none();
    this.#words = "";
    this.#failed = 0;
    this.#wanted = undefined;
    this.#what = "the image";
  }

  /** @param {import("../client/follow.mjs").Received} chunk */
  add(chunk) {
    this.#pictures.add(chunk);
  }

  /** Chunks are missing. */
  broken() {
    this.#pictures.broken();
  }

  ended() {
    this.#pictures.ended();
  }

  #load() {
    if (this.#loading !== "" || this.#next === undefined) return;
    const { kind, blob } = this.#next;
    this.#next = undefined;
    const url = (this.#loading = URL.createObjectURL(blob));
    const image = new Image();
    // An <img> runs no script, also none of an SVG.
    const over = () => {
      this.#loading = "";
      this.#load();
    };
    image.addEventListener("load", () => {
      if (this.#loading !== url) return;
      URL.revokeObjectURL(this.#url);
      this.#url = url;
      const pixels = image.naturalWidth > 0 ? `, ${count(image.naturalWidth)} × ${count(image.naturalHeight)} pixels` : "";
      const words = `${kind.name}${pixels}, ${size(blob.size)}`;
      image.alt = `Image from the feed ${this.#feed}: ${words}`;
      this.#place.replaceChildren(image);
      const newest = this.#pictures.count > 1 ? `Newest of ${count(this.#pictures.count)} images: ` : "";
      this.#words = `${newest}${words}`;
      this.#tell();
      this.#figure.hidden = false;
      this.#turn(this.#wanted ?? true);
      over();
    });
    image.addEventListener("error", () => {
      if (this.#loading !== url) return;
      URL.revokeObjectURL(url);
      this.#fail(`The browser cannot show this ${kind.name} image (${size(blob.size)}).`);
      over();
    });
    image.src = url;
  }

  /** @param {boolean} picture and not its chunks */
  #turn(picture) {
    this.#reads.dataset.shown = picture ? "picture" : "chunks";
    write(this.#switch, picture ? "Show the chunks" : `Show ${this.#what}`);
    this.#switch.hidden = this.#place.childElementCount === 0;
  }
}

function none() {
  return new Pictures({ onImage: () => {}, onLarge: () => {}, onTorn: () => {}, onDocument: () => {} }, false);
}
