// Which feed is chosen, and what the server says of it, which is shown in both views of the page.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFeeds } from "../../static/js/client/feeds.mjs";
import { element, page } from "./dom.mjs";

for (const name of ["HTMLSelectElement", "HTMLDetailsElement", "HTMLFieldSetElement"]) globalThis[name] ??= globalThis.HTMLElement;
const { FeedPicker } = await import("../../static/js/page/feed-picker.mjs");

globalThis.Option = class {
  constructor(text, value) {
    Object.assign(this, { textContent: text, value });
  }
};

/** @param {string[]} wanted the feeds that the address names */
function picking(wanted) {
  page("feed-alone", "feed-name", "feed-row", "feed", "feed-note", "feed-about", "several", "several-list", "several-said", "several-follow", "arrange");
  const select = Object.assign(element("feed"), {
    options: [],
    replaceChildren: (...options) => {
      select.options = options;
    },
  });
  element("several-list").replaceChildren = () => {};
  Object.assign(document, { addEventListener() {} });
  globalThis.location = { href: "https://localhost/" };
  return new FeedPicker(wanted, () => {}, () => {});
}
const listed = (...names) => names.map((name) => ({ name, kind: "live" }));
/** What `/feeds` says: the feeds that work, and those in trouble. */
const told = (working, troubled) => parseFeeds({ feeds: [
  ...working.map((name) => ({ name, kind: "live" })),
  ...troubled.map((name) => ({ name, kind: "live", stalled: true, trouble: "the stream LOGS does not exist" })),
] });

test("the log alone has it among the details, and in its menu of feeds", () => {
  const picker = picking(["chat"]);
  picker.status([{ name: "chat", kind: "live", state: "open", viewers: 5, everywhere: 12, servers: 3 }]);
  for (const text of [element("feed-note").textContent, element("feed-about").textContent, element("feed").title]) {
    assert.match(text, /12 viewers on 3 servers/);
  }
});

test("a feed in trouble is said to be, with the reason, and in the menu", () => {
  const picker = picking(["web"]);
  picker.list(listed("web", "db", "log"));
  const feeds = parseFeeds({ feeds: [
    { name: "web", kind: "live", stalled: true, trouble: "the stream LOGS does not exist", chunks: 0 }, { name: "db", kind: "live" },
    { name: "log", kind: "live", trouble: "reading is denied" },
  ] });
  picker.status(feeds);
  assert.deepEqual(element("feed").options.map(({ textContent }) => textContent), ["web", "db", "log (not ready)"]);
  for (const text of [element("feed-note").textContent, element("feed-about").textContent, element("feed").title]) {
    assert.match(text, /^web: live · stalled \(the stream LOGS does not exist\)/);
  }
  // The list shows the name of the one that is chosen whole.
  element("feed").value = "db";
  element("feed").dispatchEvent(new Event("change"));
  assert.deepEqual(element("feed").options.map(({ textContent }) => textContent), ["web (stalled)", "db", "log (not ready)"]);
  // Once they work again.
  picker.status(told(["web", "db", "log"], []));
  assert.deepEqual(element("feed").options.map(({ textContent }) => textContent), ["web", "db", "log"]);
});

test("without a feed in the address, one that works is chosen, if there is any", () => {
  for (const [names, working, troubled, chosen, named] of [
    [["default", "web", "db"], ["default", "web", "db"], [], "default", []],
    [["default", "web", "db"], ["db"], ["default", "web"], "db", ["db"]],
    [["default", "web"], [], ["default", "web"], "default", []],
    // The usual one is missing: the first is chosen, or the first that works.
    [["web", "db"], ["web", "db"], [], "web", ["web"]],
    [["web", "db"], ["db"], ["web"], "db", ["db"]],
    [["web", "db"], [], ["web", "db"], "web", ["web"]],
    // Nothing is known of them.
    [["default", "web"], [], [], "default", []],
    [["default", "web"], [], ["default"], "default", []],
  ]) {
    const picker = picking([]);
    picker.list(listed(...names), told(working, troubled));
    assert.deepEqual([picker.feed, picker.named], [chosen, named], JSON.stringify([names, troubled]));
  }
  // A feed that failed is no better.
  const failed = picking([]);
  failed.list(listed("default", "web"), [...told([], ["default"]), ...parseFeeds({ feeds: [{ name: "web", state: "failed" }] })]);
  assert.equal(failed.feed, "default");
});

test("what the visitor or the address has chosen stays, also in trouble", () => {
  const asked = picking(["default"]);
  asked.list(listed("default", "web"), told(["web"], ["default"]));
  assert.equal(asked.feed, "default");
  // Read already: trouble that comes later is shown, and nothing else is read.
  const read = picking([]);
  read.list(listed("default", "web"), told(["default", "web"], []));
  read.list(listed("default", "web"));
  read.status(told(["web"], ["default"]));
  assert.equal(read.feed, "default");
  // Chosen in the menu in place of the one that works: the address has to name it.
  const picker = picking([]);
  picker.list(listed("default", "web"), told(["web"], ["default"]));
  element("feed").value = "default";
  element("feed").dispatchEvent(new Event("change"));
  assert.deepEqual([picker.feed, picker.named], ["default", ["default"]]);
});
