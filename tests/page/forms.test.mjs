// The forms: which feed a line goes to, and one question for a token after the other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { element, page, submit } from "./dom.mjs";
import { FakeEnv, deferred, json, settled } from "./fakes.mjs";

const { PublishForm } = await import("../../static/js/page/publish-form.mjs");
const { askForPublishToken, askForToken } = await import("../../static/js/page/token-form.mjs");
const never = new AbortController().signal;

/** The question that is asked: what for, why, and how to answer it. */
function asked() {
  const form = element("token-form");
  if (form === undefined) return undefined;
  const [reason, label, input] = form.children;
  return { why: reason.textContent, label: label.textContent, answer: (value) => ((input.value = value), submit("token-form")) };
}

test("two questions for tokens are asked one after the other, and say what for", async () => {
  page("error");
  const over = new AbortController();
  const reading = askForToken("no reading", never);
  const given = askForToken("nobody waits for it", over.signal);
  const publishing = askForPublishToken("no publishing", never);
  await settled();
  assert.deepEqual([asked().why, asked().label], ["no reading", "Token to read "]);
  over.abort();
  assert.equal(await given, "");
  asked().answer("r");
  assert.equal(await reading, "r");
  await settled();
  assert.deepEqual([asked().why, asked().label], ["no publishing", "Token to publish "]);
  asked().answer("p");
  assert.equal(await publishing, "p");
  assert.equal(asked(), undefined);
});

test("a line goes to the feed that is shown, or nowhere", async () => {
  page("publish", "publish-line", "publish-file", "publish-send", "publish-cancel", "publish-said");
  const env = new FakeEnv({ token: undefined });
  const paths = [];
  globalThis.fetch = async (url) => (paths.push(new URL(url).pathname), json({ epoch: "1a", bytes: 2 }));
  let shown = "a";
  const form = new PublishForm(env, () => shown, (feed) => `${env.href}stream/${feed}`);
  form.show("a", true);
  shown = "b";
  element("publish-line").value = "x";
  submit("publish");
  await settled();
  assert.deepEqual(paths, []);
  assert.match(element("publish-said").textContent, /Nothing was published: the page shows “b”/);
  assert.equal(element("publish-line").value, "x");
  form.show("b", true);
  submit("publish");
  await settled();
  await settled();
  assert.deepEqual(paths, ["/stream/b"]);
  assert.equal(element("publish-said").textContent, "Published.");
});

test("a publication tells how it stands, and where it goes, after the page shows another feed", async () => {
  page("publish", "publish-line", "publish-file", "publish-send", "publish-cancel", "publish-said");
  const env = new FakeEnv({ token: undefined });
  const paths = [];
  let answer = deferred();
  globalThis.fetch = (url) => {
    paths.push(new URL(url).pathname);
    return answer.promise;
  };
  let shown = "a";
  const form = new PublishForm(env, () => shown, (feed) => `${env.href}stream/${feed}`);
  const said = () => element("publish-said").textContent;
  const show = (feed, writable) => form.show((shown = feed), writable);
  show("a", true);
  element("publish-line").value = "x";
  submit("publish");
  assert.equal(said(), "Publishing…");
  show("b", false);
  assert.equal(said(), "Publishing to “a”…");
  assert.equal(element("publish").hidden, false);
  element("publish-cancel").dispatchEvent(new Event("click"));
  answer.reject(new TypeError("no network"));
  for (let i = 0; i < 5; i += 1) await settled();
  show("b", false);
  assert.match(said(), /^Cancelled\. .* to “a”\. Continue /);
  assert.deepEqual(["publish", "publish-send"].map((id) => element(id).hidden), [false, false]);
  assert.equal(element("publish-send").textContent, "Continue");
  show("a", true);
  assert.match(said(), /^Cancelled\. .* published\. Continue /);
  assert.equal(element("publish-send").textContent, "Continue");
  answer = deferred();
  submit("publish");
  show("b", false);
  answer.resolve(json({ epoch: "1a", bytes: 2 }));
  for (let i = 0; i < 5; i += 1) await settled();
  show("b", false);
  assert.equal(said(), "Published to “a”.");
  assert.deepEqual([...new Set(paths)], ["/stream/a"]);
  assert.equal(element("publish-send").hidden, true, "nothing is written to what is shown");
  show("c", true);
  assert.equal(said(), "", "the next feed begins with nothing");
  assert.equal(element("publish-send").textContent, "Publish");
});
