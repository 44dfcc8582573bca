// A follower that a test drives: its connections, its clock, and everything that it tells.
import { LONGEST_MS } from "../../static/js/client/backoff.mjs";
import { Follower } from "../../static/js/client/follow.mjs";
import { FakeEnv, bytes, fakeWebTransport, handDriven, settled } from "./fakes.mjs";

export const frame = (kind, ...payload) => Uint8Array.of(kind, payload.length, ...payload);
export const begin = (epoch) => frame(3, epoch);
export const chunk = (seq, text = `${seq}`) => frame(0, seq, 0, ...bytes(text));
export const gap = (from, missing, restarted = 0) => frame(1, from, missing, restarted);
export const END = frame(2, 0);
export const failed = (reason) => frame(2, 1, ...bytes(reason));
export const BEAT = frame(4);

export const calm = async () => {
  for (let i = 0; i < 5; i += 1) await settled();
};

/** A follower whose events are written down, and whose connections the test drives by hand. */
export function following(changes = {}, wanted = {}) {
  const env = new FakeEnv(changes);
  const connections = [];
  env.routes["/stream"] ??= (init, url) => {
    const driven = handDriven();
    init.signal.addEventListener("abort", () => {
      try {
        driven.fail(init.signal.reason);
      } catch {
        // It had ended.
      }
    });
    connections.push({ ...driven, from: url.searchParams.get("from"), format: url.searchParams.get("format") });
    return new Response(driven.stream);
  };
  const told = [];
  const names = ["onInfo", "onConnecting", "onOpen", "onBegin", "onPath", "onChunk", "onResumed", "onMissed", "onStalled", "onLost", "onEnded", "onStopped", "onError"];
  const text = (argument) => (argument?.bytes instanceof Uint8Array ? { ...argument, bytes: new TextDecoder().decode(argument.bytes) } : argument);
  const follower = new Follower(env, Object.fromEntries(names.map((name) => [name, (...args) => told.push([name, ...args.map(text)])])));
  const run = follower.start({ choice: "fetch", feed: "default", from: "now", ...wanted });
  const all = (name) => told.filter(([kind]) => kind === name).map(([, ...args]) => args);
  const push = async (i, ...frames) => {
    for (const bytes of frames) connections[i].push(bytes);
    await calm();
  };
  /** The connection breaks, and the wait after it goes by. */
  const lose = async (i) => {
    connections[i].fail(new TypeError("network error"));
    await calm();
    env.tick(LONGEST_MS);
    await calm();
  };
  return { env, connections, told, follower, run, all, push, lose, seqs: () => all("onChunk").map(([{ seq }]) => seq) };
}

/** An automatic choice where WebTransport is the best that works. */
export function choosing() {
  const WebTransport = fakeWebTransport();
  const f = following({ WebTransport }, { choice: "auto" });
  const give = async () => {
    const session = WebTransport.sessions.at(-1);
    const driven = handDriven();
    session.open();
    session.give(driven.stream);
    await calm();
    return { ...driven, session };
  };
  return { ...f, WebTransport, give };
}

/** The same, after the first chunk has come over WebTransport. */
export async function reading() {
  const f = choosing();
  await calm();
  const first = await f.give();
  first.push(begin(7));
  first.push(chunk(0));
  await calm();
  return { f, first };
}
