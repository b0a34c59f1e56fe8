// The page: controls change the state, the worker computes what it means, and its answers are shown.
import { drawingCanvas } from "./canvas.js";
import { digit_of_strokes, from_text, load_digits, to_text } from "./digits.js";
import { START, from_hash, to_hash } from "./state.js";
import { $, Film, add_choices, as_png, check_choice, element, paint, paint_latent } from "./view.js";

const page = document.documentElement;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const random_seed = () => 1 + Math.floor(Math.random() * 1e6);
const NEW_DIGIT = { label: null, as: null, angle: 0 }; // what is reset when another digit is chosen
const ORIGINS = { t: "An example", d: "Your digit", n: "A new digit" };

let state = START;
let wishes = 0; // sent to the worker so far; answers to earlier ones are old
let digits = []; // the test digits: { label, image }
let digit = null; // the worker's latest answers
let ten = null;

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const ten_canvases = Array.from({ length: 10 }, (_, label) => add_one_of_ten(label));
const surface = drawingCanvas([], drawn);
const noise_film = new Film($("[data-film=steps]"), 0.6, show_step);
const between_film = new Film($("[data-film=between]"), 0.5, show_between);

// Change the state, show it in the controls, and ask the worker for it. `quick`: a slider moves; `reveal`: show the
// pictures while they come out of the noise.
function change(changes, { quick = false, reveal = false } = {}) {
  state = { ...state, ...changes };
  show_state();
  if (!quick) history.replaceState(null, "", `#${to_hash(state)}`);
  const other = digits[state.other.slice(1)];
  wishes += 1;
  if (digit) page.dataset.state = "busy"; // else it is still loading, or has failed to
  page.toggleAttribute("data-waiting", !quick);
  worker.postMessage({
    ...state,
    id: wishes,
    quick,
    reveal: reveal && !calm.matches,
    image: image_of(state.digit),
    other_image: other.image,
    other_label: other.label,
  });
}

// The picture that the state's digit names; null for a new digit, which the worker makes.
function image_of(name) {
  if (name.startsWith("t")) return digits[name.slice(1)].image;
  return name.startsWith("d") ? from_text(name.slice(1)) : null;
}

function show_state() {
  check_choice($("#samples"), state.digit);
  check_choice($("#others"), state.other);
  check_choice($("#ways"), state.way);
  for (const name of ["angle", "steps", "eta"]) $(`#${name}`).value = state[name];
  for (const output of document.querySelectorAll("output")) output.value = $(`#${output.htmlFor}`).value;
  const kind = state.digit[0];
  $("#origin").textContent = state.angle || state.as !== null ? "Now" : ORIGINS[kind];
  $("#hint").textContent = kind === "d" ? "another digit, 0 to 9" : "any digit, 0 to 9";
  $("#angle").setAttribute("aria-valuetext", `${Math.round((100 * state.angle) / 1.57)}% of the way to another hand`);
  $("#whose").textContent = state.angle ? "in another handwriting" : "in the same handwriting";
}

// What the worker answers

const answers = {
  progress({ share }) {
    $("#progress").value = share;
    if (share === 1) say("Starting the networks");
  },
  digit(answer) {
    page.dataset.state = "busy";
    digit = answer;
    $("#label").value = digit.label;
    const read = digit.is_sure ? "Read as" : "Perhaps";
    $("#reading").textContent = state.as !== null ? "Made from" : state.digit.startsWith("n") ? "Made as" : read;
    show_digit();
  },
  latent({ z }) {
    paint_latent($("#latent"), z);
  },
  ten({ images }) {
    say("Four small neural networks run in this page. What you draw stays on your machine.");
    page.removeAttribute("data-waiting");
    ten = images;
    images.forEach((image, label) => paint(ten_canvases[label], image));
    show_digit();
  },
  steps({ x_t, x_0, times }) {
    steps = { x_t, x_0, times };
    noise_film.fill([x_t, x_0]);
  },
  between({ images }) {
    between = images;
    between_film.fill([images]);
  },
  done({ id }) {
    if (id !== wishes) return;
    page.dataset.state = "ready";
  },
  failed({ message }) {
    page.dataset.state = "failed";
    say(`${digit ? "That went wrong" : "The networks could not be loaded"}: ${message}. Reload the page to try again.`);
  },
};
let steps = null;
let between = null;

worker.onmessage = ({ data }) => {
  if (data.id === undefined || data.id === wishes || data.quick) answers[data.kind](data);
};
worker.onerror = ({ message }) => answers.failed({ message: message ?? "the worker could not start" });

