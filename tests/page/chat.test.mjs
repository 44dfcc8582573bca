// The chat without its page: lines, addresses, both ways in, and what is told when.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { Chat, MAX_UNSENT, wayName } from "../../static/js/page/chat-client.mjs";
import { lost, noChat, notSent, tooMany } from "../../static/js/page/chat-errors.mjs";
import { Lines, MAX_NAME, MAX_TEXT, nameProblem, parseLine, textProblem } from "../../static/js/page/chat-lines.mjs";
import { chatUrl, hasChat } from "../../static/js/page/chat-link.mjs";
import { FakeEnv, bytes, deferred, fakeWebTransport, handDriven, infoDocument, json, settled } from "./fakes.mjs";

const message = (from, text, at = 1) => ({ kind: "message", from, text, at });
const line = (value) => `${JSON.stringify({ at: 1, ...value })}\n`;

/** A chat whose events are written down in order, on a server that has one. */
function chatting(changes = {}) {
  const driven = handDriven();
  const posts = [];
  const env = new FakeEnv(changes);
  env.routes["/chat"] ??= ({ method, body, signal }) => {
    if (method !== "POST") {
      signal.addEventListener("abort", () => driven.fail(signal.reason));
      return new Response(driven.stream);
    }
    posts.push(body);
    return new Response(null, { status: 204 });
  };
  const told = [];
  const names = ["onConnecting", "onOpen", "onWay", "onLine", "onLeft", "onLost"];
  const chat = new Chat(env, Object.fromEntries(names.map((name) => [name, (...args) => told.push([name, ...args])])));
  const find = (name) => told.filter(([kind]) => kind === name).map(([, ...args]) => args);
  return { driven, posts, env, told, chat, find, kinds: () => told.map(([name]) => name) };
}

/** The same over WebTransport: what the page writes is in `written`. */
function chattingByWebTransport(changes = {}) {
  const written = [];
  const readable = handDriven();
  let pipe;
  const Base = fakeWebTransport();
  class WebTransport extends Base {
    async createBidirectionalStream() {
      const writable = new WritableStream({
        start: (controller) => {
          pipe = controller;
        },
        write: (data) => {
          written.push(new TextDecoder().decode(data));
        },
      });
      return { readable: readable.stream, writable };
    }
  }
  const c = chatting({ WebTransport, ...changes });
  return { ...c, written, readable, stop: (error) => pipe.error(error), sessions: WebTransport.sessions };
}

test("lines are whole, wherever they were cut", () => {
  const lines = new Lines();
  assert.deepEqual(lines.push('{"a"'), []);
  assert.deepEqual(lines.push(":1}\n\n{"), ['{"a":1}', ""]);
  assert.deepEqual(lines.push("}\n"), ["{}"]);
});

test("a line without an end is not kept for ever", () => {
  const lines = new Lines();
  assert.throws(() => {
    for (let i = 0; i < 100; i += 1) lines.push("x".repeat(1000));
  }, /more than 32,768 characters/);
  // The longest that the server writes: a message of control characters.
  const longest = line({ from: "\u0001".repeat(MAX_NAME), text: "\u0001".repeat(MAX_TEXT) });
  assert.equal(new Lines().push(longest).length, 1);
});

test("what the server tells is understood, and what a later one tells is left out", () => {
  assert.deepEqual(parseLine('{"from":"Ann","text":"<b>🌊</b>","at":7}'), message("Ann", "<b>🌊</b>", 7));
  assert.deepEqual(parseLine('{"joined":"Ann","at":7}'), { kind: "joined", name: "Ann", at: 7 });
  assert.deepEqual(parseLine('{"left":"Ann","at":7}'), { kind: "left", name: "Ann", at: 7 });
  assert.deepEqual(parseLine('{"missed":3,"at":7}'), { kind: "missed", lines: 3, at: 7 });
  assert.equal(parseLine('{"typing":"Ann","at":7}'), null);
  for (const wrong of ["", "hello", "null", "1", '{"from":"Ann","text":"no time"}']) {
    assert.throws(() => parseLine(wrong), /does not understand/, wrong);
  }
});

