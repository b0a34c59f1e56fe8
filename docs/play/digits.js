// Pictures of digits: (784,) numbers in [0, 1], ink 1 on paper 0, as MNIST has them; from strokes, files and links.
import { ERASER, PEN, draw } from "./canvas.js";

const SIZE = 28;
const FINE = 8; // times as many pixels per side while drawing, so that edges come out soft
const SMALLEST = 0.3; // of the canvas: a smaller drawing, such as a first dot, is not enlarged to the whole image
const LEVELS = 15; // of grey above paper: two pixels go into one byte of a link

// The digit that strokes show, or null if nothing is left of them; like digit_of_strokes in panels/canvas.py: 20 of 28
// pixels high or wide, always the same width of the pen, the centre of mass in the middle.
export function digit_of_strokes(strokes) {
  const points = strokes.filter(({ erase }) => !erase).flatMap(({ points }) => points);
  if (!points.length) return null;
  const low = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
  const high = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
  const scale = (20 / SIZE - PEN) / Math.max(high[0] - low[0], high[1] - low[1], SMALLEST);
  const moved = (point) => point.map((x, axis) => (x - (low[axis] + high[axis]) / 2) * scale + 0.5);
  const canvas = Object.assign(document.createElement("canvas"), { width: SIZE * FINE, height: SIZE * FINE });
  draw(canvas, strokes.map(({ erase, points }) => ({ erase, points: points.map(moved) })), ERASER * scale);
  const ink = shrunk(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
  return Math.max(...ink) < 0.2 ? null : centred(ink);
}

// The mean ink of each FINE x FINE pixels; ink is where the drawing is not transparent.
function shrunk(rgba) {
  const ink = new Float32Array(SIZE * SIZE);
  for (let i = 0; i < rgba.length / 4; i++) {
    const row = Math.floor(i / (SIZE * FINE * FINE));
    const column = Math.floor((i % (SIZE * FINE)) / FINE);
    ink[row * SIZE + column] += rgba[4 * i + 3] / 255 / FINE ** 2;
  }
  return ink;
}

// The ink moved by whole pixels, until the centre of mass is in the middle or the ink would touch the border.
function centred(ink) {
  const down = shift(ink, (i) => Math.floor(i / SIZE));
  const right = shift(ink, (i) => i % SIZE);
  const moved = new Float32Array(SIZE * SIZE);
  ink.forEach((value, i) => {
    if (value) moved[i + down * SIZE + right] = value;
  });
  return moved;
}

function shift(ink, place) {
  const places = [...ink.keys()].filter((i) => ink[i] > 0).map(place);
  const mean = ink.reduce((sum, value, i) => sum + value * place(i), 0) / ink.reduce((sum, value) => sum + value);
  const wanted = Math.round((SIZE - 1) / 2 - mean);
  return Math.min(Math.max(wanted, -Math.min(...places)), SIZE - 1 - Math.max(...places));
}

// The test digits that build.py chose, each as { label, image }.
export async function load_digits() {
  const digits = await (await fetch(new URL("digits.json", import.meta.url))).json();
  return digits.map(({ label, pixels }) => ({ label, image: Float32Array.from(bytes_of(pixels), (byte) => byte / 255) }));
}

// A picture as text for a link, in 16 levels of grey, and back.
export function to_text(image) {
  const levels = Array.from(image, (ink) => Math.round(ink * LEVELS));
  const pairs = Array.from({ length: levels.length / 2 }, (_, i) => String.fromCharCode(16 * levels[2 * i] + levels[2 * i + 1]));
  return btoa(pairs.join("")).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function from_text(text) {
  const bytes = bytes_of(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Float32Array.from(bytes.flatMap((byte) => [byte >> 4, byte & 15]), (level) => level / LEVELS);
}

function bytes_of(text) {
  return Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
