// Where a viewer is in a feed: what is new, what is missing, and what is to be asked for.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Place } from "../../static/js/client/place.mjs";

test("a place knows where it is before the first chunk", () => {
  const place = new Place("now");
  place.begin("7", 5);
  assert.equal(place.from, "7-4");
  assert.deepEqual(place.chunk(7), { fresh: true, missed: { missing: 2, restarted: false, told: false } });
  // Another run, of which the first chunks are gone: a run that had not begun wanted all of it.
  const early = new Place("now");
  early.begin("7", 0);
  assert.equal(early.from, "start");
  early.begin("8", 500);
  assert.deepEqual(early.chunk(500), { fresh: true, missed: { missing: 500, restarted: false, told: false } });
  // One that starts afresh for each viewer.
  const fresh = new Place("now");
  fresh.begin("7", 0);
  fresh.begin("8", 0);
  assert.deepEqual(fresh.chunk(0), { fresh: true, missed: undefined });
  // A restart that nothing follows is told by the end.
  const over = new Place("now");
  over.begin("7", 5);
  over.begin("8", 0);
  assert.equal(over.restarted, true);
  assert.deepEqual(over.end(), { missing: 0, restarted: true, told: true });
  assert.equal(over.end(), undefined);
});

test("where numbers are left out, a jump is no loss, and what the server tells is", () => {
  const place = new Place("now");
  place.begin("7", 5);
  place.sparse();
  assert.deepEqual(place.chunk(9), { fresh: true, missed: undefined });
  assert.equal(place.chunk(9).fresh, false);
  assert.deepEqual(place.gap({ from: 10, missing: 2, restarted: false }), { missing: 2, restarted: false, told: true });
  // Another stream may be of a server that keeps all of them.
  place.begin("7", 12);
  assert.deepEqual(place.chunk(13).missed, { missing: 1, restarted: false, told: false });
});

test("a place that was told of a restart, and nothing after it, begins at its start", () => {
  const place = new Place("now");
  assert.equal(place.from, "now");
  place.begin("7");
  assert.equal(place.from, "now");
  place.chunk(4);
  place.begin("9");
  assert.equal(place.from, "start");
  place.gap({ from: 0, missing: 0, restarted: true });
  assert.equal(place.from, "start");
  place.begin("9");
  assert.deepEqual(place.chunk(0), { fresh: true, missed: undefined });
  assert.equal(place.from, "9-0");
});

test("a restart that only the epoch tells of", () => {
  const place = new Place("now");
  place.begin("7");
  place.chunk(4);
  place.begin("9");
  assert.deepEqual(place.chunk(2), { fresh: true, missed: { missing: 2, restarted: true, told: false } });
});
