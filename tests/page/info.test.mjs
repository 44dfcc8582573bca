import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenFeed, feedUrl, loadInfo, parseInfo, sessionUrl } from "../../static/js/client/info.mjs";
import { FakeEnv, infoDocument, json } from "./fakes.mjs";

test("what the server gives is understood", () => {
  const info = parseInfo(infoDocument());
  assert.equal(info.version, "0.1.0");
  assert.deepEqual(info.feeds, [{ name: "default", url: "https://localhost:4433/stream", kind: "on-demand", settings: [] }]);
  assert.equal(info.webtransport.url, "https://localhost:4433/stream");
  assert.deepEqual(info.webtransport.certificateHashes, [{ algorithm: "sha-256", value: new Uint8Array(32).fill(7) }]);
  assert.equal(info.chrome, "google-chrome https://localhost:4433/");
});

test("a server without WebTransport, and one with a trusted certificate", () => {
  assert.equal(parseInfo(infoDocument({ webtransport: null })).webtransport, null);
  const trusted = { url: "https://example.org/stream", certificateHashes: [] };
  assert.deepEqual(parseInfo(infoDocument({ webtransport: trusted })).webtransport, trusted);
});

test("both hashes of a renewal are kept, and members of a later version ignored", () => {
  const { webtransport } = infoDocument();
  webtransport.certificateHashes.push({ algorithm: "sha-256", value: Buffer.alloc(32, 9).toString("base64") });
  const info = parseInfo(infoDocument({ webtransport, somethingNew: 1 }));
  assert.deepEqual(info.webtransport.certificateHashes.map(({ value }) => value[0]), [7, 9]);
});

const hashes = (value) => ({ webtransport: { url: "https://localhost:4433/stream", certificateHashes: value } });
for (const [what, document, message] of [
  ["a list", [], /it is not an object/],
  ["no version", infoDocument({ version: 1 }), /version is not a string/],
  ["no feeds", infoDocument({ feeds: {} }), /feeds is not a list/],
  ["a feed that is no object", infoDocument({ feeds: ["default"] }), /feeds\[0\] is not an object/],
  ["a script as an address", infoDocument({ feeds: [{ name: "a", url: "javascript:alert(1)" }] }), /feeds\[0\]\.url is not an http address/],
  ["WebTransport without TLS", infoDocument({ webtransport: { url: "http://localhost/", certificateHashes: [] } }), /webtransport\.url is not https/],
  ["no list of hashes", infoDocument(hashes(undefined)), /certificateHashes is not a list/],
  ["a hash that is not base64", infoDocument(hashes([{ algorithm: "sha-256", value: "%%%" }])), /certificateHashes\[0\]\.value is not base64/],
  ["a short hash", infoDocument(hashes([{ algorithm: "sha-256", value: "AAAA" }])), /has 3 bytes, not the 32/],
]) {
  test(`refused: ${what}`, () => {
    assert.throws(() => parseInfo(document), (error) => message.test(error.message) && error.steps.length > 0);
  });
}

test("the answer comes with the protocol that the browser reports for it", async () => {
  const env = new FakeEnv({ protocols: { "/info": "h3" } });
  const { info, protocol } = await loadInfo(env);
  assert.equal(info.version, "0.1.0");
  assert.equal(protocol, "h3");
  assert.equal(env.requests[0].url, "http://localhost:8080/info");
  assert.equal(env.requests[0].init.cache, "no-store");
  assert.equal(env.observers.size, 0);
});

test("an empty report is unknown, not a guess", async () => {
  const env = new FakeEnv({ protocols: { "/info": "" } });
  assert.equal((await loadInfo(env)).protocol, "unknown");
});

test("a browser that never reports is unknown after a while", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const env = new FakeEnv({ protocols: {} });
  const loading = loadInfo(env);
  await new Promise((resolve) => setImmediate(resolve));
  t.mock.timers.tick(1000);
  assert.equal((await loading).protocol, "unknown");
});

test("reports on other requests, or on an earlier one of the same address, are not taken", async () => {
  const env = new FakeEnv({ protocols: {} });
  env.routes["/info"] = () => {
    env.report("http://localhost:8080/style.css", "h2");
    env.report("http://localhost:8080/info", "http/1.1", env.time - 50);
    env.report("http://localhost:8080/info", "h3");
    return json(infoDocument());
  };
  assert.equal((await loadInfo(env)).protocol, "h3");
});

test("no answer, a refusal and an answer that is no JSON each say what to do", async () => {
  const env = new FakeEnv();
  env.routes["/info"] = () => { throw new TypeError("Failed to fetch"); };
  await assert.rejects(loadInfo(env), /did not answer the request for \/info/);
  env.routes["/info"] = () => new Response("oops", { status: 500 });
  await assert.rejects(loadInfo(env), /refused the request for \/info with status 500\./);
  env.routes["/info"] = () => new Response("<!doctype html>");
  await assert.rejects(loadInfo(env), /it is not JSON/);
  assert.equal(env.observers.size, 0);
});

test("a feed is fetched from the page's own origin", () => {
  const info = parseInfo(infoDocument());
  assert.equal(feedUrl(info, "default", "http://localhost:8080/fetch.html"), "http://localhost:8080/stream");
  assert.equal(feedUrl(info, "a b/c", "https://localhost:4433/"), "https://localhost:4433/stream/a%20b%2Fc");
});

test("a session goes where /info says, with the feed's path", () => {
  const info = parseInfo(infoDocument());
  assert.equal(sessionUrl(info, "default", "http://localhost:8080/"), "https://localhost:4433/stream");
  assert.equal(sessionUrl(info, "news", "http://localhost:8080/"), "https://localhost:4433/stream/news");
});

test("without a name it is the default feed, or else the first", () => {
  const info = (...names) => ({ feeds: names.map((name) => ({ name, url: "", kind: "" })) });
  assert.equal(chosenFeed(info("log", "default"), ""), "default");
  assert.equal(chosenFeed(info("log", "chat"), ""), "log");
  assert.equal(chosenFeed(info(), ""), "");
  assert.equal(chosenFeed(info("log", "default"), "other"), "other");
});
