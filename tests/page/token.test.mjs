import assert from "node:assert/strict";
import { test } from "node:test";
import { Token, tokenIn } from "../../static/js/token.mjs";

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
