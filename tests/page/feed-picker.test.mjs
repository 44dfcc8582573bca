// What the server says of the feed that is chosen: it is shown in both views of the page.
import assert from "node:assert/strict";
import { test } from "node:test";
import { element, page } from "./dom.mjs";

for (const name of ["HTMLSelectElement", "HTMLDetailsElement", "HTMLFieldSetElement"]) globalThis[name] ??= globalThis.HTMLElement;
const { FeedPicker } = await import("../../static/js/page/feed-picker.mjs");

test("the log alone has it among the details, and in its menu of feeds", () => {
  page("feed-alone", "feed-name", "feed-row", "feed", "feed-note", "feed-about", "several", "several-list", "several-said", "several-follow", "arrange");
  Object.assign(element("feed"), { options: [] });
  Object.assign(document, { addEventListener() {} });
  globalThis.location = { href: "https://localhost/" };
  const picker = new FeedPicker(["chat"], () => {}, () => {});
  picker.status([{ name: "chat", kind: "live", state: "open", viewers: 5, everywhere: 12, servers: 3 }]);
  for (const text of [element("feed-note").textContent, element("feed-about").textContent, element("feed").title]) {
    assert.match(text, /12 viewers on 3 servers/);
  }
});
