// What the page shows, as plain values, and as the text after # in a link, which holds what differs from the start.
export const START = {
  digit: "t7", // t: a test digit, by its index; d: a drawn one, its picture as text; n: a new one, by its seed
  label: null, // what the digit is, where the classifier was corrected
  as: null, // the label as which it is shown, where that is another
  hand: 1, // the seed of the other hand
  angle: 0, // how far z_T is turned towards it, 0 to pi / 2
  noise: 1, // the seed of x_T
  steps: 5,
  eta: 0,
  other: "t4", // the second digit of "between"
  way: "arc",
};
const NUMBERS = { label: [0, 9], as: [0, 9], hand: [1, 1e9], angle: [0, 1.57], noise: [1, 1e9], steps: [1, 20], eta: [0, 1] };
const WHOLE = ["label", "as", "hand", "noise", "steps"];
const TEXTS = { digit: /^(t1?\d|n\d{1,9}|d[\w-]{523})$/, other: /^t1?\d$/, way: /^(line|arc)$/ };

export function to_hash(state) {
  const changed = Object.entries(state).filter(([name, value]) => value !== START[name]);
  return new URLSearchParams(changed).toString();
}

// The state in a link; whatever is unknown or out of range stays as at the start.
export function from_hash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state = { ...START };
  for (const [name, pattern] of Object.entries(TEXTS)) {
    if (pattern.test(given.get(name) ?? "")) state[name] = given.get(name);
  }
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const value = Number(given.get(name) || NaN);
    if (value >= low && value <= high) state[name] = WHOLE.includes(name) ? Math.round(value) : value;
  }
  return state;
}
