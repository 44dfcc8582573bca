// Publishing from the page: what was taken is known, and nothing is published twice.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Publication, PublishError } from "../../static/js/page/publish.mjs";
import { FakeEnv, json, settled } from "./fakes.mjs";

/** A feed as the server keeps it, with its keys; `fail` says how a request ends after how many bytes. */
function feed(fail = () => undefined, { query = "", epoch = "1a" } = {}) {
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
    // A key that is not known: what is before the body counts as published.
    const known = keys.get(key) ?? Number(offset);
    if (known < Number(offset)) return problem(409);
    const fresh = body.subarray(Math.max(0, known - Number(offset)), failure?.after);
    kept.push(...fresh);
    if (body.length > 0) keys.set(key, known + fresh.length);
    if (failure?.answer !== undefined) return failure.answer;
    if (failure !== undefined) throw new TypeError("network error");
    return json({ epoch: server.epoch, bytes: keys.get(key) ?? known });
  };
  /** It may be replaced by another one, or forget a key. */
  const server = { epoch, keys };
  const publish = (text) => new Publication(env, `http://localhost:8080/stream/log${query}`, new Blob([text]));
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
  const forget = () => kept.splice(0);
  return { env, asked, server, forget, publish, run, text: () => new TextDecoder().decode(new Uint8Array(kept)) };
}

const problem = (status, more = {}) => json({ title: "no", ...more }, { status, headers: { "content-type": "application/problem+json" } });

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

test("a server that refuses every new token is not asked at the pace of the network", async () => {
  const f = feed(() => problem(401));
  const over = new AbortController();
  const times = [];
  f.env.token = { after: async () => {
    times.push(f.env.time);
    if (times.length === 4) over.abort();
    return true;
  } };
  await assert.rejects(f.run(f.publish("one\n"), over.signal), PublishError);
  const pauses = times.slice(1).map((time, place) => time - times[place]);
  assert.ok(pauses.every((pause, place) => pause >= 2000 * 2 ** place), `${pauses}`);
});

test("a file that has changed since it was chosen is named as the reason, and not tried again", async () => {
  const f = feed(() => ({ after: 0 }));
  const body = new Blob(["one\n"]);
  const changed = { arrayBuffer: async () => { throw new DOMException("changed", "NotReadableError"); } };
  body.slice = () => Object.assign(new Blob(["one\n"]), { slice: () => changed });
  const publication = new Publication(f.env, "http://localhost:8080/stream/log", body);
  await assert.rejects(f.run(publication), (error) => /has changed since it was chosen/.test(error.message));
  assert.deepEqual(f.asked.map(([length]) => length), [4, 0]);
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

test("cancelled when the feed had all of it: it is published", async () => {
  const over = new AbortController();
  const f = feed(() => {
    if (over.signal.aborted) return undefined;
    over.abort();
    return { after: 8 };
  });
  await f.run(f.publish("one\ntwo\n"), over.signal);
  assert.equal(f.text(), "one\ntwo\n");
});

test("a server that was restarted, or has forgotten the key: it keeps its place", async () => {
  for (const [epoch, kept] of [["1b", "two\n"], ["1a", "one\ntwo\n"]]) {
    const f = feed((request) => {
      if (request === 1) return { after: 4 };
      if (request !== 3) return undefined;
      f.server.keys.clear();
      f.server.epoch = epoch;
      if (epoch === "1b") f.forget();
      return problem(503);
    });
    assert.deepEqual((await f.run(f.publish("one\ntwo\n"))).at(-1), 8);
    assert.deepEqual([f.text(), f.asked.at(-1)], [kept, [4, 4]]);
  }
});

test("a part of the body that was taken is not the whole: the rest follows", async () => {
  const f = feed();
  const whole = f.env.routes["/stream/log"];
  f.env.routes["/stream/log"] = (init) => whole({ ...init, body: init.body.slice(0, 3) });
  assert.deepEqual(await f.run(f.publish("one\ntwo\n")), [3, 6, 8]);
  assert.equal(f.text(), "one\ntwo\n");
  f.env.routes["/stream/log"] = async () => json({ epoch: "1a", bytes: 0 });
  await assert.rejects(f.run(f.publish("one\n")), /after 0 bytes, none were published/);
  f.env.routes["/stream/log"] = async () => json({ epoch: "1a", bytes: 5 });
  await assert.rejects(f.run(f.publish("one\n")), /5 bytes of 4/);
});

test("more than a server takes at once is sent in smaller pieces, between lines", async () => {
  const line = `${"x".repeat(99)}\n`;
  const text = line.repeat(30);
  const f = feed((_, length) => (length > 1000 ? problem(413) : undefined), { query: "?chunk=lines" });
  await f.run(f.publish(text));
  assert.equal(f.text(), text);
  const sent = f.asked.map(([length]) => length).filter((length) => length > 0 && length <= 1000);
  assert.deepEqual(sent, [700, 700, 700, 700, 200]);
  // One that takes the part within its limit says how much that is.
  const g = feed((_, length) => (length > 1000 ? { after: 1000, answer: problem(413) } : undefined));
  await g.run(g.publish(text));
  assert.deepEqual([g.text(), g.asked.map(([length]) => length)], [text, [3000, 0, 1000, 1000]]);
});

test("what may have been published is not called nothing", async () => {
  const lost = feed((request) => (request === 1 ? { after: 0 } : problem(401)));
  await assert.rejects(lost.run(lost.publish("one\n")), (error) => error.taken === undefined);
  const told = feed(() => problem(401, { published: { epoch: "1a", bytes: 3 } }));
  await assert.rejects(told.run(told.publish("one\n")), (error) => error.taken === 3);
  const doubtful = feed(() => problem(503, { in_doubt: true }));
  await assert.rejects(doubtful.run(doubtful.publish("one\n")), (error) => error.taken === undefined);
});
