// What becomes of a chunk's bytes before they are seen: cuts, escapes, JSON.
import assert from "node:assert/strict";
import { test } from "node:test";
import { classes, parseAnsi, strip } from "../../static/js/page/ansi.mjs";
import { formatJson, parseJsonLine } from "../../static/js/page/json-line.mjs";
import { wholePart } from "../../static/js/page/whole.mjs";
import { bytes } from "./fakes.mjs";

const shown = (text, style) => parseAnsi(text, style).runs.map(({ text, style }) => [text, classes(style)]);

test("plain text is one run, as it is", () => {
  assert.deepEqual(shown("a <b>\tżółć 🦀\n"), [["a <b>\tżółć 🦀\n", ""]]);
  assert.deepEqual(shown(""), []);
});

for (const [what, text, runs] of [
  ["a colour and its end", "\x1b[31mred\x1b[0m plain", [["red", "fg-2"], [" plain", ""]]],
  ["no parameter is 0", "\x1b[1mbold\x1b[m plain", [["bold", "bold"], [" plain", ""]]],
  ["several in one", "\x1b[1;4;93;44mx", [["x", "bold underline fg-12 bg-5"]]],
  ["each attribute and its end", "\x1b[1;2;3;4;9ma\x1b[22mb\x1b[23;24mc\x1b[29md",
    [["a", "bold dim italic underline strike"], ["b", "italic underline strike"], ["c", "strike"], ["d", ""]]],
  ["default colours", "\x1b[31;41ma\x1b[39mb\x1b[49mc", [["a", "fg-2 bg-2"], ["b", "bg-2"], ["c", ""]]],
  ["inverse of nothing", "\x1b[7mx\x1b[27my", [["x", "inverse"], ["y", ""]]],
  ["inverse of a colour", "\x1b[31;7mx", [["x", "bg-2"]]],
  ["the sixteen of the 256", "\x1b[38;5;1ma\x1b[48;5;15mb", [["a", "fg-2"], ["b", "fg-2 bg-16"]]],
  ["the cube and the greys go to the nearest", "\x1b[38;5;196ma\x1b[38;5;232mb\x1b[38;5;255mc", [["a", "fg-10"], ["b", "fg-1"], ["c", "fg-8"]]],
  ["true colours go to the nearest", "\x1b[38;2;250;10;10;1ma", [["a", "bold fg-10"]]],
  ["colons", "\x1b[38:2::0:0:230ma\x1b[48:5:2mb\x1b[4:0mc\x1b[4:3md", [["a", "fg-5"], ["bc", "fg-5 bg-3"], ["d", "underline fg-5 bg-3"]]],
  ["what is unknown or cut changes nothing", "\x1b[5;8;51;999ma\x1b[38mb\x1b[48;2mc", [["abc", ""]]],
]) {
  test(`escapes: ${what}`, () => assert.deepEqual(shown(text), runs));
}

test("escapes: a style goes on over lines, until it ends", () => {
  const { style } = parseAnsi("\x1b[32mgreen\n");
  assert.deepEqual(shown("still\x1b[0m not", style), [["still", "fg-3"], [" not", ""]]);
});

for (const [what, text] of [
  ["a cursor that moves", "a\x1b[2J\x1b[1;1H\x1b[Kb"],
  ["a private mode", "a\x1b[?25l\x1b[?2004hb"],
  ["a title that ends with a bell", "a\x1b]0;title\x07b"],
  ["a link that ends with a string terminator", "a\x1b]8;;https://example.org\x1b\\b\x1b]8;;\x1b\\"],
  ["a device control string", "a\x1bPq#0;2;0;0;0\x1b\\b"],
  ["a character set", "a\x1b(Bb"],
  ["what stands alone", "a\x1b7\x1b8\x1bcb"],
  ["eight-bit controls", "a\x9b31m\x85b"],
  ["other control characters", "\0a\x07\x08\x0c\r\x7fb"],
]) {
  test(`escapes: left out: ${what}`, () => {
    assert.equal(strip(text), "ab");
    assert.equal(parseAnsi(text).runs.map((run) => run.text).join(""), "ab");
  });
}

