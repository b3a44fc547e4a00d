"use strict";
// The confusion matrix on a canvas: a square window of cells that zooms and moves.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const canvas = document.querySelector("[data-matrix]");
  const output = document.querySelector("[data-cell]"), chooser = document.querySelector("[data-order]");
  const count = data.classes.length, SMALLEST = Math.min(4, count);
  const totals = new Array(count).fill(0), known = new Map();
  for (const [label, predicted, number] of data.confusion) {
    totals[label] += number;
    known.set(label * count + predicted, number);
  }
  const orders = { confused: data.order, number: data.order.map((_, i) => i) };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let order, place;             // row or column -> class, and back
  let view = { left: 0, top: 0, size: count };  // in cells
  let gutter = 0, side = 0;     // pixels: room for names, and the square
  let marked = null;            // [row, column] that a pair of the table went to

  function choose(name) {
    order = orders[name];
    place = new Array(count);
    order.forEach((label, i) => { place[label] = i; });
  }

  function clamp() {
    view.size = Math.min(count, Math.max(SMALLEST, view.size));
    view.left = Math.min(count - view.size, Math.max(0, view.left));
    view.top = Math.min(count - view.size, Math.max(0, view.top));
    canvas.dataset.view = [view.left, view.top, view.size].map((n) => n.toFixed(3)).join(" ");
  }

  function draw() {
    clamp();
    const width = canvas.clientWidth, scale = devicePixelRatio || 1;
    const cell = () => side / view.size;
    gutter = 0;
    side = Math.min(width, 760);
    const named = side * 0.78 / view.size >= 11;
    if (named) { gutter = room(width); side = Math.min(width - gutter, 760); }
    const height = side + gutter;
    canvas.style.height = `${height}px`;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    pen.scale(scale, scale);
    pen.save();
    pen.translate(gutter, gutter);
    pen.beginPath();
    pen.rect(0, 0, side, side);
    pen.clip();
    pen.fillStyle = colour("--ground");
    pen.fillRect(0, 0, side, side);
    const wrong = colour("--wrong"), right = colour("--right"), size = Math.max(1, cell() - (cell() > 6 ? 1 : 0));
    const faintest = cell() < 3 ? 0.5 : 0.2;  // single pixels are hard to see
    // Correct predictions first, so that mistakes lie above them where cells are below a pixel.
    for (const mistakes of [false, true]) {
      for (const [label, predicted, number] of data.confusion) {
        if ((label !== predicted) !== mistakes) continue;
        const x = (place[predicted] - view.left) * cell(), y = (place[label] - view.top) * cell();
        if (x < -cell() || y < -cell() || x > side || y > side) continue;
        pen.fillStyle = `rgba(${mistakes ? wrong : right}, ${faintest + (1 - faintest) * number / totals[label]})`;
        const dot = mistakes ? Math.max(2, size) : size;
        pen.fillRect(x, y, dot, dot);
        if (cell() >= 26) {
          pen.fillStyle = colour("--ink");
          pen.font = "12px system-ui, sans-serif";
          pen.textAlign = "center";
          pen.textBaseline = "middle";
          pen.fillText(String(number), x + cell() / 2, y + cell() / 2);
        }
      }
    }
    if (marked) {
      pen.strokeStyle = colour("--ink");
      pen.lineWidth = 2;
      pen.strokeRect((marked[1] - view.left) * cell(), (marked[0] - view.top) * cell(), Math.max(4, cell()), Math.max(4, cell()));
    }
    pen.restore();
    pen.strokeStyle = colour("--line");
    pen.strokeRect(gutter + 0.5, gutter + 0.5, side - 1, side - 1);
    if (named) names(pen, cell(), colour("--soft"));
    canvas.dataset.named = String(named);
  }

  // Pixels for the longest name in sight, as far as there is room.
  function room(width) {
    const pen = canvas.getContext("2d"), shown = new Set();
    for (const start of [view.left, view.top]) {
      for (let i = Math.floor(start); i < Math.min(count, start + view.size); i++) shown.add(order[i]);
    }
    pen.font = "13px system-ui, sans-serif";
    const longest = Math.max(...[...shown].map((label) => pen.measureText(data.classes[label]).width));
    return Math.min(150, width * 0.22, longest + 12);
  }

  function names(pen, cell, colour) {
    pen.fillStyle = colour;
    pen.font = `${Math.min(13, Math.max(10, cell - 1))}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const fit = (text) => {
      if (pen.measureText(text).width <= gutter - 8) return text;
      // Names of kinds often differ at their end, so the middle goes.
      let short = text;
      for (let half = text.length >> 1; half > 0 && pen.measureText(short).width > gutter - 8; half--) {
        short = `${text.slice(0, half)}…${text.slice(-half)}`;
      }
      return short;
    };
    for (let i = Math.floor(view.top); i < Math.min(count, view.top + view.size); i++) {
      const y = gutter + (i + 0.5 - view.top) * cell;
      if (y > gutter && y < gutter + side) pen.fillText(fit(data.classes[order[i]]), gutter - 5, y);
    }
    pen.textAlign = "left";
    for (let i = Math.floor(view.left); i < Math.min(count, view.left + view.size); i++) {
      const x = gutter + (i + 0.5 - view.left) * cell;
      if (x <= gutter || x >= gutter + side) continue;
      pen.save();
      pen.translate(x, gutter - 5);
      pen.rotate(-Math.PI / 2);
      pen.fillText(fit(data.classes[order[i]]), 0, 0);
      pen.restore();
    }
  }

  // The place under a pointer, in cells.
  function at(event) {
    const box = canvas.getBoundingClientRect();
    return [view.left + (event.clientX - box.left - gutter) / side * view.size,
      view.top + (event.clientY - box.top - gutter) / side * view.size];
  }

  function zoom(factor, x = view.left + view.size / 2, y = view.top + view.size / 2) {
    const size = Math.min(count, Math.max(SMALLEST, view.size * factor)), share = size / view.size;
    view = { left: x - (x - view.left) * share, top: y - (y - view.top) * share, size };
    draw();
  }

  function show(label, predicted) {
    marked = [place[label], place[predicted]];
    const size = Math.min(count, Math.max(SMALLEST, 12));
    view = { left: place[predicted] + 0.5 - size / 2, top: place[label] + 0.5 - size / 2, size };
    draw();
    say(place[predicted], place[label]);
    canvas.scrollIntoView({ block: "nearest" });
  }

  function say(column, row) {
    const label = order[Math.floor(row)], predicted = order[Math.floor(column)];
    if (label === undefined || predicted === undefined) { output.textContent = ""; return; }
    const number = known.get(label * count + predicted) || 0;
    const what = label === predicted ? "predicted correctly" : `predicted as ${data.classes[predicted]}`;
    output.textContent = `${data.classes[label]} ${what}: ${number} of ${totals[label]}`;
  }

  choose("confused");
  canvas.addEventListener("wheel", (event) => {
    const out = event.deltaY > 0;
    if (out && view.size >= count) return;  // zoomed out wholly, the page scrolls on
    event.preventDefault();
    zoom(out ? 1.25 : 0.8, ...at(event));
  }, { passive: false });
  const pointers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    say(...at(event));
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    if (other) {  // two fingers: the distance between them zooms
      const length = (p) => Math.hypot(p[0] - other[1][0], p[1] - other[1][1]);
      zoom(length(before) / Math.max(1, length(now)), ...at(event));
    } else {
      view.left -= (now[0] - before[0]) / side * view.size;
      view.top -= (now[1] - before[1]) / side * view.size;
      draw();
    }
    pointers.set(event.pointerId, now);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = view.size / 4;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) { view.left += moves[event.key][0]; view.top += moves[event.key][1]; draw(); }
    else if (event.key === "+" || event.key === "=") zoom(0.6);
    else if (event.key === "-") zoom(1 / 0.6);
    else if (event.key === "0") zoom(count);
    else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => zoom({ in: 0.6, out: 1 / 0.6, all: count }[button.dataset.zoom]));
  }
  chooser.addEventListener("change", () => { choose(chooser.value); marked = null; draw(); });
  document.querySelector("[data-pairs]")?.addEventListener("click", (event) => {
    const row = event.target.closest("tbody tr");
    if (row) show(Number(row.dataset.label), Number(row.dataset.predicted));
  });
  dark.addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas.parentElement);
})();
