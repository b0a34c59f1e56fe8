// Pictures on the page: digits, the 256 numbers, and strips of pictures with a slider.

export const $ = (selector, root = document) => root.querySelector(selector);

export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// An image, (784,) of ink in [0, 1], as dark ink on white paper.
export function paint(canvas, image) {
  const side = Math.sqrt(image.length);
  const rgba = new Uint8ClampedArray(4 * image.length).fill(255);
  image.forEach((ink, i) => rgba.fill(255 * (1 - ink), 4 * i, 4 * i + 3));
  [canvas.width, canvas.height] = [side, side];
  canvas.getContext("2d").putImageData(new ImageData(rgba, side), 0, 0);
}

// 256 numbers as 16 x 16 squares: blue below 0, white at 0, orange above, in full colour from 2.5 on.
export function paint_latent(canvas, z) {
  const rgba = new Uint8ClampedArray(4 * z.length).fill(255);
  z.forEach((value, i) => {
    const strength = Math.min(1, Math.abs(value) / 2.5);
    const colour = value < 0 ? [46, 94, 190] : [222, 110, 30];
    rgba.set(colour.map((part) => 255 - strength * (255 - part)), 4 * i);
  });
  canvas.getContext("2d").putImageData(new ImageData(rgba, 16), 0, 0);
}

export function picture(image) {
  const canvas = element("canvas");
  canvas.setAttribute("aria-hidden", "true"); // its label says what it is
  paint(canvas, image);
  return canvas;
}

// Radio buttons with pictures: one Tab stop, in which the arrow keys choose. `choose` gets the value.
export function add_choices(fieldset, name, choices, choose) {
  const box = element("div", { className: "choices" });
  for (const { value, image, title } of choices) {
    const input = element("input", { type: "radio", name, value, onchange: () => choose(value) });
    input.setAttribute("aria-label", title);
    box.append(element("label", { title }, input, picture(image)));
  }
  fieldset.append(box);
}

export function check_choice(fieldset, value) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === value;
}

// A strip of pictures in one or more rows, a slider along it, a button that plays it; `show(index)` shows one place.
export class Film {
  constructor(root, start, show) {
    this.strip = $(".strip", root);
    this.slider = $("input[type=range]", root);
    this.button = $(".play", root);
    this.start = start; // the place shown first, as a share
    this.show = show;
    this.slider.oninput = () => this.go(this.slider.valueAsNumber);
    this.button.onclick = () => (this.timer ? this.pause() : this.play());
  }

  // rows: lists of images of one length
  fill(rows) {
    const last = rows[0].length - 1;
    const share = this.slider.max > 0 && this.filled ? this.slider.value / this.slider.max : this.start;
    this.filled = true;
    this.strip.parentElement.style.setProperty("--columns", rows[0].length);
    this.strip.replaceChildren(...rows.flatMap((images) => images.map(picture)));
    [...this.strip.children].forEach((canvas, i) => (canvas.onclick = () => this.go(i % (last + 1))));
    this.columns = last + 1;
    this.slider.max = last;
    this.go(Math.round(share * last));
  }

  go(index) {
    this.slider.value = index;
    [...this.strip.children].forEach((canvas, i) => canvas.classList.toggle("shown", i % this.columns === index));
    this.show(index);
  }

  // From the beginning to the end; from here, if it was paused here.
  play() {
    if (!this.filled) return;
    if (this.slider.valueAsNumber !== this.paused) this.go(0);
    this.button.textContent = "Pause";
    this.timer = setInterval(() => {
      if (this.slider.value !== this.slider.max) this.go(this.slider.valueAsNumber + 1);
      if (this.slider.value === this.slider.max) this.pause();
    }, Math.max(120, 2000 / this.columns));
  }

  pause() {
    this.paused = this.slider.value === this.slider.max ? null : this.slider.valueAsNumber;
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "Play";
  }
}

// Pictures as one PNG: the digit, large, and the ten beside it in two rows.
export function as_png(digit, ten, scale = 8) {
  const side = 28 * scale;
  const sheet = element("canvas", { width: 8 * side, height: 2 * side });
  const pen = sheet.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pen.drawImage(digit, 0, 0, 2 * side, 2 * side);
  ten.forEach((canvas, label) => {
    pen.drawImage(canvas, (3 + (label % 5)) * side, Math.floor(label / 5) * side, side, side);
  });
  return sheet.toDataURL("image/png");
}
