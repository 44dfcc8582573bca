// Which transport a page changes to when one breaks, and which it does not blame.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FIRST_MS, LONGEST_MS } from "../../static/js/client/backoff.mjs";
import { REST_MS } from "../../static/js/client/rests.mjs";
import { CLOSED_WAIT_MS } from "../../static/js/client/webtransport-source.mjs";
import { fakeWebTransport, handDriven, infoDocument, json } from "./fakes.mjs";
import { BEAT, begin, calm, choosing, chunk, following, reading } from "./following.mjs";

test("auto: the way that broke gives way to the next one, with the reason, and is tried again later", async () => {
  const { f, first } = await reading();
  assert.match(first.session.url, /from=now/);
  first.fail(new Error("The session is closed."));
  await calm();
  f.env.tick(FIRST_MS);
  await calm();
  const [path, verdicts] = f.all("onOpen").at(-1);
  assert.equal(path.transport, "fetch");
  assert.equal(f.connections[0].from, "7-0");
  const [, why, taken] = verdicts;
  assert.equal(why.verdict, "not taken");
  assert.match(why.reason, /failed .* ago: The stream was interrupted .*The session is closed\..*skipped for one minute/);
  assert.equal(taken.verdict, "taken");
  await f.push(0, begin(7), chunk(1));

  for (let time = 0; time < REST_MS; time += REST_MS / 4) {
    f.env.tick(REST_MS / 4);
    await f.push(0, BEAT);
  }
  f.connections[0].end();
  await calm();
  f.env.tick(FIRST_MS);
  await calm();
  const second = await f.give();
  assert.match(second.session.url, /from=7-1/);
  assert.equal(f.all("onOpen").at(-1)[0].transport, "webtransport");
  f.follower.stop();
  await f.run;
});

test("auto: where the server itself was gone, no way is to blame", async () => {
  const { f, first } = await reading();
  f.env.routes["/info"] = () => { throw new TypeError("Failed to fetch"); };
  first.fail(new Error("The session is closed."));
  await calm();
  f.env.tick(FIRST_MS);
  await calm();
  f.env.routes["/info"] = () => json(infoDocument());
  f.env.tick(LONGEST_MS);
  await calm();
  await f.give();
  assert.equal(f.all("onOpen").at(-1)[0].transport, "webtransport");
  f.follower.stop();
  await f.run;
});

test("a way that was chosen by hand is kept", async () => {
  const WebTransport = fakeWebTransport();
  const f = following({ WebTransport }, { choice: "webtransport" });
  for (let i = 0; i < 2; i += 1) {
    await calm();
    const session = WebTransport.sessions[i];
    const driven = handDriven();
    session.open();
    session.give(driven.stream);
    await calm();
    driven.push(begin(7));
    driven.push(chunk(i));
    await calm();
    driven.fail(new Error("gone"));
    await calm();
    f.env.tick(LONGEST_MS);
  }
  assert.deepEqual(f.all("onOpen").map(([{ transport }]) => transport), ["webtransport", "webtransport"]);
  assert.match(f.all("onOpen")[0][1][0].reason, /It was chosen/);
  assert.equal(f.connections.length, 0);
  f.follower.stop();
  await f.run;
});

for (const [what, end] of [
  ["the stream's code", (driven) => driven.fail(Object.assign(new Error("Received RESET_STREAM."), { streamErrorCode: 3 }))],
  ["the session's code", async ({ fail, session }) => {
    session.endFromServer({ closeCode: 3, reason: "the client read nothing for too long" });
    await calm();
    fail(new Error("The session is closed."));
  }],
  // As Firefox does when both come at once.
  ["the session's code, after its streams have failed", async ({ fail, session }) => {
    fail(Object.assign(new Error("remote WebTransport close"), { source: "session", streamErrorCode: null }));
    await calm();
    session.endFromServer({ closeCode: 3, reason: "the client read nothing for too long" });
  }],
]) {
  test(`auto: a page that took nothing is told so, and comes back over the same transport: ${what}`, async () => {
    const { f, first } = await reading();
    await end(first);
    await calm();
    assert.match(f.all("onLost")[0][0].message, /nothing had been read from it for too long/);
    f.env.tick(FIRST_MS);
    await calm();
    const second = await f.give();
    assert.match(second.session.url, /from=7-0/);
    assert.equal(f.all("onOpen").at(-1)[0].transport, "webtransport");
    f.follower.stop();
    await f.run;
  });
}

test("a session's end that the browser does not report with its code is waited for, and then is one without", async () => {
  const { f, first } = await reading();
  first.fail(Object.assign(new Error("remote WebTransport close"), { source: "session", streamErrorCode: null }));
  await calm();
  assert.equal(f.all("onLost").length, 0);
  f.env.tick(CLOSED_WAIT_MS);
  await calm();
  assert.match(f.all("onLost")[0][0].message, /interrupted/);
  f.follower.stop();
  await f.run;
});

test("auto: a server that takes nothing more is asked once for each wait, and no transport is to blame", async () => {
  const f = choosing();
  f.env.routes["/stream"] = () => new Response("", { status: 503, headers: { "retry-after": "5" } });
  for (let attempt = 1; attempt <= 3; attempt += 1) {
    await calm();
    assert.equal(f.WebTransport.sessions.length, attempt);
    f.WebTransport.sessions.at(-1).refuse(new Error("Opening handshake failed."));
    await calm();
    const [error, wait] = f.all("onLost").at(-1);
    assert.match(error.message, /status 503/);
    assert.ok(wait >= 5000 && error.busy, `${wait}`);
    f.env.tick(4999);
    await calm();
    assert.equal(f.WebTransport.sessions.length, attempt);
    f.env.tick(wait - 4999);
  }
  await calm();
  const driven = await f.give();
  driven.push(begin(7));
  driven.push(chunk(0));
  await calm();
  assert.equal(f.all("onOpen").at(-1)[0].transport, "webtransport");
  f.follower.stop();
  await f.run;
});

test("auto over HTTP/3: what fetch is refused is not asked again over WebTransport", async () => {
  const WebTransport = fakeWebTransport();
  const routes = { "/info": () => json(infoDocument()), "/stream": () => new Response("", { status: 429, headers: { "retry-after": "5" } }) };
  const f = following({ WebTransport, protocols: { "/info": "h3" }, routes }, { choice: "auto" });
  await calm();
  assert.ok(f.all("onLost")[0][1] >= 5000);
  assert.equal(WebTransport.sessions.length, 0);
  f.follower.stop();
  await f.run;
});
