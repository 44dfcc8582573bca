// Images among what a feed brings: which bytes are one, and where it ends.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MAX_DOCUMENT, MAX_PICTURE, Pictures, kindOf } from "../../static/js/page/picture.mjs";
import { bytes } from "./fakes.mjs";

const latin = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const box = (type, length) => `\0\0${String.fromCharCode(length >> 8, length & 255)}${type}${"x".repeat(length - 8)}`;
/** The smallest that are whole, by what is looked at. */
const IMAGES = {
  PNG: latin("\x89PNG\r\n\x1a\n…\n…\0\0\0\0IEND\xaeB\x60\x82".replaceAll("…", ".")),
  JPEG: latin("\xff\xd8\xff\xe0 and more \xff\xd9"),
  GIF: latin("GIF89a and more\0;"),
  WebP: latin("RIFF\x0d\0\0\0WEBPVP8 more."),
  AVIF: latin(`\0\0\0\x10ftypavif${"\0".repeat(4)}${box("meta", 300)}${box("mdat", 20)}`),
};

function gathered(whole, chunks, { end = false } = {}) {
  const seen = [];
  const size = (parts) => parts.reduce((sum, { length }) => sum + length, 0);
  const pictures = new Pictures({
    onImage: ({ name }, parts) => seen.push(`${name} ${size(parts)}`),
    onLarge: ({ name }) => seen.push(`${name} too large`),
    onTorn: () => seen.push("torn"),
    onDocument: (parts) => seen.push(`document ${size(parts)}`),
  }, whole);
  chunks.forEach((chunk, seq) => pictures.add({ seq, bytes: chunk }));
  if (end) pictures.ended();
  return { seen, pictures };
}
/** Split after each newline, as sources are, and otherwise every so many bytes. */
const split = (all, every) => {
  const parts = [];
  for (let at = 0, from = 0; at < all.length; at += 1) {
    if (all[at] === 10 || at - from + 1 === every || at === all.length - 1) {
      parts.push(all.subarray(from, at + 1));
      from = at + 1;
    }
  }
  return parts;
};

for (const [name, image] of Object.entries(IMAGES)) {
  test(`${name}: known by its first bytes, and shown when it is whole`, () => {
    assert.equal(kindOf(image).name, name);
    assert.deepEqual(gathered(false, [image, image]).seen, [`${name} ${image.length}`, `${name} ${image.length}`]);
    assert.deepEqual(gathered(false, [image.subarray(0, -1)]).seen, [], "not all of it");
    for (const every of [1, 3, 17]) {
      const live = gathered(false, [bytes("a line\n"), ...split(image, every), bytes("another\n"), image]);
      assert.deepEqual(live.seen, [`${name} ${image.length}`, `${name} ${image.length}`], `in pieces of ${every}`);
      assert.equal(live.pictures.count, 2);
      assert.deepEqual(gathered(true, split(image, every), { end: true }).seen, [`${name} ${image.length}`], "as a file");
    }
    assert.deepEqual(gathered(true, split(image, 9)).seen, [], "a file that has not ended");
  });
}

test("after a gap, the next image that begins is the next", () => {
  const { pictures, seen } = gathered(false, [IMAGES.JPEG.subarray(0, 10)]);
  pictures.broken();
  pictures.add({ seq: 4, bytes: IMAGES.JPEG.subarray(10) });
  pictures.add({ seq: 5, bytes: IMAGES.GIF });
  assert.deepEqual(seen, ["torn", `GIF ${IMAGES.GIF.length}`]);
  const file = gathered(true, [IMAGES.JPEG.subarray(0, 10)]);
  file.pictures.broken();
  file.pictures.add({ seq: 2, bytes: IMAGES.JPEG.subarray(10) });
  file.pictures.ended();
  assert.deepEqual(file.seen, ["torn"]);
});

test("of a live feed, one that is torn or too large does not take the next with it", () => {
  const { GIF, JPEG, PNG } = IMAGES;
  const live = (...chunks) => gathered(false, chunks).seen;
  assert.deepEqual(live(JPEG.subarray(0, 14), PNG, GIF), ["torn", `PNG ${PNG.length}`, `GIF ${GIF.length}`]);
  assert.deepEqual(live(PNG.subarray(0, 12), PNG), ["torn", `PNG ${PNG.length}`], "of the same kind");
  assert.deepEqual(live(JPEG.subarray(0, 1), PNG), [`PNG ${PNG.length}`], "before it is known what it was");
  assert.deepEqual(live(GIF.subarray(0, 12), new Uint8Array(MAX_PICTURE), new Uint8Array(5), GIF), ["GIF too large", `GIF ${GIF.length}`]);
  assert.deepEqual(gathered(true, [JPEG.subarray(0, 14), PNG], { end: true }).seen, [`JPEG ${14 + PNG.length}`], "a file is one");
});

test("documents only of what ends, and nothing of what is text", () => {
  for (const text of ["<svg/>\n", '{"a": 1}\n', "[1]\n"]) {
    assert.deepEqual(gathered(true, [bytes(text)], { end: true }).seen, [`document ${text.length}`]);
    assert.deepEqual(gathered(false, [bytes(text)], { end: true }).seen, []);
  }
  assert.deepEqual(gathered(true, [bytes("GIF is a format\n"), bytes("\n")], { end: true }).seen, []);
  assert.deepEqual(gathered(true, [], { end: true }).seen, []);
});

test("no more is kept than may be shown", () => {
  const filler = new Uint8Array(MAX_PICTURE / 4);
  for (const whole of [true, false]) {
    const { seen } = gathered(whole, [IMAGES.GIF.subarray(0, 12), ...Array(6).fill(filler)], { end: true });
    assert.deepEqual(seen, ["GIF too large"]);
  }
  assert.deepEqual(gathered(true, [bytes(`[${" ".repeat(MAX_DOCUMENT)}`), bytes("]")], { end: true }).seen, []);
});
