// Notebooks 02 and 04 in JavaScript: the schedule, DDIM and its inversion, as in diffae_core/schedule.py and ddim.py.
// x is a Float32Array that holds a batch, one item after the other; a denoiser is `async (x_t, t) => ({ x_0, noise })`.

// a * x + b * y, number by number
export function mix(a, x, b, y) {
  return x.map((value, i) => a * value + b * y[i]);
}

// signal_rate = cos(pi t / 2) and noise_rate = sin(pi t / 2) at the diffusion time t: 0 is clean, 1 is noise
export function rates(t) {
  const angle = (t * Math.PI) / 2;
  return { signal_rate: Math.cos(angle), noise_rate: Math.sin(angle) };
}

// The network predicts the velocity v = signal_rate * noise - noise_rate * x_0; this turns it back.
export function from_velocity(x_t, v, { signal_rate, noise_rate }) {
  return { x_0: mix(signal_rate, x_t, -noise_rate, v), noise: mix(noise_rate, x_t, signal_rate, v) };
}

// Diffusion times from 1 down to 0: equal steps, or "quadratic" with small steps near the clean end.
export function step_times(num_steps, spacing = "uniform") {
  const power = spacing === "quadratic" ? 2 : 1;
  return Array.from({ length: num_steps + 1 }, (_, step) => (1 - step / num_steps) ** power);
}

// Denoise x, one yield per step: { x_t: after the step, x_0: predicted in it }. DDIM (arXiv 2010.02502), equation 12:
// x_next = signal_next * x_0 + sqrt(noise_next^2 - sigma^2) * noise + sigma * fresh noise
export async function* ddim_steps(denoiser, x, times, { eta = 0, normal } = {}) {
  for (let step = 0; step + 1 < times.length; step++) {
    const now = rates(times[step]);
    const next = rates(times[step + 1]);
    const { x_0, noise } = await denoiser(x, times[step]);
    const shrunk = Math.sqrt(Math.max(0, 1 - (now.signal_rate / next.signal_rate) ** 2));
    const sigma = (eta * next.noise_rate * shrunk) / Math.max(now.noise_rate, 1e-6); // equation 16
    x = mix(next.signal_rate, x_0, Math.sqrt(Math.max(0, next.noise_rate ** 2 - sigma ** 2)), noise);
    if (sigma > 0) x = mix(1, x, sigma, normal(x.length));
    yield { x_t: x, x_0 };
  }
}

// The last x of ddim_steps: clean.
export async function ddim_sample(denoiser, x, times, settings) {
  for await (const { x_t } of ddim_steps(denoiser, x, times, settings)) x = x_t;
  return x;
}

// The noise x_T from which ddim_sample leads to x. Each correction evaluates the denoiser where the step arrived, sees
// how far sampling would miss, and adds what is missing.
export async function ddim_invert(denoiser, x, times, { corrections = 0 } = {}) {
  const upwards = times.toReversed();
  for (let step = 0; step + 1 < upwards.length; step++) {
    const now = rates(upwards[step]);
    const next = rates(upwards[step + 1]);
    const here = await denoiser(x, upwards[step]);
    let x_next = mix(next.signal_rate, here.x_0, next.noise_rate, here.noise);
    for (let i = 0; i < corrections; i++) {
      const there = await denoiser(x_next, upwards[step + 1]);
      const missing = mix(1, x, -1, mix(now.signal_rate, there.x_0, now.noise_rate, there.noise));
      const turned = now.signal_rate * next.signal_rate + now.noise_rate * next.noise_rate;
      x_next = mix(1, x_next, 1 / turned, missing);
    }
    x = x_next;
  }
  return x;
}

// The straight line from a (share 0) to b (share 1): right for latents.
export function lerp(a, b, share) {
  return mix(1 - share, a, share, b);
}

// The arc from a (share 0) to b (share 1): right for noise, which keeps its length.
export function slerp(a, b, share) {
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (Math.sin(angle) < 1e-4) return lerp(a, b, share);
  return mix(Math.sin((1 - share) * angle) / Math.sin(angle), a, Math.sin(share * angle) / Math.sin(angle), b);
}

// Another handwriting: cos(angle) z_T + sin(angle) noise, with the noise made as long as z_T and at a right angle to it.
export function turn(z_T, angle, noise) {
  const across = mix(1, noise, -dot(noise, z_T) / dot(z_T, z_T), z_T);
  return mix(Math.cos(angle), z_T, Math.sin(angle) * Math.sqrt(dot(z_T, z_T) / dot(across, across)), across);
}

function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

// Random numbers that a seed repeats (mulberry32): uniform() in [0, 1), and normal(n), n standard normal ones.
export function seeded(seed) {
  let state = seed >>> 0;
  function uniform() {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }
  function normal(n) {
    const one = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()); // Box and Muller
    return Float32Array.from({ length: n }, one);
  }
  return { uniform, normal };
}
