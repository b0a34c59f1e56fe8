// A canvas for one digit, for the panels and for the page docs/play. What is drawn is a list of strokes:
// { erase, points: [[x, y], ...] }, x and y from 0 to 1.
const SIDE = 196; // screen pixels
export const PEN = 2.6 / 28; // widths as shares of the canvas, as in canvas.py
export const ERASER = 4 / 28;
const LONGEST = 1000; // pixels: a larger picture is shrunk before it is sent

export function draw(canvas, strokes, eraser = ERASER) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  for (const { erase, points } of strokes) {
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    pen.lineWidth = (erase ? eraser : PEN) * canvas.width;
    pen.beginPath();
    const [[x_0, y_0]] = points;
    pen.moveTo((x_0 - 0.001) * canvas.width, y_0 * canvas.height); // so that a dot is a line too, however short
    for (const [x, y] of points) pen.lineTo(x * canvas.width, y * canvas.height);
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

// A canvas and its buttons. `changed(strokes, ended)` is called whenever the drawing changes; `ended` is false while a
// stroke is being drawn. `wipe()` empties it without a call.
export function drawingCanvas(strokes, changed) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * SIDE, height: 2 * SIDE });
  canvas.setAttribute("aria-label", "Draw a digit here");
  canvas.setAttribute("role", "img");
  let erase = false;
  let drawing = false;

  function show(next, ended) {
    strokes = next;
    draw(canvas, strokes);
    changed(structuredClone(strokes), ended);
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
    show([...strokes, { erase, points: [place(event)] }], false);
  };
  canvas.onpointermove = (event) => {
    if (!drawing) return;
    strokes.at(-1).points.push(place(event));
    show(strokes, false);
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (drawing) show(strokes, true);
    drawing = false;
  };
  const tool = button("Eraser", "Rub out with the pointer", () => {
    erase = !erase;
    tool.textContent = erase ? "Pen" : "Eraser";
  });
  const undo = button("Undo", "Take the last stroke back", () => show(strokes.slice(0, -1), true));
  const clear = button("Clear", "An empty canvas", () => show([], true));
  function wipe() {
    strokes = [];
    draw(canvas, strokes);
  }
  draw(canvas, strokes);
  return { canvas, buttons: [tool, undo, clear], wipe };
}

export default {
  render({ model, el }) {
    el.classList.add("diffae-canvas");
    const { canvas, buttons } = drawingCanvas(structuredClone(model.get("strokes")), (strokes) => {
      model.set("strokes", strokes);
      model.save_changes(); // while Python is busy only the latest is kept
    });
    canvas.style.width = canvas.style.height = `${SIDE}px`;

    const pick = Object.assign(document.createElement("input"), { type: "file", accept: "image/*", hidden: true });
    pick.onchange = async () => {
      const [file] = pick.files;
      if (!file) return;
      model.set("file", { name: file.name, url: await smallEnough(file), sent: Date.now() });
      model.save_changes();
      pick.value = ""; // so that the same file can be given again
    };
    const open = button("Your picture", "A photo or scan of one digit, of any size", () => pick.click());
    const caption = Object.assign(document.createElement("div"), { textContent: "Draw a digit", className: "diffae-help" });
    const line = document.createElement("div");
    line.append(...buttons, open, pick);
    el.append(caption, canvas, line);
  },
};
