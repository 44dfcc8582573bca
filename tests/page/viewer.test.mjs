import assert from "node:assert/strict";
import { test } from "node:test";
import { Viewer } from "../../static/js/page/viewer.mjs";
import { FakeEnv, fakeWebTransport, handDriven, infoDocument, json, settled } from "./fakes.mjs";

const STREAM = "http://localhost:8080/stream";

/** A viewer whose events are written down in order. */
function viewing(changes = {}) {
  const driven = handDriven();
  const env = new FakeEnv(changes);
  env.routes["/stream"] ??= () => new Response(driven.stream);
  const told = [];
  const names = ["onInfo", "onConnecting", "onOpen", "onChunk", "onPath", "onDone", "onStopped", "onError"];
  const viewer = new Viewer(env, Object.fromEntries(names.map((name) => [name, (...args) => told.push([name, ...args])])));
  const kinds = () => told.map(([name]) => name);
  const find = (name) => told.find(([kind]) => kind === name)?.slice(1);
  return { driven, env, told, viewer, kinds, find };
}

test("a fetch: what /info came over at first, the browser's report on the stream at the end", async () => {
  const v = viewing({ protocols: { "/info": "http/1.1" } });
  const run = v.viewer.start("fetch");
  await settled();
  assert.deepEqual(v.find("onOpen"), [{ transport: "fetch", protocol: "http/1.1", final: false }]);
  v.driven.push("x");
  await settled();
  assert.equal(v.find("onChunk")[0].bytes, 1);
  v.driven.end();
  await settled();
  assert.equal(v.find("onDone"), undefined, "not done before the report is there");
  v.env.report(STREAM, "h2");
  await run;
  assert.deepEqual(v.find("onPath"), [{ transport: "fetch", protocol: "h2", final: true }]);
  assert.deepEqual(v.kinds(), ["onConnecting", "onInfo", "onOpen", "onChunk", "onPath", "onDone"]);
  assert.equal(v.env.observers.size, 0);
});

test("WebTransport: final from the start, and the session is closed after the stream's end", async () => {
  const WebTransport = fakeWebTransport();
  const v = viewing({ WebTransport });
  const run = v.viewer.start("webtransport");
  await settled();
  const [session] = WebTransport.sessions;
  session.open();
  session.give(v.driven.stream);
  await settled();
  assert.deepEqual(v.find("onOpen")[0], { transport: "webtransport", protocol: "h3", final: true });
  assert.equal(session.closedByPage, 0);
  v.driven.end();
  await run;
  assert.equal(session.closedByPage, 1);
  assert.deepEqual(v.kinds().slice(-1), ["onDone"]);
});

test("/info is asked anew at each start", async () => {
  const v = viewing({ protocols: { "/info": "h3", "/stream": "h3" } });
  v.driven.end();
  await v.viewer.start("fetch");
  v.env.routes["/stream"] = () => new Response("again");
  await v.viewer.start("fetch");
  assert.equal(v.env.requests.filter(({ url }) => url.endsWith("/info")).length, 2);
  assert.equal(v.kinds().filter((kind) => kind === "onDone").length, 2);
});

test("a stop ends the request and is told once, when a new start is possible", async () => {
  const v = viewing();
  const run = v.viewer.start("fetch");
  await settled();
  v.driven.push("x");
  await settled();
  assert.equal(v.viewer.running, true);
  v.viewer.stop();
  v.viewer.stop();
  v.env.report(STREAM, "http/1.1");
  await run;
  assert.equal(v.viewer.running, false);
  assert.equal(v.env.requests.at(-1).init.signal.aborted, true);
  assert.equal(v.kinds().filter((kind) => kind === "onStopped").length, 1);
  assert.equal(v.find("onStopped")[0].bytes, 1);
  assert.equal(v.find("onError"), undefined);
});

test("a stopped fetch that the browser does not report on stays not final", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const v = viewing();
  const run = v.viewer.start("fetch");
  await settled();
  v.viewer.stop();
  await settled();
  t.mock.timers.tick(100);
  await run;
  assert.equal(v.find("onPath"), undefined);
});

test("a stop while /info is on its way", async () => {
  const v = viewing();
  v.env.routes["/info"] = (init) => new Promise((_, reject) => {
    init.signal.addEventListener("abort", () => reject(init.signal.reason));
  });
  const run = v.viewer.start("fetch");
  v.viewer.stop();
  await run;
  assert.deepEqual(v.told.at(-1), ["onStopped", undefined]);
});

test("a second start while one runs does nothing", async () => {
  const v = viewing({ protocols: { "/info": "h2", "/stream": "h2" } });
  const run = v.viewer.start("fetch");
  await v.viewer.start("fetch");
  assert.equal(v.kinds().filter((kind) => kind === "onConnecting").length, 1);
  await settled();
  v.driven.end();
  await run;
});

test("a stream that is cut short is an error, never done", async () => {
  const v = viewing({ protocols: { "/info": "h2", "/stream": "h2" } });
  const run = v.viewer.start("fetch");
  await settled();
  v.driven.push("half");
  await settled();
  v.driven.fail(new TypeError("network error"));
  await run;
  assert.match(v.find("onError")[0].message, /interrupted after 4 bytes/);
  assert.equal(v.find("onDone"), undefined);
});

test("a server that is gone, and one without WebTransport", async () => {
  const gone = viewing();
  gone.env.routes["/info"] = () => { throw new TypeError("Failed to fetch"); };
  await gone.viewer.start("fetch");
  assert.match(gone.find("onError")[0].message, /did not answer the request for \/info/);

  const without = viewing({ WebTransport: fakeWebTransport() });
  without.env.routes["/info"] = () => json(infoDocument({ webtransport: null }));
  await without.viewer.start("webtransport");
  assert.match(without.find("onError")[0].message, /offers no WebTransport/);
});

test("a stream that breaks off because its feed failed says why, whatever the transport could", async () => {
  const failed = { feeds: [{ name: "default", kind: "live", state: "failed", error: "the command exited with status 101" }] };
  const v = viewing({ protocols: { "/info": "h2", "/stream": "h2" } });
  v.env.routes["/feeds"] = () => json(failed);
  const run = v.viewer.start("fetch");
  await settled();
  v.driven.push("x");
  v.driven.fail(new TypeError("network error"));
  await run;
  assert.match(v.find("onError")[0].message, /failed at its source: the command exited with status 101\./);
});

test("a stream that breaks off while its feed is open was cut short", async () => {
  for (const route of [() => json({ feeds: [{ name: "default", kind: "live", state: "open" }] }), () => { throw new TypeError("gone"); }]) {
    const v = viewing({ protocols: { "/info": "h2", "/stream": "h2" } });
    v.env.routes["/feeds"] = route;
    const run = v.viewer.start("fetch");
    await settled();
    v.driven.fail(new TypeError("network error"));
    await run;
    assert.match(v.find("onError")[0].message, /interrupted after 0 bytes/);
  }
});
