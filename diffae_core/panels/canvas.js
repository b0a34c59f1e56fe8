// A canvas for one digit, for the panels and for the page docs/play. What is drawn is a list of strokes:
// { erase, points: [[x, y], ...] }, x and y from 0 to 1.
const SIDE = 196; // screen pixels
export const PEN = 2.6 / 28; // widths as shares of the canvas, as in canvas.py
export const ERASER = 4 / 28;
const STEP = 0.04; // of the canvas, that an arrow key moves the pen
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const LONGEST = 1000; // pixels: a larger picture is shrunk before it is sent

export function draw(canvas, strokes, eraser = ERASER) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "black";
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
  canvas.setAttribute("aria-label", "Draw a digit: the arrow keys move the pen, the space bar lowers and lifts it");
  canvas.setAttribute("role", "application");
  canvas.tabIndex = 0;
  let erase = false;
  let pointer = null; // the pointer that draws; a second finger or a palm does nothing
  const past = []; // the drawings before, for Undo

  function show(next, ended) {
    strokes = next;
    draw(canvas, strokes);
    changed(structuredClone(strokes), ended);
  }
  const can_begin = () => !erase || strokes.length > 0; // on an empty canvas there is nothing to rub out
  function begin(point) {
    past.push(strokes);
    strokes = [...strokes, { erase, points: [point] }];
  }
  function place(event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height].map((x) => Math.round(x * 1000) / 1000);
  }
  canvas.onpointerdown = (event) => {
    if (event.button !== 0 || pointer !== null || !can_begin()) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    pointer = event.pointerId;
    begin(place(event));
    show(strokes, false);
  };
  canvas.onpointermove = (event) => {
    if (event.pointerId !== pointer) return;
    strokes.at(-1).points.push(place(event));
    show(strokes, false);
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    show(strokes, true);
  };
  let at = [0.5, 0.3]; // the pen of the keyboard
  let down = false;
  canvas.onkeydown = (event) => {
    const moved = ARROWS[event.key];
    if (!moved && event.key !== " ") return;
    event.preventDefault();
    if (moved) at = at.map((x, axis) => Math.min(1, Math.max(0, x + moved[axis])));
    else down = !down && can_begin();
    if (down && moved) strokes.at(-1).points.push(at);
    if (down && !moved) begin(at);
    if (down || !moved) show(strokes, !down);
    showPen();
  };
  canvas.onblur = () => {
    if (down) show(strokes, true);
    down = false;
    draw(canvas, strokes);
  };
  function showPen() {
    draw(canvas, strokes);
    const pen = canvas.getContext("2d");
    pen.globalCompositeOperation = "source-over";
    pen.strokeStyle = down ? "#d33" : "#888";
    pen.lineWidth = canvas.width / 80;
    pen.beginPath();
    pen.arc(at[0] * canvas.width, at[1] * canvas.height, (PEN * canvas.width) / 2, 0, 7);
    pen.stroke();
  }
  function set_erase(on) {
    erase = on;
    eraser.setAttribute("aria-pressed", on);
    canvas.style.cursor = on ? "cell" : "";
  }
  const eraser = button("Eraser", "Rub out with the pointer", () => set_erase(!erase));
  const undo = button("Undo", "Take back the last stroke, or Clear", () => past.length && show(past.pop(), true));
  const clear = button("Clear", "An empty canvas", () => {
    wipe();
    show([], true);
  });
  function wipe() {
    if (strokes.length) past.push(strokes);
    strokes = [];
    set_erase(false);
    draw(canvas, strokes);
  }
  set_erase(false);
  draw(canvas, strokes);
  return { canvas, buttons: [eraser, undo, clear], wipe };
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