test("names and messages are measured in bytes, as the server does", () => {
  for (const name of ["Ann", " Ann ", "é".repeat(32), "<i>", "a b"]) assert.equal(nameProblem(name), "", name);
  for (const name of ["", "  ", "é".repeat(33), "a\u0000b", "a\nb"]) assert.match(nameProblem(name), /\.$/, name);
  for (const text of ["x", " ", "a".repeat(MAX_TEXT), "🌊".repeat(1024)]) assert.equal(textProblem(text), "");
  assert.match(textProblem("🌊".repeat(1024) + "!"), /4,097 bytes, and one may have 4,096/);
  assert.match(textProblem("a\nb"), /one line/);
  assert.match(textProblem(""), /first/);
});

test("any name fits in the address", () => {
  const url = new URL(chatUrl("https://localhost:4433/stream", "A&B=ü #🌊+ /"));
  assert.deepEqual([url.origin, url.pathname, url.searchParams.get("name")], ["https://localhost:4433", "/chat", "A&B=ü #🌊+ /"]);
  for (const base of ["https://localhost/live/stream", "https://localhost/live/chat.html?transport=fetch"]) {
    assert.equal(chatUrl(base, "A"), "https://localhost/live/chat?name=A", "next to feed and page");
  }
});

test("a server is asked for its chat without joining", async () => {
  const env = new FakeEnv();
  for (const [status, found] of [[200, true], [404, false], [500, true]]) {
    env.routes["/chat"] = () => new Response(null, { status });
    assert.equal(await hasChat(env), found);
  }
  const [{ url, init }] = env.requests;
  assert.deepEqual([url, init.method], ["http://localhost:8080/chat", "HEAD"]);
});

test("the ways have names that say what they are", () => {
  assert.equal(wayName({ transport: "webtransport", protocol: "h3" }), "WebTransport over HTTP/3, one bidirectional stream");
  assert.equal(wayName({ transport: "fetch", protocol: "h2" }), "POST + fetch stream over h2");
  assert.match(wayName({ transport: "fetch", protocol: "unknown" }), /does not name/);
});

test("WebTransport: by hash, to /chat, and the stream is announced before anything is said", async () => {
  const c = chattingByWebTransport();
  const visit = c.chat.join("Ann", "auto");
  await settled();
  const [session] = c.sessions;
  assert.equal(session.url, "https://localhost:4433/chat?name=Ann");
  assert.equal(session.options.serverCertificateHashes.length, 1);
  session.open();
  await settled();
  assert.deepEqual(c.find("onOpen"), [[{ transport: "webtransport", protocol: "h3" }, "The browser recognised the server's certificate by its hash."]]);
  assert.deepEqual(c.written, ["\n"]);
  const wave = bytes(line({ from: "Ben", text: "🌊" }));
  c.readable.push(wave.slice(0, 25));
  await settled();
  assert.deepEqual(c.find("onLine"), []);
  c.readable.push(wave.slice(25));
  await settled();
  assert.deepEqual(c.find("onLine"), [[message("Ben", "🌊")]]);
  await c.chat.send("hello");
  assert.deepEqual(c.written, ["\n", "hello\n"]);
  assert.equal(session.closedByPage, 0);
  c.chat.leave();
  await visit;
  assert.equal(session.closedByPage, 1);
  assert.deepEqual(c.kinds(), ["onConnecting", "onOpen", "onLine", "onLeft"]);
});

test("WebTransport: a stream that breaks is a lost connection, with the server's reason", async () => {
  const c = chattingByWebTransport();
  const visit = c.chat.join("Ann", "auto");
  await settled();
  c.sessions[0].open();
  await settled();
  c.sessions[0].endFromServer({ closeCode: 7, reason: "enough" });
  const gone = new Error("gone");
  c.stop(gone);
  await settled();
  c.readable.fail(gone);
  await visit;
  const [[error]] = c.find("onLost");
  assert.match(error.message, /connection to the chat was lost \(the server closed the session with code 7: enough\)/);
  assert.match(error.steps.join(" "), /Reconnect.*cargo run --example chat/);
  await assert.rejects(c.chat.send("too late"), /was not sent/);
});

