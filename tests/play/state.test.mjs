// A link holds the state, and a link that someone has damaged does no harm.
import assert from "node:assert/strict";
import test from "node:test";
import { START, from_hash, to_hash } from "../../docs/play/state.js";

const CHANGED = { ...START, digit: "n17", label: 0, as: 9, hand: 8, angle: 1.2, noise: 3, steps: 20, eta: 0.5, other: "t19", way: "arc" };

test("a state survives its link, and the start needs none", () => {
  assert.deepEqual(from_hash(`#${to_hash(CHANGED)}`), CHANGED);
  assert.equal(to_hash(START), "");
  assert.deepEqual(from_hash(`#digit=d${"A".repeat(523)}`).digit, `d${"A".repeat(523)}`);
});

test("what is unknown or out of range is left as at the start", () => {
  const damaged = "#digit=t99&label=11&as=&hand=x&angle=7&steps=1e9&eta=NaN&other=dAA&way=up&__proto__=1&constructor=2";
  assert.deepEqual(from_hash(damaged), START);
});
