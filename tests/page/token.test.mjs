import assert from "node:assert/strict";
import { test } from "node:test";
import { ClientError, tokenExpired } from "../../static/js/client/errors.mjs";
import { FIRST_PAUSE_MS, LONGEST_PAUSE_MS, Renewals } from "../../static/js/page/renewals.mjs";
import { Token, tokenIn } from "../../static/js/client/token.mjs";
import { FakeEnv, settled } from "./fakes.mjs";

const HREF = "https://cast.example/live/";

/** A token with its storage, and the requests that it made. */
function made({ answers = {}, kept = {} } = {}) {
  const requests = [];
  const store = new Map(Object.entries(kept));
  const token = new Token({
    href: HREF,
    storage: {
      getItem: (key) => store.get(key) ?? null,
      setItem: (key, value) => store.set(key, value),
      removeItem: (key) => store.delete(key),
    },
    fetch: async (url, init) => {
      const headers = new Headers(init?.headers);
      requests.push({ url, method: init?.method ?? "GET", authorization: headers.get("authorization"), credentials: init?.credentials });
      const answer = answers[new URL(url).pathname];
      return answer === undefined ? new Response("", { status: 404 }) : new Response(answer);
    },
  });
  return { token, requests, store };
}

const never = new AbortController().signal;

test("token: shown to its own server, and with no cookie beside it", async () => {
  const { token, requests } = made({ kept: { "h3cast-token": "abc" } });
  await token.fetch(`${HREF}info`, { cache: "no-store" });
  await token.fetch("https://else.example/", {});
  token.set("");
  await token.fetch(`${HREF}info`);
  assert.deepEqual(requests.map(({ authorization, credentials }) => [authorization, credentials]), [
    ["Bearer abc", "omit"], [null, undefined], [null, undefined],
  ]);
  assert.equal(token.inUrl("https://cast.example/stream?from=now"), "https://cast.example/stream?from=now");
  token.set("a+b");
  assert.equal(token.inUrl("https://cast.example/stream?from=now"), "https://cast.example/stream?from=now&token=a%2Bb");
});

test("token: renewed at the path that the server names", async () => {
  const answers = { "/live/info": '{"auth":{"token":false,"renewal":"/login/token"}}', "/login/token": '{"token":"new"}' };
  const { token, requests, store } = made({ answers, kept: { "h3cast-token": "old" } });
  assert.equal(await token.renew("why", never), true);
  assert.equal(token.value, "new");
  assert.equal(store.get("h3cast-token"), "new");
  assert.deepEqual(requests.map(({ url, method, authorization }) => [new URL(url).pathname, method, authorization]), [
    ["/live/info", "GET", null], ["/login/token", "POST", null],
  ]);
  // The same one again is no new one.
  assert.equal(await token.renew("why", never), false);
});

test("token: asked of the visitor where the server knows no path, and never sent elsewhere", async () => {
  for (const renewal of [null, "https://else.example/token", "//else.example/token"]) {
    const { token, requests } = made({ answers: { "/token": "stolen" } });
    token.renewal = renewal;
    token.ask = async (why) => (why === "why" ? " typed \n" : "");
    assert.equal(await token.renew("why", never), true, String(renewal));
    assert.equal(token.value, "typed");
    assert.deepEqual(requests, []);
    assert.equal(await token.renew("another", never), false);
  }
});

test("token: what a renewal may answer", () => {
  for (const [text, token] of [
    ["abc\n", "abc"], ['{"token":"abc"}', "abc"], ['{"token":7}', ""], ["{", ""], ["", ""], ["<html> x", ""],
  ]) assert.equal(tokenIn(text), token, text);
});

/** A server that issues any number of tokens and takes none, and pauses that the test ends. */
function refusing({ renewal = "/login/token" } = {}) {
  let issued = 0;
  const answers = {};
  Object.defineProperty(answers, "/login/token", { get: () => `token-${(issued += 1)}` });
  const { token } = made({ answers });
  token.renewal = renewal;
  const env = new FakeEnv({ token });
  const pauses = () => [...env.timers.values()].map(({ ms }) => ms);
  return { env, token, pauses, renewals: new Renewals(env), issued: () => issued };
}

test("token: renewed again and again with pauses, where the server refuses each", async () => {
  const { env, token, pauses, renewals, issued } = refusing();
  assert.equal(await renewals.renew(tokenExpired(), never), true, "the first at once");
  for (const ms of [2000, 4000, 8000, 16_000, 30_000, 30_000]) {
    const before = issued();
    const renewed = renewals.renew(tokenExpired(), never);
    await settled();
    assert.deepEqual([pauses(), issued()], [[ms], before]);
    env.tick(ms - 1);
    await settled();
    assert.equal(issued(), before);
    env.tick(1);
    assert.equal(await renewed, true);
    assert.equal(token.value, `token-${before + 1}`);
  }
  assert.deepEqual([FIRST_PAUSE_MS, LONGEST_PAUSE_MS], [2000, 30_000]);
  // One was of use.
  renewals.reset();
  assert.equal(await renewals.renew(tokenExpired(), never), true);
  assert.deepEqual(pauses(), []);
});

test("token: a pause ends with what it is for, and then nothing is renewed", async () => {
  const { pauses, renewals, issued } = refusing();
  await renewals.renew(tokenExpired(), never);
  const over = new AbortController();
  const renewed = renewals.renew(tokenExpired(), over.signal);
  over.abort();
  assert.equal(await renewed, false);
  assert.equal(await renewals.renew(tokenExpired(), over.signal), false);
  assert.deepEqual([pauses(), issued()], [[], 1]);
});

test("token: a visitor is asked again without a pause", async () => {
  const { token, pauses, renewals } = refusing({ renewal: null });
  token.ask = async () => "typed";
  for (let i = 0; i < 3; i += 1) assert.equal(await renewals.renew(tokenExpired(), never), true);
  assert.deepEqual(pauses(), []);
});

test("token: what it does not allow is asked of the visitor, though it could be renewed", async () => {
  const { token, pauses, renewals, issued } = refusing();
  const asked = [];
  token.ask = async (why) => (asked.push(why), "another");
  const error = Object.assign(new ClientError("The token does not allow it.", []), { otherToken: true });
  for (let i = 0; i < 2; i += 1) assert.equal(await renewals.renew(error, never), true);
  assert.deepEqual([token.value, issued(), pauses()], ["another", 0, []]);
  assert.deepEqual(asked, [error.message, error.message]);
});