test("WebTransport: a server that stops listening is a connection lost, with its code", async () => {
  const c = chattingByWebTransport();
  const visit = c.chat.join("Ann", "auto");
  await settled();
  const [session] = c.sessions;
  session.open();
  // As browsers do when the page closes a session.
  session.closed.then(() => c.readable.fail(new Error("The session is closed.")));
  await settled();
  c.stop(Object.assign(new Error("stopped"), { source: "stream", streamErrorCode: 1 }));
  await visit;
  assert.match(c.find("onLost")[0][0].message, /lost \(the server takes no more messages: code 1\)/);
  assert.equal(session.closedByPage > 0, true);
});

test("the fallback: one response to hear, one POST a message, and why", async () => {
  const c = chatting({ protocols: { "/info": "http/1.1" } });
  const visit = c.chat.join("Ann & Ben", "auto");
  await settled();
  const [[way, why]] = c.find("onOpen");
  assert.deepEqual(way, { transport: "fetch", protocol: "http/1.1" });
  assert.match(why, /WebTransport is not available here/);
  c.driven.push(line({ joined: "Ann & Ben" }) + line({ from: "Ben", text: "hi" }));
  await settled();
  assert.deepEqual(c.find("onLine"), [[{ kind: "joined", name: "Ann & Ben", at: 1 }], [message("Ben", "hi")]]);
  await c.chat.send("hello");
  assert.deepEqual(c.posts, ["hello"]);
  const url = "http://localhost:8080/chat?name=Ann+%26+Ben";
  assert.deepEqual(c.env.requests.slice(1).map((request) => request.url), [url, url]);
  c.env.report(url, "h2");
  await settled();
  assert.deepEqual(c.find("onWay"), [[{ transport: "fetch", protocol: "h2" }]]);
  c.chat.leave();
  await visit;
  assert.equal(c.kinds().at(-1), "onLeft");
  assert.equal(c.env.observers.size, 0);
  await c.chat.send("x").catch(() => {});
  assert.deepEqual(c.posts, ["hello"], "who has left says nothing");
});

test("the fallback: asked for by hand, or after WebTransport was refused, or is not offered", async () => {
  const byHand = chattingByWebTransport();
  byHand.chat.join("Ann", "fetch");
  await settled();
  assert.match(byHand.find("onOpen")[0][1], /\?transport=fetch/);
  assert.equal(byHand.sessions.length, 0);

  const refused = chattingByWebTransport();
  refused.chat.join("Ann", "auto");
  await settled();
  refused.sessions[0].refuse(new Error("Opening handshake failed."));
  await settled();
  const [way, why] = refused.find("onOpen")[0];
  assert.equal(way.transport, "fetch");
  assert.match(why, /could not be opened\..*Opening handshake failed\./);

  const without = chattingByWebTransport();
  without.env.routes["/info"] = () => json(infoDocument({ webtransport: null }));
  without.chat.join("Ann", "auto");
  await settled();
  assert.match(without.find("onOpen")[0][1], /offers no WebTransport/);
  for (const { chat } of [byHand, refused, without]) chat.leave();
});

test("what is said leaves in order, one after the other, and not without bound", async () => {
  const answers = [];
  const c = chatting();
  const first = c.env.routes["/chat"];
  c.env.routes["/chat"] = async (init) => {
    const response = first(init);
    if (init.method === "POST") await (answers.push(deferred()), answers.at(-1).promise);
    return response;
  };
  c.chat.join("Ann", "auto");
  await settled();
  const sent = Array.from({ length: MAX_UNSENT }, (_, i) => c.chat.send(`${i}`));
  await assert.rejects(c.chat.send("one too many"), (error) => /not sent/.test(error.message) && /16 earlier/.test(error.steps[0]));
  for (let i = 0; i < MAX_UNSENT; i += 1) {
    await settled();
    assert.deepEqual(c.posts, Array.from({ length: i + 1 }, (_, seq) => `${seq}`));
    answers[i].resolve();
  }
  await Promise.all(sent);
  c.chat.leave();
});

