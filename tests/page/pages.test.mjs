// The markup: what the modules and the policy expect of it, and that the code it shows is true.
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { carriedBy } from "../../static/js/page/carried.mjs";
import { commandForPage } from "../../static/js/page/chrome-command.mjs";
import { snippetFor } from "../../static/js/page/snippet.mjs";
import { bytes, fakeWebTransport, infoDocument, json, settled } from "./fakes.mjs";

const STATIC = new URL("../../static/", import.meta.url);
const read = (name) => readFileSync(new URL(name, STATIC), "utf8");
const PAGES = ["index.html", "fetch.html", "webtransport.html"];
const IDS = ["start", "stop", "status", "error", "protocol", "protocol-note", "ttfb", "bytes", "chunks", "log", "log-note", "plot", "plot-caption", "plot-top"];

for (const page of PAGES) {
  const html = read(page);

  test(`${page}: has what the modules look for, once`, () => {
    const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    assert.equal(new Set(ids).size, ids.length);
    for (const id of IDS) assert.ok(ids.includes(id), `#${id}`);
    for (const [, name, id] of html.matchAll(/\s(for|aria-labelledby|data-copy)="([^"]+)"/g)) {
      assert.ok(ids.includes(id), `${name}="${id}"`);
    }
  });

  test(`${page}: nothing that the Content-Security-Policy refuses`, () => {
    assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=|javascript:|data:|<script(?![^>]*\ssrc=)/i);
    assert.doesNotMatch(html, /<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?\/\//);
  });

  test(`${page}: links lead somewhere`, () => {
    for (const [, target] of html.matchAll(/(?:src|href)="([^"#]+)"/g)) {
      if (["stream", "info", "status"].includes(target)) continue;
      assert.ok(existsSync(new URL(target, STATIC)), target);
    }
  });

}

test("the demo pages have the same panel", () => {
  const panel = (page) => read(page).split("<!-- panel")[1].split("<!-- end of panel")[0];
  assert.equal(panel("fetch.html"), panel("webtransport.html"));
});

test("the colours of a terminal are all there, and no other", () => {
  const css = read("home.css");
  for (const kind of ["fg", "bg"]) {
    const found = [...css.matchAll(new RegExp(`\\.${kind}-(\\d+) \\{`, "g"))].map(([, n]) => Number(n));
    assert.deepEqual(found, Array.from({ length: 16 }, (_, i) => i + 1));
  }
});

