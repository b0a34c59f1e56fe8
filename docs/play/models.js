// The four networks that build.py exports, run by ONNX Runtime Web: encode, classify, decode, and the latent prior.
import * as ort from "./ort.wasm.bundle.min.mjs";
import { ddim_invert, ddim_sample, ddim_steps, from_velocity, rates, step_times } from "./sampler.js";

export const LATENT_DIM = 256;
export const PIXELS = 28 * 28;
const NAMES = ["encoder", "classifier", "unet", "prior"];
const SURE = 0.9; // probability from which the classifier counts as sure
const NO_LABEL = 10; // hides the label from the prior
const NOT_GIVEN = -1; // latent_noise: the network judges by itself
const PRIOR_TIMES = step_times(20);

// Load all files; `progress` is called with the share that has arrived, `before` ahead of each evaluation.
export async function load_models(progress = () => {}, before = async () => {}) {
  const files = await fetch_all(["ort-wasm-simd-threaded.wasm", ...NAMES.map((name) => `${name}.onnx`)], progress);
  ort.env.wasm.numThreads = 1; // more need headers that a plain static host does not send
  ort.env.wasm.wasmBinary = files[0];
  const networks = {};
  for (const [i, name] of NAMES.entries()) networks[name] = await ort.InferenceSession.create(files[i + 1]);
  return new Models(networks, before);
}

async function fetch_all(names, progress) {
  const sizes = await (await fetch(new URL("sizes.json", import.meta.url))).json();
  const total = names.reduce((sum, name) => sum + sizes[name], 0);
  let loaded = 0;
  const fetch_one = async (name) => {
    const response = await fetch(new URL(name, import.meta.url));
    if (!response.ok) throw new Error(`${name} could not be loaded (${response.status})`);
    const bytes = new Uint8Array(sizes[name]);
    let end = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return bytes;
      bytes.set(value, end);
      end += value.length;
      loaded += value.length;
      progress(loaded / total);
    }
  };
  return Promise.all(names.map(fetch_one));
}

// Images are (N, 784) in [0, 1], ink 1 on paper 0; latents and z_T are (N, 256): each one Float32Array.
export class Models {
  constructor(networks, before) {
    this.networks = networks;
    this.before = before;
  }

  async evaluate(name, inputs) {
    await this.before();
    const { [this.networks[name].outputNames[0]]: output } = await this.networks[name].run(inputs);
    return output.data;
  }

  encode(images) {
    return this.evaluate("encoder", { input: batch(images, 1, 28, 28) });
  }

  // The most likely label of one image.
  async classify(image) {
    const logits = Array.from(await this.evaluate("classifier", { images: batch(image, 1, 28, 28) }));
    const highest = Math.max(...logits);
    const probability = 1 / logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0);
    return { label: logits.indexOf(highest), is_sure: probability > SURE };
  }

  // The diffusion model as a denoiser, conditioned on latents.
  image_denoiser(latents) {
    const count = latents.length / LATENT_DIM;
    const fixed = { latents: batch(latents, LATENT_DIM), latent_noise: batch(fill(count, NOT_GIVEN)) };
    return async (x, t) => {
      const inputs = { x: batch(x, 1, 28, 28), noise_rate: batch(fill(count, rates(t).noise_rate)), ...fixed };
      return from_velocity(x, await this.evaluate("unet", inputs), rates(t));
    };
  }

  // The prior as a denoiser of latents, given a label for each, by classifier-free guidance (arXiv 2207.12598):
  // v = v_none + guidance * (v_label - v_none), with a guidance for each; 1 follows the label as trained.
  latent_denoiser(labels, guidance) {
    const velocity = (x, t, labels) => {
      const noise_rate = batch(fill(labels.length, rates(t).noise_rate));
      return this.evaluate("prior", { x: batch(x, LATENT_DIM), noise_rate, labels: integers(labels) });
    };
    return async (x, t) => {
      let v = await velocity(x, t, labels);
      if (guidance.some((g) => g !== 1)) {
        const v_none = await velocity(x, t, labels.map(() => NO_LABEL));
        v = v.map((v_label, i) => v_none[i] + guidance[Math.floor(i / LATENT_DIM)] * (v_label - v_none[i]));
      }
      return from_velocity(x, v, rates(t));
    };
  }

  // z_T, the handwriting: the noise from which the prior, given the label, leads to the latent.
  handwriting(latent, label) {
    return ddim_invert(this.latent_denoiser([label], [1]), latent, PRIOR_TIMES, { corrections: 1 });
  }

  // The latents of these labels in the handwritings z_T.
  latents(z_T, labels, guidance) {
    return ddim_sample(this.latent_denoiser(labels, guidance), z_T, PRIOR_TIMES);
  }

  // The digits that latents describe, all from the same x_T; one yield per step: { x_t, x_0 }, in [-1, 1] plus noise.
  decode(latents, x_T, num_steps, settings) {
    const x = repeat(x_T, latents.length / LATENT_DIM);
    return ddim_steps(this.image_denoiser(latents), x, step_times(num_steps, "quadratic"), settings);
  }
}

// From the diffusion's scale, [-1, 1] and noise beyond it, to images in [0, 1].
export function to_pixels(x) {
  return x.map((value) => Math.min(1, Math.max(0, (value + 1) / 2)));
}

export function repeat(item, count) {
  const items = new Float32Array(count * item.length);
  for (let i = 0; i < count; i++) items.set(item, i * item.length);
  return items;
}

// The items of a batch.
export function split(values, length) {
  return Array.from({ length: values.length / length }, (_, i) => values.slice(i * length, (i + 1) * length));
}

export function join(items) {
  return Float32Array.from(items.flatMap((item) => [...item]));
}

function batch(values, ...shape) {
  const size = shape.reduce((product, side) => product * side, 1);
  return new ort.Tensor("float32", values, [values.length / size, ...shape]);
}

function fill(count, value) {
  return new Float32Array(count).fill(value);
}

function integers(values) {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
}
