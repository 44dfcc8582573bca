import assert from "node:assert/strict";
import { test } from "node:test";
import { openFetch } from "../../static/js/client/fetch-source.mjs";
import { OPEN_TIMEOUT_MS, openWebTransport } from "../../static/js/client/webtransport-source.mjs";
import { FakeEnv, fakeWebTransport, handDriven, json, settled } from "./fakes.mjs";

const STREAM = "http://localhost:8080/stream";
const SESSION = "https://localhost:4433/stream";
const HASHES = [{ algorithm: "sha-256", value: new Uint8Array(32) }];

function fetching(route, changes = {}) {
  const env = new FakeEnv({ routes: { "/stream": route }, protocols: {}, ...changes });
  const abort = new AbortController();
  return { env, abort, opening: openFetch({ url: STREAM, signal: abort.signal, env }) };
}

/** A session that is being opened; nothing of it outlives the test. */
function connecting(t, certificateHashes = HASHES) {
  const WebTransport = fakeWebTransport();
  const env = new FakeEnv({ WebTransport });
  const abort = new AbortController();
  const opening = openWebTransport({ url: SESSION, certificateHashes, signal: abort.signal, env });
  opening.catch(() => {});
  t.after(() => abort.abort());
  return { env, abort, opening, session: WebTransport.sessions[0] };
}

test("fetch: the body is handed on while it is still being written, past any cache", async () => {
  const driven = handDriven();
  const { env, opening } = fetching(() => new Response(driven.stream));
  const source = await opening;
  assert.equal(source.transport, "fetch");
  assert.equal(source.startedAt, 1000);
  assert.equal(env.requests[0].init.cache, "no-store");
  driven.push("x");
  assert.equal((await source.stream.getReader().read()).value.length, 1);
});

test("fetch: the protocol is what the browser reports when the response has ended", async () => {
  const { env, opening } = fetching(() => new Response("x"));
  const source = await opening;
  const protocol = source.protocol();
  env.report(STREAM, "h3");
  assert.equal(await protocol, "h3");
  source.close();
  assert.equal(env.observers.size, 0);
});

test("fetch: the caller's signal and close both end the request", async () => {
  for (const end of [({ abort }) => abort.abort(), ({ source }) => source.close()]) {
    const { env, abort, opening } = fetching(() => new Response("x"));
    const source = await opening;
    assert.equal(env.requests[0].init.signal.aborted, false);
    end({ abort, source });
    assert.equal(env.requests[0].init.signal.aborted, true);
  }
});

test("fetch: a refusal gives the server's reason and the page's origin", async () => {
  const problem = { type: "about:blank", title: "Forbidden", status: 403, detail: "this origin may not read" };
  const { env, opening } = fetching(() => json(problem, { status: 403, headers: { "content-type": "application/problem+json" } }));
  await assert.rejects(opening, (error) => {
    assert.equal(error.message, "The server refused the request for /stream with status 403: this origin may not read.");
    assert.match(error.steps.join(" "), /--allow-origin http:\/\/localhost:8080/);
    return true;
  });
  assert.equal(env.observers.size, 0);
});

test("fetch: no answer says to start the server, with the browser's words", async () => {
  const { opening } = fetching(() => { throw new TypeError("Failed to fetch"); });
  await assert.rejects(opening, (error) => {
    assert.match(error.message, /did not answer the request for \/stream/);
    assert.match(error.steps.join(" "), /still running/);
    assert.equal(error.said, "TypeError: Failed to fetch");
    return true;
  });
});

test("fetch: a body that fails was cut short", async () => {
  const source = await fetching(() => new Response("x")).opening;
  assert.match(source.failure(new TypeError("network error"), 42).message, /interrupted after 42 bytes/);
});

test("WebTransport: every hash of the certificate is passed on", async (t) => {
  const two = [...HASHES, { algorithm: "sha-256", value: new Uint8Array(32).fill(1) }];
  const { session } = connecting(t, two);
  assert.equal(session.url, SESSION);
  assert.deepEqual(session.options, { serverCertificateHashes: two });
});

test("WebTransport: a trusted certificate goes without hashes", (t) => {
  assert.deepEqual(connecting(t, []).session.options, {});
});

test("WebTransport: the server's one stream is the source, and the page closes the session", async (t) => {
  const { session, opening } = connecting(t);
  session.open();
  await settled();
  const driven = handDriven();
  session.give(driven.stream);
  const source = await opening;
  assert.equal(source.transport, "webtransport");
  assert.equal(source.stream, driven.stream);
  assert.equal(await source.protocol(), "h3");
  assert.equal(session.closedByPage, 0);
  source.close();
  assert.equal(session.closedByPage, 1);
});

test("WebTransport: a refused session lists the causes that a browser hides", async (t) => {
  const { session, opening } = connecting(t);
  session.refuse(Object.assign(new Error("Opening handshake failed."), { name: "WebTransportError" }));
  await assert.rejects(opening, (error) => {
    const advice = error.steps.join(" ");
    for (const part of [/still running/, /UDP port 4433/, /14 days/, /--allow-origin http:\/\/localhost:8080/]) assert.match(advice, part);
    assert.equal(error.said, "WebTransportError: Opening handshake failed.");
    return true;
  });
  assert.equal(session.closedByPage, 1);
});

test("WebTransport: a constructor that throws is the same refusal", async () => {
  const env = new FakeEnv({ WebTransport: class { constructor() { throw new SyntaxError("bad"); } } });
  const opening = openWebTransport({ url: SESSION, certificateHashes: [], signal: new AbortController().signal, env });
  await assert.rejects(opening, /could not be opened/);
});

test("WebTransport: silence ends after a while", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { session, opening } = connecting(t);
  t.mock.timers.tick(OPEN_TIMEOUT_MS - 1);
  await settled();
  assert.equal(session.closedByPage, 0);
  t.mock.timers.tick(1);
  await assert.rejects(opening, (error) => error.said === "Error: no answer within 8 seconds");
  assert.equal(session.closedByPage, 1);
});

test("WebTransport: a stop while opening, and while waiting for the stream, closes the session", async (t) => {
  for (const until of [() => {}, (session) => session.open()]) {
    const { session, opening, abort } = connecting(t);
    until(session);
    await settled();
    abort.abort();
    await assert.rejects(opening);
    assert.equal(session.closedByPage, 1);
  }
});

test("WebTransport: a session that ends without a stream says what the server said", async (t) => {
  const { session, opening } = connecting(t);
  session.open();
  await settled();
  session.endFromServer({ closeCode: 7, reason: "no such feed" });
  await assert.rejects(opening, /ended before the server opened a stream \(the server closed the session with code 7: no such feed\)/);
});

test("WebTransport: a browser without it, and a page that is not secure, are told apart", async () => {
  const open = (isSecureContext) => openWebTransport({
    url: SESSION, certificateHashes: HASHES, signal: new AbortController().signal, env: new FakeEnv({ isSecureContext }),
  });
  await assert.rejects(open(true), /WebTransport is not available here/);
  await assert.rejects(open(false), /not loaded from a secure address/);
});