test("the start page offers each choice, and has what its modules look for", () => {
  const html = read("index.html");
  const values = (id) => [...html.split(` id="${id}"`)[1].split("</select>")[0].matchAll(/<option value="([^"]+)"/g)].map(([, value]) => value);
  assert.deepEqual(values("transport"), ["auto", "fetch", "webtransport"]);
  assert.deepEqual(values("from"), ["-100", "now", "start"]);
  const modules = ["home", "feed-picker", "several-menu", "figures", "finder", "follow-view", "layout", "log-keys", "log-options", "log-pane", "log-view", "picture-view", "publish-form", "retry-note"].map((name) => read(`js/page/${name}.mjs`)).join("");
  const wanted = [...modules.matchAll(/byId\("([^"]+)"/g)].map(([, id]) => id);
  assert.ok(wanted.length > 20);
  for (const id of wanted) assert.ok(html.includes(` id="${id}"`), id);
});

test("what carried the bytes is said as the browser reports it, and not before", () => {
  const fetched = (protocol, final) => carriedBy({ transport: "fetch", protocol, final });
  assert.equal(fetched("h2", true), "HTTP/2 carried these bytes: the browser reports “h2” for this request.");
  assert.match(fetched("h3", true), /^HTTP\/3 carried/);
  assert.match(fetched("h3", false), /a moment ago.*when it ends/);
  assert.match(fetched("h3-29", true), /^h3-29 carried/);
  assert.match(fetched("unknown", true), /does not report/);
  assert.match(carriedBy({ transport: "webtransport", protocol: "h3", final: true }), /session.*Browsers report no protocol/);
  for (const page of ["fetch.html", "webtransport.html"]) {
    for (const id of ["carried", "chrome", "chrome-command"]) assert.ok(read(page).includes(` id="${id}"`), `${page} #${id}`);
  }
  assert.equal(commandForPage("chrome --x https://localhost:4433/", "fetch.html"), "chrome --x https://localhost:4433/fetch.html");
  assert.equal(commandForPage("", "fetch.html"), "");
});

test("every module is checked", () => {
  for (const folder of ["client", "page"]) {
    for (const name of readdirSync(new URL(`js/${folder}/`, STATIC))) {
      assert.match(name, /\.mjs$/);
      const module = read(`js/${folder}/${name}`);
      assert.ok(module.startsWith("// @ts-check\n"), name);
      // The client is for everyone: it needs nothing of this page.
      if (folder === "client") assert.doesNotMatch(module, /(?:from |import\()"\.\.|\bwindow\.|\bdocument\.(?!title\b|detail\b)/, name);
    }
  }
});

/** The code that a page shows, as a function of the browser's interfaces. */
function snippet(page) {
  const [, code] = /<pre id="snippet"[^>]*>([^]*?)<\/pre>/.exec(read(page));
  const text = code.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  const AsyncFunction = (async () => {}).constructor;
  return new AsyncFunction("fetch", "WebTransport", "console", text);
}
const twoChunks = () => new ReadableStream({
  start(controller) {
    const euro = bytes("one €\n");
    controller.enqueue(euro.slice(0, 5));
    controller.enqueue(euro.slice(5));
    controller.close();
  },
});

test("the code on the fetch page reads a stream", async () => {
  const lines = [];
  const fetch = async (url, { cache }) => {
    assert.deepEqual([url, cache], ["/stream", "no-store"]);
    return new Response(twoChunks());
  };
  await snippet("fetch.html")(fetch, undefined, { log: (line) => lines.push(line) });
  assert.deepEqual(lines, ["one ", "€\n"]);
  await assert.rejects(snippet("fetch.html")(async () => new Response("", { status: 404 })), /HTTP 404/);
});

test("the code on the WebTransport page reads a stream and closes the session", async () => {
  for (const hashes of [1, 0]) {
    const lines = [];
    const document = infoDocument();
    document.webtransport.certificateHashes.length = hashes;
    const WebTransport = fakeWebTransport();
    const run = snippet("webtransport.html")(async () => json(document), WebTransport, { log: (line) => lines.push(line) });
    await settled();
    const [session] = WebTransport.sessions;
    assert.equal(session.url, "https://localhost:4433/stream");
    assert.deepEqual(session.options, { serverCertificateHashes: Array(hashes).fill({ algorithm: "sha-256", value: new Uint8Array(32).fill(7) }) });
    session.open();
    session.give(twoChunks());
    await run;
    assert.deepEqual(lines, ["one ", "€\n"]);
    assert.equal(session.closedByPage, 1);
  }
});

test("the code is about a dozen lines", () => {
  for (const page of ["fetch.html", "webtransport.html"]) {
    const [, code] = /<pre id="snippet"[^>]*>([^]*?)<\/pre>/.exec(read(page));
    const lines = code.split("\n").filter((line) => line !== "");
    assert.ok(lines.length <= 13 && lines.every((line) => line.length < 100), `${page}: ${lines.length}`);
  }
});

test("the code names the paths that hold here", () => {
  const code = (page, here) => snippetFor(read(page), here);
  for (const page of ["fetch.html", "webtransport.html"]) {
    assert.equal(code(page, { feed: "/stream", isDefault: true, info: "/info" }), read(page), "as it stands");
  }
  const nested = { feed: "/live/stream", isDefault: true, info: "/live/info" };
  assert.match(code("fetch.html", nested), /fetch\("\/live\/stream"/);
  assert.match(code("webtransport.html", nested), /fetch\("\/live\/info"[^]*new WebTransport\(url,/);
  const named = { feed: "/live/stream/stream", isDefault: false, info: "/live/info" };
  assert.match(code("fetch.html", named), /fetch\("\/live\/stream\/stream"/);
  assert.match(code("webtransport.html", named), /new WebTransport\(new URL\("\/live\/stream\/stream", url\),/);
});

test("nothing in the pages asks for a path of the root", () => {
  for (const page of [...PAGES, "chat.html"]) assert.doesNotMatch(read(page), /(?:src|href)="\/|href="\.\/"/, page);
});
