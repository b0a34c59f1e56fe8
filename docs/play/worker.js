// Computes what the page shows, beside the page, so that it never freezes. The page sends its whole state as a wish;
// only the newest counts: a wish that is being computed stops at the next evaluation once a newer one has come.
import { LATENT_DIM, PIXELS, join, load_models, repeat, split, to_pixels } from "./models.js";
import { ddim_sample, lerp, seeded, slerp, step_times, turn } from "./sampler.js";

const STEPS = 5; // DDIM steps of a digit, of quadratic spacing
const QUICK_STEPS = 3; // while a slider moves
const GUIDANCE = 1.75; // towards a label that is not the digit's own
const LABELS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
const FRAMES = 13; // of the way between two digits

let newest = null; // the wish that is to be fulfilled
let current = null; // the wish that is being fulfilled
let models = null;

class Cancelled extends Error {}

const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()();

// Let messages in. A quick wish is fulfilled even if a newer one has come: otherwise a slider that keeps moving would
// show nothing.
async function breathe() {
  await new Promise((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
  if (current && newest !== current && !current.quick) throw new Cancelled();
}

// The last result of each name, computed again only when its key has changed.
const results = new Map();
async function remember(name, key, compute) {
  const text = JSON.stringify(key);
  if (results.get(name)?.text !== text) results.set(name, { text, value: await compute() });
  return results.get(name).value;
}

const noise_of = (seed, length) => seeded(seed).normal(length);

// The digit that everything starts from: its image, label, latent z and handwriting z_T.
async function find_digit({ digit, label }, image) {
  if (image) {
    const read = label === null ? await models.classify(image) : { label, is_sure: true };
    const z = await models.encode(image);
    return { image, ...read, z, z_T: await models.handwriting(z, read.label), guidance: 1 };
  }
  const random = seeded(Number(digit.slice(1))); // a new digit: a random hand, and a random label
  const new_label = label ?? Math.floor(10 * random.uniform());
  const z_T = random.normal(LATENT_DIM);
  const z = await models.latents(z_T, [new_label], [GUIDANCE]);
  return { image: await last_picture(z), label: new_label, is_sure: true, z, z_T, guidance: GUIDANCE };
}

async function last_picture(z) {
  let image;
  for await (const { x_t } of models.decode(z, noise_of(1, PIXELS), STEPS)) image = to_pixels(x_t);
  return image;
}

const guidance_of = (digit, labels) => labels.map((label) => (label === digit.label ? digit.guidance : GUIDANCE));

// The digit's hand, turned towards another, and the latents of all ten labels in it.
async function find_hand({ hand, angle }, digit) {
  const z_T = angle ? turn(digit.z_T, angle, noise_of(hand, LATENT_DIM)) : digit.z_T;
  const latents = await models.latents(repeat(z_T, 10), LABELS, guidance_of(digit, LABELS));
  return { z_T, latents: split(latents, LATENT_DIM) };
}

// The ten pictures, sent after each step: first blurred ones, then sharper ones.
async function show_ten({ noise, quick, reveal }, { latents }) {
  const num_steps = quick ? QUICK_STEPS : STEPS;
  let images;
  for await (const { x_0 } of models.decode(join(latents), noise_of(noise, PIXELS), num_steps)) {
    images = split(to_pixels(x_0), PIXELS);
    if (reveal) post("ten", { images });
  }
  return images;
}

// What each step from x_T to the digit sees and predicts.
async function find_steps({ noise, steps, eta }, z) {
  const x_T = noise_of(noise, PIXELS);
  const seen = [x_T];
  const predicted = [];
  for await (const { x_t, x_0 } of models.decode(z, x_T, steps, { eta, normal: seeded(noise + 1).normal })) {
    seen.push(x_t);
    predicted.push(x_0);
  }
  predicted.push(seen.at(-1));
  return { x_t: seen.map(to_pixels), x_0: predicted.map(to_pixels), times: step_times(steps, "quadratic") };
}

// The pictures between two digits: along the straight line of their latents, or along the arc of their handwritings,
// where the label changes half-way.
async function find_between({ way, noise }, a, b) {
  const shares = Array.from({ length: FRAMES }, (_, i) => i / (FRAMES - 1));
  let latents = join(shares.map((share) => lerp(a.z, b.z, share)));
  if (way === "arc") {
    const ends = shares.map((share) => (share < 0.5 ? a : b));
    const z_T = join(shares.map((share) => slerp(a.z_T, b.z_T, share)));
    latents = await models.latents(z_T, ends.map(({ label }) => label), ends.map(({ guidance }) => guidance));
  }
  const x = models.decode(latents, noise_of(noise, PIXELS), STEPS);
  let images;
  for await (const { x_t } of x) images = split(to_pixels(x_t), PIXELS);
  return images;
}

async function fulfil(wish) {
  const { digit: name, label, hand, angle, noise, quick, as } = wish;
  const digit = await remember("digit", [name, label], () => find_digit(wish, wish.image));
  post("digit", { image: digit.image, label: digit.label, is_sure: digit.is_sure });
  const own_hand = [name, label, angle && hand, angle];
  const { z_T, latents } = await remember("hand", [...own_hand, quick], () => find_hand(wish, digit));
  const shown = as ?? digit.label;
  const z = shown === digit.label && !angle ? digit.z : latents[shown];
  post("latent", { z });
  const images = await remember("ten", [...own_hand, noise, quick], () => show_ten(wish, { latents }));
  post("ten", { images });
  if (quick) return;
  const source = [...own_hand, noise, shown];
  post("steps", await remember("steps", [...source, wish.steps, wish.eta], () => find_steps(wish, z)));
  const other = await remember("other", [wish.other], () => find_digit({ label: wish.other_label }, wish.other_image));
  const start = { z, z_T, label: shown, guidance: guidance_of(digit, [shown])[0] };
  const images_between = await remember("between", [...source, wish.other, wish.way], () => find_between(wish, start, other));
  post("between", { images: images_between });
}

function post(kind, content) {
  self.postMessage({ kind, id: current?.id, quick: current?.quick, ...content });
}

async function work() {
  if (current || !models) return;
  while (newest && newest !== current) {
    current = newest;
    try {
      await fulfil(current);
      post("done");
    } catch (error) {
      if (!(error instanceof Cancelled)) post("failed", { message: error.message });
    }
  }
  newest = current = null;
}

self.onmessage = ({ data }) => {
  newest = data;
  work();
};

load_models((share) => post("progress", { share }), breathe).then(
  (loaded) => {
    models = loaded;
    work();
  },
  (error) => post("failed", { message: error.message }),
);
