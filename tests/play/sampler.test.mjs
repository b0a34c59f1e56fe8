// The page's sampler against numbers from the package, which tests/test_play.py writes to the file EXPECTED.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import * as sampler from "../../docs/play/sampler.js";

const expected = JSON.parse(readFileSync(process.env.EXPECTED));
const x_T = Float32Array.from(expected.x_T);

function near(actual, wanted, tolerance = 1e-5) {
  assert.equal(actual.length, wanted.length);
  wanted.forEach((value, i) => assert.ok(Math.abs(actual[i] - value) < tolerance, `${actual[i]} is not ${value}`));
}

// Any function of x and t will do in place of a network; test_play.py has the same one.
async function denoiser(x, t) {
  const v = x.map((value) => Math.sin(2 * value) + t);
  return sampler.from_velocity(x, v, sampler.rates(t));
}

// The fresh noise that the package took, one batch a step.
function recorded() {
  const batches = expected.fresh_noise.map((batch) => Float32Array.from(batch));
  return () => batches.shift();
}

test("grids of times", () => {
  near(sampler.step_times(5), expected.uniform);
  near(sampler.step_times(5, "quadratic"), expected.quadratic);
});

test("signal and noise rates", () => {
  const rates = expected.uniform.map(sampler.rates);
  near(rates.map(({ signal_rate }) => signal_rate), expected.signal_rates);
  near(rates.map(({ noise_rate }) => noise_rate), expected.noise_rates);
});

test("each DDIM step: x_t and the predicted x_0", async () => {
  let step = 0;
  for await (const { x_t, x_0 } of sampler.ddim_steps(denoiser, x_T, expected.quadratic)) {
    near(x_t, expected.steps[step].x_t);
    near(x_0, expected.steps[step].x_0);
    step += 1;
  }
  assert.equal(step, 5);
});

test("fresh noise: eta above 0", async () => {
  for (const [eta, wanted] of expected.with_eta) {
    near(await sampler.ddim_sample(denoiser, x_T, expected.uniform, { eta, normal: recorded() }), wanted);
  }
});

test("inversion with and without corrections", async () => {
  for (const [corrections, wanted] of expected.inverted) {
    near(await sampler.ddim_invert(denoiser, x_T, expected.quadratic, { corrections }), wanted, 1e-4);
  }
});

test("the line, the arc and the turn", () => {
  const other = Float32Array.from(expected.other);
  near(sampler.lerp(x_T, other, 0.3), expected.lerp);
  near(sampler.slerp(x_T, other, 0.3), expected.slerp);
  near(sampler.slerp(x_T, x_T, 0.3), expected.x_T);
  near(sampler.turn(x_T, 0.7, other), expected.turn);
});

test("a seed repeats its numbers, which are standard normal", () => {
  const numbers = sampler.seeded(3).normal(20000);
  near(sampler.seeded(3).normal(20000), numbers);
  assert.notDeepEqual(sampler.seeded(4).normal(3), numbers.slice(0, 3));
  const mean = numbers.reduce((sum, value) => sum + value) / numbers.length;
  const variance = numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0) / numbers.length;
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.03, `mean ${mean}, variance ${variance}`);
});