test("escapes: a great number of beginnings without an end takes no great time", () => {
  const from = performance.now();
  for (const text of ["\x1b]", "\x1bP", "\x1b[", "\x1b[1;"]) strip(text.repeat(30_000));
  assert.ok(performance.now() - from < 1000);
});

test("what is cut: characters and escape sequences wait for their rest", () => {
  const euro = bytes("a€");
  for (const [input, whole] of [
    ["", 0], ["abc", 3], ["a€", 4], ["a🦀", 5],
    [euro.slice(0, 2), 1], [euro.slice(0, 3), 1], [bytes("🦀").slice(0, 3), 0], [bytes("ż").slice(0, 1), 0],
    ["a\x1b", 1], ["a\x1b[", 1], ["a\x1b[31", 1], ["a\x1b[31m", 6], ["a\x1b(", 1], ["a\x1b(B", 4], ["a\x1b[31mb", 7],
    [`\x1b[${"1;".repeat(100)}`, 202],
    [Uint8Array.of(0x61, 0x80), 2], [Uint8Array.of(0xff), 1], [Uint8Array.of(0x80, 0x80, 0x80, 0x80), 4], [Uint8Array.of(0xc0), 1],
  ]) {
    const all = typeof input === "string" ? bytes(input) : input;
    assert.equal(wholePart(all), whole, JSON.stringify(input));
  }
});

test("JSON: objects and arrays are folded, all else is text", () => {
  const folded = parseJsonLine(' {"a":1,"b":[2,{"c":"ż"}]}\n');
  assert.equal(folded.summary, '{"a":1,"b":[2,{"c":"ż"}]}');
  assert.equal(folded.kind, "{2}");
  assert.equal(folded.pretty(), '{\n  "a": 1,\n  "b": [\n    2,\n    {\n      "c": "ż"\n    }\n  ]\n}');
  assert.equal(parseJsonLine("[1,2,3]").kind, "[3]");
  for (const text of ["", "{}", "[]", "1", '"a"', "null", "{a:1}", "[info] started", '{"a":1', '{"a":1} and more', `[${"1,".repeat(200_000)}1]`]) {
    assert.equal(parseJsonLine(text), undefined, text.slice(0, 20));
  }
});

test("JSON that formatting would make too long, or that is too deep for it, is text", () => {
  const nested = (depth) => `${"[".repeat(depth)}1${"]".repeat(depth)}`;
  const many = (depth, count) => `[${Array(count).fill(nested(depth)).join(",")}]`;
  // 56 kB would become 224 MB; 12 kB are deeper than the browser's own formatting goes.
  for (const text of [many(4000, 7), many(600, 20), nested(6000), `${'{"a":'.repeat(6000)}1${"}".repeat(6000)}`]) {
    assert.equal(parseJsonLine(text), undefined, `${text.length}`);
    assert.equal(formatJson(text), undefined, `${text.length}`);
  }
  // Brackets in a string nest nothing.
  const quoted = JSON.stringify({ a: `\\"${"[".repeat(6000)}` });
  assert.equal(parseJsonLine(quoted).pretty(), formatJson(quoted));
  assert.match(formatJson(many(500, 7)), /^\[\n {2}\[\n {4}\[/);
  assert.equal(formatJson("{"), undefined);
});

test("sequences without an end take no more time than others", () => {
  for (const start of ["\x9d", "\x90", "\x1b]", "\x1b", "\x1b\x9d", "\x1b[", "\x9b"]) {
    const text = `${start.repeat(Math.floor(65_536 / start.length))}end`;
    const began = performance.now();
    assert.ok(strip(text).length <= text.length);
    assert.ok(performance.now() - began < 1000, JSON.stringify(start));
  }
});
