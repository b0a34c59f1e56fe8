// A canvas for one digit. What is drawn goes to Python as strokes: { erase, points: [[x, y], ...] }, x and y from 0 to 1.
const SIDE = 196; // screen pixels
const PEN = 2.6 / 28; // as in canvas.py
const ERASER = 4 / 28;
const LONGEST = 1000; // pixels: a larger picture is shrunk before it is sent

function draw(canvas, strokes) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  for (const { erase, points } of strokes) {
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    pen.lineWidth = (erase ? ERASER : PEN) * canvas.width;
    pen.beginPath();
    for (const [x, y] of [points[0], ...points]) pen.lineTo(x * canvas.width, y * canvas.height);
    pen.stroke();
  }
}

function asDataURL(file) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(file);
  });
}

async function smallEnough(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  const scale = bitmap ? LONGEST / Math.max(bitmap.width, bitmap.height) : 1;
  if (scale >= 1) return asDataURL(bitmap ? file : file.slice(0, 5e6)); // Python says what is wrong with it
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width * scale, bitmap.height * scale].map(Math.round);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL();
}

function button(label, title, action) {
  const made = Object.assign(document.createElement("button"), { textContent: label, title, onclick: action });
  made.className = "jupyter-button";
  return made;
}

export default {
  render({ model, el }) {
    el.classList.add("diffae-canvas");
    const canvas = Object.assign(document.createElement("canvas"), { width: 2 * SIDE, height: 2 * SIDE });
    canvas.style.width = canvas.style.height = `${SIDE}px`;
    canvas.setAttribute("aria-label", "Draw a digit here");
    canvas.setAttribute("role", "img");
    let strokes = structuredClone(model.get("strokes"));
    let erase = false;
    let drawing = false;

    function changed() {
      draw(canvas, strokes);
      model.set("strokes", structuredClone(strokes));
      model.save_changes(); // while Python is busy only the latest is kept
    }
    function place(event) {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      return [(event.clientX - left) / width, (event.clientY - top) / height].map((x) => Math.round(x * 1000) / 1000);
    }
    canvas.onpointerdown = (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      drawing = true;
      strokes.push({ erase, points: [place(event)] });
      changed();
    };
    canvas.onpointermove = (event) => {
      if (!drawing) return;
      strokes.at(-1).points.push(place(event));
      changed();
    };
    canvas.onpointerup = canvas.onpointercancel = () => (drawing = false);

    const pick = Object.assign(document.createElement("input"), { type: "file", accept: "image/*", hidden: true });
    pick.onchange = async () => {
      const [file] = pick.files;
      if (!file) return;
      model.set("file", { name: file.name, url: await smallEnough(file), sent: Date.now() });
      model.save_changes();
      pick.value = ""; // so that the same file can be given again
    };
    const tool = button("Eraser", "Rub out with the pointer", () => {
      erase = !erase;
      tool.textContent = erase ? "Pen" : "Eraser";
    });
    const undo = button("Undo", "Take the last stroke back", () => (strokes.pop(), changed()));
    const clear = button("Clear", "An empty canvas", () => ((strokes = []), changed()));
    const open = button("Your picture", "A photo or scan of one digit, of any size", () => pick.click());
    const caption = Object.assign(document.createElement("div"), { textContent: "Draw a digit", className: "diffae-help" });
    const line = document.createElement("div");
    line.append(tool, undo, clear, open, pick);
    el.append(caption, canvas, line);
    draw(canvas, strokes);
  },
};
