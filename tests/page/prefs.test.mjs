// What a visitor chose, in the address.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { inAddress } from "../../static/js/page/prefs.mjs";

afterEach(() => {
  delete globalThis.location;
  delete globalThis.history;
});

test("an address that a browser does not change again so soon is no failure", () => {
  globalThis.location = { href: "http://localhost/?feed=log" };
  const written = [];
  globalThis.history = { replaceState: (_state, _title, url) => {
    written.push(String(url));
    throw new DOMException("Attempt to use history.replaceState() more than 100 times per 10 seconds", "SecurityError");
  } };
  inAddress("filter", "a b", "");
  assert.deepEqual(written, ["http://localhost/?feed=log&filter=a+b"]);
});
