// Publishing from the page: what was taken is known, and nothing is published twice.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Publication, PublishError } from "../../static/js/page/publish.mjs";
import { FakeEnv, json, settled } from "./fakes.mjs";

/** A feed as the server keeps it, with its keys; `fail` says how a request ends after how many bytes. */
function feed(fail = () => undefined) {
  const keys = new Map();
  const kept = [];
  const asked = [];
  const env = new FakeEnv();
  env.routes["/stream/log"] = async (init) => {
    const { "idempotency-key": key, "upload-offset": offset = "0" } = init.headers;
    const body = new Uint8Array(await init.body.arrayBuffer());
    asked.push([body.length, Number(offset)]);
    const failure = fail(asked.length, body.length);
    if (failure?.status !== undefined) return failure;
    const known = keys.get(key) ?? 0;
    const fresh = body.subarray(Math.max(0, known - Number(offset)), failure?.after);
    kept.push(...fresh);
    keys.set(key, known + fresh.length);
    if (failure !== undefined) throw new TypeError("network error");
    return json({ bytes: keys.get(key) });
  };
  const publish = (text) => new Publication(env, "http://localhost:8080/stream/log", new Blob([text]));
  /** Lets the pauses go by. */
  const run = async (publication, signal = new AbortController().signal) => {
    const taken = [];
    let over = false;
    const running = publication.run(signal, (bytes) => taken.push(bytes)).finally(() => { over = true; });
    running.catch(() => {});
    while (!over) {
      await settled();
      env.tick(14_000);
    }
    await running;
    return taken;
  };
  return { env, asked, publish, run, text: () => new TextDecoder().decode(new Uint8Array(kept)) };
}

const problem = (status) => json({ title: "no" }, { status, headers: { "content-type": "application/problem+json" } });

test("a line is one request", async () => {
  const f = feed();
  await f.run(f.publish("one\n"));
  assert.deepEqual([f.text(), f.asked], ["one\n", [[4, 0]]]);
});

test("a connection lost in the middle: the server is asked, and only the rest is sent", async () => {
  const f = feed((request) => (request === 1 ? { after: 4 } : undefined));
  assert.deepEqual(await f.run(f.publish("one\ntwo\n")), [4, 8]);
  assert.deepEqual([f.text(), f.asked], ["one\ntwo\n", [[8, 0], [0, 0], [4, 4]]]);
});

test("an answer that was lost publishes nothing again", async () => {
  const f = feed((request) => (request === 1 ? { after: undefined } : undefined));
  assert.deepEqual(await f.run(f.publish("one\n")), [4]);
  assert.deepEqual([f.text(), f.asked], ["one\n", [[4, 0], [0, 0]]]);
});

test("a publication that still runs on the server is asked for again", async () => {
  const f = feed((request) => (request === 1 ? { after: 2 } : request === 2 ? problem(409) : undefined));
  await f.run(f.publish("one\n"));
  assert.equal(f.text(), "one\n");
});

test("a server that is gone: given up after some attempts, and continued later", async () => {
  let gone = true;
  const f = feed((request) => (request === 1 ? { after: 3 } : gone ? { after: 0 } : undefined));
  const publication = f.publish("one\ntwo\n");
  await assert.rejects(f.run(publication), (error) => error instanceof PublishError && error.taken === undefined);
  gone = false;
  await f.run(publication);
  assert.equal(f.text(), "one\ntwo\n");
});

test("what is refused was not published, and says why", async () => {
  for (const status of [401, 403, 413]) {
    const f = feed(() => problem(status));
    await assert.rejects(f.run(f.publish("one\n")), (error) => error.taken === 0 && error.message.includes(`status ${status}`));
  }
});

test("a token is asked for, and then it goes on", async () => {
  const f = feed((request) => (request === 1 ? problem(401) : undefined));
  const whys = [];
  f.env.token = { after: async (error) => (whys.push(error.message), true) };
  await f.run(f.publish("one\n"));
  assert.equal(f.text(), "one\n");
  assert.match(whys.join(), /status 401/);
});

test("cancelled: what was taken is told", async () => {
  const over = new AbortController();
  const f = feed((request) => {
    if (request !== 1) return undefined;
    over.abort();
    return { after: 4 };
  });
  await assert.rejects(f.run(f.publish("one\ntwo\n"), over.signal), (error) => error.taken === 4);
});
