// Browser interfaces that a test drives by hand. Nothing here waits for a clock.

const ORIGIN = "http://localhost:8080";

/** A promise with its two ends. */
export function deferred() {
  let resolve, reject;
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

export const bytes = (text) => new TextEncoder().encode(text);

/** Lets everything happen that is only waiting for promises. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A stream whose chunks come when the test says so. */
export function handDriven() {
  let controller;
  const driven = { cancelled: undefined };
  driven.stream = new ReadableStream({
    start(c) {
      controller = c;
    },
    cancel(reason) {
      driven.cancelled = { reason };
    },
  });
  driven.push = (data) => controller.enqueue(typeof data === "string" ? bytes(data) : data);
  driven.end = () => controller.close();
  driven.fail = (error) => controller.error(error);
  return driven;
}

/** What the server's /info gives, as the wire contract has it. */
export function infoDocument(changes = {}) {
  return {
    version: "0.1.0",
    feeds: [{ name: "default", url: "https://localhost:4433/stream", kind: "on-demand" }],
    webtransport: {
      url: "https://localhost:4433/stream",
      certificateHashes: [{ algorithm: "sha-256", value: Buffer.alloc(32, 7).toString("base64") }],
    },
    http3: { url: "https://localhost:4433/" },
    chrome: "google-chrome https://localhost:4433/",
    ...changes,
  };
}

/**
 * A page with a clock that only the test moves, and a performance timeline that tells for each
 * request the protocol that the test gave for its path.
 */
export class FakeEnv {
  href = `${ORIGIN}/`;
  origin = ORIGIN;
  isSecureContext = true;
  WebTransport = undefined;
  /** path → response, or a function of the request */
  routes = { "/info": () => json(infoDocument()) };
  /** path → nextHopProtocol; a path that is missing is never reported */
  protocols = { "/info": "http/1.1" };
  requests = [];
  time = 1000;
  observers = new Set();
  /** handle → what is to be called and after how long; the test calls it: see `tick` */
  timers = new Map();
  onlineAgain = new Set();
  breaths = 0;
  random = () => 0.5;

  constructor(changes = {}) {
    Object.assign(this, changes);
    const env = this;
    this.performance = { now: () => env.time, timeOrigin: 0, getEntriesByType: () => [] };
    let handles = 0;
    this.setTimer = (callback, ms) => (env.timers.set((handles += 1), { callback, ms, due: env.time + ms }), handles);
    this.clearTimer = (handle) => env.timers.delete(handle);
    this.onOnline = (callback) => (env.onlineAgain.add(callback), () => env.onlineAgain.delete(callback));
    this.breathe = async () => {
      env.breaths += 1;
    };
    this.PerformanceObserver = class {
      constructor(callback) {
        this.callback = callback;
      }
      observe(options) {
        this.options = options;
        env.observers.add(this);
      }
      disconnect() {
        env.observers.delete(this);
      }
    };
    this.fetch = async (url, init) => {
      const { pathname } = new URL(url);
      const startTime = env.time;
      env.requests.push({ url, init });
      init.signal?.throwIfAborted();
      const response = await env.routes[pathname](init, new URL(url));
      if (env.protocols[pathname] !== undefined) env.report(url, env.protocols[pathname], startTime);
      return response;
    };
  }

  /** Lets time go by, and the timers that are due with it. */
  tick(ms) {
    const end = this.time + ms;
    for (;;) {
      const [next] = [...this.timers].filter(([, { due }]) => due <= end).sort(([, a], [, b]) => a.due - b.due);
      if (next === undefined) break;
      this.timers.delete(next[0]);
      this.time = Math.max(this.time, next[1].due);
      next[1].callback();
    }
    this.time = end;
  }

  /** The browser reports on a request that has ended. */
  report(url, nextHopProtocol, startTime = this.time) {
    const entry = { name: url, startTime, nextHopProtocol };
    for (const { callback } of this.observers) callback({ getEntries: () => [entry] });
  }
}

export function json(value, init = {}) {
  return new Response(JSON.stringify(value), { headers: { "content-type": "application/json" }, ...init });
}

/** A WebTransport class, each of whose sessions the test opens, feeds and ends. */
export function fakeWebTransport() {
  return class FakeSession {
    static sessions = [];
    #ready = deferred();
    #closed = deferred();
    closedByPage = 0;

    constructor(url, options) {
      Object.assign(this, { url, options });
      this.ready = this.#ready.promise;
      this.closed = this.#closed.promise;
      this.incomingUnidirectionalStreams = new ReadableStream({
        start: (controller) => {
          this.incoming = controller;
        },
      });
      // Like a browser's, these may go unheard.
      this.ready.catch(() => {});
      this.closed.catch(() => {});
      FakeSession.sessions.push(this);
    }
    open() {
      this.#ready.resolve();
    }
    refuse(error) {
      this.#ready.reject(error);
      this.#closed.reject(error);
      this.incoming.error(error);
    }
    give(stream) {
      this.incoming.enqueue(stream);
    }
    endFromServer(info) {
      this.#closed.resolve(info);
      this.incoming.close();
    }
    close() {
      this.closedByPage += 1;
      this.#closed.resolve({ closeCode: 0, reason: "" });
    }
  };
}