test("a message that is refused says why, and the next one still leaves", async () => {
  const c = chatting();
  const first = c.env.routes["/chat"];
  c.chat.join("Ann", "auto");
  await settled();
  c.env.routes["/chat"] = () => new Response("too long", { status: 413 });
  await assert.rejects(c.chat.send("long"), (error) => /status 413/.test(error.steps[0]));
  c.env.routes["/chat"] = first;
  await c.chat.send("short");
  assert.deepEqual(c.posts, ["short"]);
  c.chat.leave();
});

test("the end of the lines is told, and the chat can be joined again", async () => {
  const c = chatting();
  const visit = c.chat.join("Ann", "auto");
  await settled();
  c.driven.end();
  await visit;
  assert.match(c.find("onLost")[0][0].message, /^The server has ended the chat\./);
  c.env.routes["/chat"] = () => new Response(new ReadableStream());
  const again = c.chat.join("Ann", "auto");
  await settled();
  assert.equal(c.find("onOpen").length, 2);
  c.chat.leave();
  await again;
});

test("a server without a chat, a refusal and nonsense are each told as such", async () => {
  for (const [route, words] of [
    [() => new Response(null, { status: 404 }), /no chat\. Start the example: cargo run --example chat/],
    [() => new Response(null, { status: 400 }), /status 400/],
    [() => { throw new TypeError("Failed to fetch"); }, /did not answer/],
    [() => new Response("<!doctype html>\n"), /does not understand: it is not JSON/],
  ]) {
    const c = chatting();
    c.env.routes["/chat"] = route;
    await c.chat.join("Ann", "auto");
    assert.match(c.find("onLost")[0][0].message, words);
  }
});

test("leaving while it connects is no failure, by either way", async () => {
  const c = chattingByWebTransport();
  const visit = c.chat.join("Ann", "auto");
  await settled();
  c.chat.leave();
  await visit;
  assert.deepEqual(c.kinds(), ["onConnecting", "onLeft"]);
  assert.equal(c.sessions[0].closedByPage, 1);

  const slow = chatting({ routes: { "/info": () => json(infoDocument()), "/chat": ({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))) } });
  const other = slow.chat.join("Ann", "fetch");
  await settled();
  slow.chat.leave();
  await other;
  assert.deepEqual(slow.kinds(), ["onConnecting", "onLeft"]);
});

test("every error of the chat says what to do", () => {
  for (const error of [noChat(), lost(), lost(new Error("x"), "why"), notSent(new Error("x")), notSent(lost()), tooMany(3)]) {
    assert.match(error.message, /\.$/);
    assert.ok(error.steps.length > 0 && error.steps.every((step) => step.length > 10), error.message);
  }
});

test("chat.html: has what its module looks for, once, and nothing that the policy refuses", () => {
  const file = (name) => new URL(`../../static/${name}`, import.meta.url);
  const html = readFileSync(file("chat.html"), "utf8");
  const module = readFileSync(file("js/page/chat.mjs"), "utf8");
  const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
  assert.equal(new Set(ids).size, ids.length);
  const wanted = [...module.matchAll(/byId\("([^"]+)"/g)].map(([, id]) => id);
  assert.ok(wanted.length > 10);
  for (const id of wanted) assert.ok(ids.includes(id), `#${id}`);
  for (const [, name, id] of html.matchAll(/\s(for|aria-labelledby|data-copy)="([^"]+)"/g)) {
    assert.ok(ids.includes(id), `${name}="${id}"`);
  }
  assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=|javascript:|data:|<script(?![^>]*\ssrc=)/i);
  for (const [, target] of html.matchAll(/(?:src|href)="([^"#?]+)"/g)) {
    if (target !== "info") assert.ok(existsSync(file(target)), target);
  }
  const top = (text) => text.slice(text.indexOf("<header"), text.indexOf("</header>")).replace(' aria-current="page"', "");
  assert.equal(top(html), top(readFileSync(file("index.html"), "utf8")), "the header of every page");
});