function say(text) {
  $("#message").textContent = text;
  $("#progress").hidden = true;
}

function shown_label() {
  return state.as ?? digit.label;
}

// The digit as it is, or what it has become: another of the ten, or another hand's.
function show_digit() {
  const label = shown_label();
  const is_itself = label === digit.label && !state.angle;
  if (is_itself || ten) paint($("[data-role=digit]"), is_itself ? digit.image : ten[label]);
  ten_canvases.forEach((canvas, i) => canvas.parentElement.setAttribute("aria-pressed", i === label));
}

function show_step(index) {
  const [x_t, x_0] = document.querySelectorAll("[data-film=steps] .big canvas");
  paint(x_t, steps.x_t[index]);
  paint(x_0, steps.x_0[index]);
  const last = steps.times.length - 1;
  const t = steps.times[index].toFixed(2);
  $("[data-film=steps] .caption").textContent = `step ${index} of ${last}, time t = ${t}`;
}

function show_between(index) {
  const [a, here, b] = document.querySelectorAll("[data-film=between] .big canvas");
  paint(a, between[0]);
  paint(here, between[index]);
  paint(b, between.at(-1));
  $("[data-film=between] .caption").textContent = `${Math.round((100 * index) / (between.length - 1))}% of the way`;
}

// Controls

function a_digit(label) {
  return label === 8 ? "an 8" : `a ${label}`;
}

function add_one_of_ten(label) {
  const canvas = element("canvas", { width: 28, height: 28 });
  canvas.dataset.class = label;
  const choose = () => change({ as: label === digit?.label ? null : label });
  const button = element("button", { type: "button", onclick: choose }, canvas, element("span", { textContent: label }));
  button.setAttribute("aria-label", `Make it ${a_digit(label)}`);
  $("#ten").append(button);
  return canvas;
}

function drawn(strokes, ended) {
  $("#hint").hidden = strokes.length > 0;
  const image = digit_of_strokes(strokes);
  if (!image) return;
  if (page.dataset.state === "ready") page.dataset.state = "busy";
  $("#origin").textContent = ORIGINS.d;
  if (ended) change({ ...NEW_DIGIT, digit: `d${to_text(image)}` }, { reveal: true });
  else paint($("[data-role=digit]"), image);
}

// Another digit than the one on the canvas.
function choose(changes) {
  surface.wipe();
  $("#hint").hidden = false;
  change(changes, { reveal: true });
}

const choose_digit = (name) => choose({ ...NEW_DIGIT, digit: name });

function add_controls() {
  surface.canvas.dataset.role = "draw";
  $("#surface").append(surface.canvas);
  $("#tools").append(...surface.buttons);
  const choices = digits.map(({ label, image }, i) => ({ value: `t${i}`, image, title: `${a_digit(label)[0].toUpperCase()}${a_digit(label).slice(1)} by someone else` }));
  add_choices($("#samples"), "digit", choices, choose_digit);
  add_choices($("#others"), "other", choices, (other) => change({ other }));
  const new_digit = element("button", { type: "button", textContent: "New digit", title: "Let the model invent one" });
  new_digit.onclick = () => choose_digit(`n${random_seed()}`);
  $("#samples .choices").append(new_digit);

  $("#label").append(...ten_canvases.map((_, label) => element("option", { value: label, textContent: label })));
  $("#label").onchange = ({ target }) => change({ label: Number(target.value), as: null });
  $("#angle").oninput = ({ target }) => change({ angle: target.valueAsNumber }, { quick: true });
  $("#angle").onchange = ({ target }) => change({ angle: target.valueAsNumber });
  $("#another-hand").onclick = () => change({ hand: random_seed(), angle: state.angle || 1.2 });
  for (const name of ["steps", "eta"]) $(`#${name}`).oninput = ({ target }) => change({ [name]: target.valueAsNumber });
  $("#another-noise").onclick = () => change({ noise: random_seed() });
  for (const input of document.querySelectorAll("[name=way]")) input.onchange = () => change({ way: input.value });
  $("#save").onclick = () => {
    const href = as_png($("[data-role=digit]"), ten_canvases);
    element("a", { href, download: "all_ten.png" }).click();
  };
  $("#link").onclick = async ({ target }) => {
    const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    target.textContent = copied ? "Link copied" : "The link is in the address bar";
    setTimeout(() => (target.textContent = "Copy a link"), 2500);
  };
  addEventListener("hashchange", () => choose(from_hash(location.hash)));
}

digits = await load_digits();
add_controls();
change(from_hash(location.hash), { reveal: true });
