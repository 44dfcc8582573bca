import assert from "node:assert/strict";
import { test } from "node:test";
import { openAuto } from "../../static/js/client/auto.mjs";
import { ClientError, refused } from "../../static/js/client/errors.mjs";

const fails = (message) => async () => { throw new ClientError(message, ["do this"]); };

/** Auto in a browser where everything works over TCP only, unless told otherwise. */
function auto(changes = {}) {
  const tried = [];
  const ways = {
    protocol: "h2", secure: true, supported: true, offered: true, byHash: true,
    openFetch: async () => ({ transport: "fetch" }),
    openWebTransport: async () => ({ transport: "webtransport" }),
    signal: new AbortController().signal,
    ...changes,
  };
  const { openFetch, openWebTransport } = ways;
  ways.openFetch = () => (tried.push("fetch"), openFetch());
  ways.openWebTransport = () => (tried.push("webtransport"), openWebTransport());
  return { tried, opening: openAuto(ways) };
}
const marks = (verdicts) => verdicts.map(({ way, verdict }) => `${way}: ${verdict}`);

for (const protocol of ["h3", "h3-29"]) {
  test(`fetch is taken where the browser reports ${protocol}`, async () => {
    const { tried, opening } = auto({ protocol });
    const { source, verdicts } = await opening;
    assert.equal(source.transport, "fetch");
    assert.deepEqual(tried, ["fetch"]);
    assert.deepEqual(marks(verdicts), [
      "fetch over HTTP/3: taken", "WebTransport: not needed", "fetch over HTTP/2 or 1.1: not needed",
    ]);
    assert.match(verdicts[0].reason, new RegExp(`/info was loaded over ${protocol}`));
  });
}

for (const protocol of ["h2", "http/1.1", "hq"]) {
  test(`WebTransport is taken where the browser reports ${protocol}`, async () => {
    const { tried, opening } = auto({ protocol });
    const { source, verdicts } = await opening;
    assert.equal(source.transport, "webtransport");
    assert.deepEqual(tried, ["webtransport"]);
    assert.equal(verdicts[0].reason, `/info was loaded over ${protocol}, not h3.`);
    assert.match(verdicts[1].reason, /by its hash/);
  });
}

test("a browser that does not tell the protocol is not taken to speak HTTP/3", async () => {
  const { source, verdicts } = await auto({ protocol: "unknown" }).opening;
  assert.equal(source.transport, "webtransport");
  assert.match(verdicts[0].reason, /protocol of .info is not reported/);
});

test("a trusted certificate is not said to be recognised by its hash", async () => {
  const { verdicts } = await auto({ byHash: false }).opening;
  assert.match(verdicts[1].reason, /the server's certificate is trusted/);
});

for (const [why, changes, reason] of [
  ["the browser has none", { supported: false }, /WebTransport is not available here/],
  ["the page is not secure", { supported: false, secure: false }, /secure address/],
  ["the server has none", { offered: false }, /server offers no WebTransport/],
]) {
  test(`fetch over TCP is taken where there is no WebTransport: ${why}`, async () => {
    const { tried, opening } = auto(changes);
    const { source, verdicts } = await opening;
    assert.equal(source.transport, "fetch");
    assert.deepEqual(tried, ["fetch"]);
    assert.match(verdicts[1].reason, reason);
    assert.equal(verdicts[2].verdict, "taken");
  });
}

test("fetch over TCP is taken where WebTransport fails, with the browser's words", async () => {
  const openWebTransport = async () => { throw new ClientError("It failed.", [], new Error("handshake")); };
  const { tried, opening } = auto({ openWebTransport });
  const { source, verdicts } = await opening;
  assert.equal(source.transport, "fetch");
  assert.deepEqual(tried, ["webtransport", "fetch"]);
  assert.equal(verdicts[1].reason, "It failed. Cause: Error: handshake.");
});

test("a fetch that failed over HTTP/3 is not tried twice", async () => {
  const { tried, opening } = auto({ protocol: "h3", openFetch: fails("No fetch."), openWebTransport: fails("No session.") });
  await assert.rejects(opening, (error) => {
    assert.equal(error.message, "No session.");
    assert.deepEqual(error.verdicts.map(({ verdict }) => verdict), ["not taken", "not taken", "not taken"]);
    assert.equal(error.verdicts[0].reason, "No fetch.");
    return true;
  });
  assert.deepEqual(tried, ["fetch", "webtransport"]);
});

test("when all fail, the last error tells what to do", async () => {
  const { opening } = auto({ openFetch: fails("No fetch."), openWebTransport: fails("No session.") });
  await assert.rejects(opening, (error) => error.message === "No fetch." && error.steps[0] === "do this" && error.verdicts.length === 3);
});

test("a stop while one way is being tried tries no other", async () => {
  const abort = new AbortController();
  const { tried, opening } = auto({
    signal: abort.signal,
    openWebTransport: async () => { abort.abort(); throw new ClientError("cut", []); },
  });
  await assert.rejects(opening, { name: "AbortError" });
  assert.deepEqual(tried, ["webtransport"]);
});

test("a way that rests is tried last, and the list says why", async () => {
  const resting = (way) => (way === "WebTransport" ? "It broke." : undefined);
  const { tried, opening } = auto({ resting });
  const { source, way, verdicts } = await opening;
  assert.deepEqual([source.transport, way, tried], ["fetch", "fetch over HTTP/2 or 1.1", ["fetch"]]);
  assert.deepEqual(marks(verdicts), [
    "fetch over HTTP/3: not taken", "WebTransport: not taken", "fetch over HTTP/2 or 1.1: taken",
  ]);
  assert.equal(verdicts[1].reason, "It broke.");
});

test("a way that rests is taken all the same when all others fail", async () => {
  const failed = [];
  const { tried, opening } = auto({
    resting: (way) => (way === "WebTransport" ? "It broke." : undefined),
    openFetch: fails("No fetch."),
    onFailed: (way, why) => failed.push([way, why]),
  });
  const { source } = await opening;
  assert.deepEqual([source.transport, tried, failed], ["webtransport", ["fetch", "webtransport"], [["fetch over HTTP/2 or 1.1", "No fetch."]]]);
});

test("fetch over HTTP/3 that rests is followed by WebTransport", async () => {
  const { tried, opening } = auto({ protocol: "h3", resting: (way) => (way === "fetch over HTTP/3" ? "It broke." : undefined) });
  const { verdicts } = await opening;
  assert.deepEqual(tried, ["webtransport"]);
  assert.deepEqual(marks(verdicts), ["fetch over HTTP/3: not taken", "WebTransport: taken", "fetch over HTTP/2 or 1.1: not needed"]);
});

test("what the server itself refuses for good is not asked for on another way", async () => {
  const refusing = async () => { throw refused("/stream", 404, {}, "http://localhost:8080"); };
  const { tried, opening } = auto({ protocol: "h3", openFetch: refusing });
  await assert.rejects(opening, (error) => error.permanent && error.verdicts.length === 3);
  assert.deepEqual(tried, ["fetch"]);
});
