// When a page tries again, when it does not, and how long it waits.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff, LONGEST_MS, retryAfter } from "../../static/js/client/backoff.mjs";
import { fakeWebTransport, infoDocument, json } from "./fakes.mjs";
import { begin, calm, chunk, following, frame } from "./following.mjs";

test("the waits grow to their limit, and start over with the first chunk", async () => {
  const f = following({ random: () => 1 });
  await calm();
  await f.push(0, begin(7), chunk(0));
  f.env.routes["/info"] = () => { throw new TypeError("Failed to fetch"); };
  f.connections[0].end();
  await calm();
  for (let i = 0; i < 9; i += 1) {
    f.env.tick(f.all("onLost").at(-1)[1]);
    await calm();
  }
  const waits = f.all("onLost").map(([, wait]) => wait);
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000, 15000]);
  f.env.routes["/info"] = () => json(infoDocument());
  f.env.tick(LONGEST_MS);
  await calm();
  await f.push(1, begin(7));
  f.connections[1].end();
  await calm();
  assert.equal(f.all("onLost").at(-1)[1], 15000, "a connection that brings nothing is no reason to hurry");
  f.env.tick(LONGEST_MS);
  await calm();
  await f.push(2, begin(7), chunk(1));
  f.connections[2].end();
  await calm();
  assert.deepEqual(f.all("onLost").at(-1).slice(1, 3), [250, 1]);
  f.follower.stop();
  await f.run;
});

test("a network that is there again, and the visitor, end the wait", async () => {
  for (const hurry of [(f) => f.env.onlineAgain.forEach((callback) => callback()), (f) => f.follower.retryNow()]) {
    const f = following();
    await calm();
    await f.push(0, begin(7), chunk(0));
    f.connections[0].end();
    await calm();
    hurry(f);
    await calm();
    assert.equal(f.connections.length, 2);
    f.follower.stop();
    await f.run;
  }
});

for (const status of [400, 401, 403, 404, 410, 501]) {
  test(`status ${status} is for good`, async () => {
    const f = following({ routes: { "/info": () => json(infoDocument()), "/stream": () => new Response("", { status }) } });
    await f.run;
    assert.match(f.all("onError")[0][0].message, new RegExp(`status ${status}`));
    assert.equal(f.all("onLost").length, 0);
  });
}

for (const status of [429, 500, 502, 503]) {
  test(`status ${status} is asked again, when the server wants it`, async () => {
    const answer = () => new Response("", { status, headers: { "retry-after": "7" } });
    const f = following({ routes: { "/info": () => json(infoDocument()), "/stream": answer } });
    await calm();
    assert.equal(f.all("onLost")[0][1], 10_500, "and up to as much again, so that not all viewers come at once");
    f.env.onlineAgain.forEach((callback) => callback());
    f.env.tick(10_499);
    await calm();
    assert.equal(f.all("onConnecting").length, 1);
    f.env.tick(1);
    await calm();
    assert.deepEqual(f.all("onConnecting"), [[0], [1]]);
    f.follower.stop();
    await f.run;
  });
}

test("a feed that is not there, and bytes that are no frames, are for good", async () => {
  const problem = { detail: "there is no feed `nope`: there is default" };
  const none = following({
    routes: {
      "/info": () => json(infoDocument()),
      "/stream/nope": () => json(problem, { status: 404, headers: { "content-type": "application/problem+json" } }),
    },
  }, { feed: "nope" });
  await none.run;
  assert.match(none.all("onError")[0][0].message, /status 404: there is no feed .nope.: there is default\./);
  const garbage = following();
  await calm();
  await garbage.push(0, frame(0, 1));
  await garbage.run;
  assert.match(garbage.all("onError")[0][0].message, /not what this client expects/);
});

test("the wait is anything up to its top, after what the server asks for", () => {
  const waits = (random) => {
    const backoff = new Backoff(random);
    return [backoff.next(), backoff.next(), backoff.next(3000)];
  };
  assert.deepEqual(waits(() => 0), [0, 0, 3000]);
  assert.deepEqual(waits(() => 0.5), [125, 250, 4500]);
  assert.equal(new Backoff(() => 1).next(300_000), 300_000 + LONGEST_MS);
});

test("Retry-After in seconds and as a date", () => {
  const now = Date.parse("Wed, 21 Oct 2026 07:28:00 GMT");
  for (const [header, ms] of [
    [null, 0], ["", 0], ["soon", 0], ["0", 0], ["3", 3000], ["-3", 0], ["999999", 300_000],
    ["Wed, 21 Oct 2026 07:28:05 GMT", 5000], ["Wed, 21 Oct 2026 07:00:00 GMT", 0],
  ]) {
    assert.equal(retryAfter(header, now), ms, `${header}`);
  }
});

/** What a server refuses, as it does. @param {number} status @param {Record<string, string>} [headers] */
const refusal = (status, headers = {}, detail = "so it is") =>
  () => json({ detail }, { status, headers: { "content-type": "application/problem+json", ...headers } });

for (const [what, answer, message, step] of [
  ["401", refusal(401, { "www-authenticate": "Bearer" }), /status 401: so it is\./, /token that is valid now/],
  ["403 of another origin", refusal(403), /status 403/, /--allow-origin http:\/\/localhost:8080/],
  ["403 of the token", refusal(403, { "www-authenticate": 'Bearer error="insufficient_scope"' }), /status 403/, /token that allows it/],
  ["429", refusal(429, { "retry-after": "1" }), /status 429/, /Close other tabs/],
  ["503", refusal(503, { "retry-after": "1" }), /status 503/, /full, short of memory or shutting down/],
]) {
  for (const choice of ["fetch", "auto", "webtransport"]) {
    test(`${what} over ${choice}: it is said what happened and what to do`, async () => {
      const WebTransport = fakeWebTransport();
      const f = following({ WebTransport, routes: { "/info": () => json(infoDocument()), "/stream": answer } }, { choice });
      await calm();
      // Browsers do not tell a page why its session was refused.
      if (choice !== "fetch") WebTransport.sessions[0].refuse(new Error("Opening handshake failed."));
      await calm();
      const [[error, wait]] = [...f.all("onError"), ...f.all("onLost")];
      assert.match(error.message, message);
      assert.match(error.steps.join(" "), step);
      if (what === "429" || what === "503") assert.ok(wait >= 1000, `${wait}`);
      f.follower.stop();
      await f.run;
    });
  }
}

test("what the token does not allow is asked of the visitor, and not of the renewal", async () => {
  const token = { value: "a", inUrl: (url) => url, renewal: "/login", asked: [], after: async (error) => (token.asked.push(error), false) };
  const routes = { "/info": () => json(infoDocument()), "/stream": refusal(403, { "www-authenticate": 'Bearer error="insufficient_scope"' }) };
  const f = following({ token, routes });
  await f.run;
  assert.deepEqual(token.asked.map(({ otherToken, needsToken }) => ({ otherToken, needsToken })), [{ otherToken: true, needsToken: false }]);
  assert.match(f.all("onError")[0][0].message, /status 403/);
});
