"use strict";
// Curves over the updates, and the scatter of the embedding.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  function element(name, attributes, parent) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    parent.append(node);
    return node;
  }

  // About `count` round numbers from low to high.
  function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
    const values = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
    return values;
  }

  function digits(value) {
    if (value !== 0 && Math.abs(value) < 0.01) return value.toExponential(2).replace(/\.?0+e/, "e");
    return String(Number(value.toPrecision(4)));
  }

  function drawChart(chart, holder) {
    holder.replaceChildren();
    const width = Math.max(260, holder.clientWidth), height = 220;
    const left = 52, right = 10, top = 8, bottom = 26;
    const points = chart.curves.flatMap((curve) => curve.points);
    const steps = points.map((p) => p[0]), values = points.map((p) => p[1]);
    const reduce = (list, f) => list.reduce((a, b) => f(a, b));
    let low = Math.min(0, reduce(values, Math.min)), high = reduce(values, Math.max);
    if (high === low) high = low + 1;
    let first = Math.min(0, reduce(steps, Math.min)), last = reduce(steps, Math.max);
    if (last === first) last = first + 1;
    const x = (step) => left + (step - first) / (last - first) * (width - left - right);
    const y = (value) => height - bottom - (value - low) / (high - low) * (height - top - bottom);

    const heading = document.createElement("h3");
    heading.textContent = chart.title + (chart.unit ? `, ${chart.unit}` : "");
    holder.append(heading);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": heading.textContent }, holder);
    for (const tick of ticks(low, high, 5)) {
      element("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), stroke: "var(--line)" }, svg);
      element("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, svg).textContent = digits(tick);
    }
    for (const tick of ticks(first, last, width / 90)) {
      element("text", { x: x(tick), y: height - 8, "text-anchor": tick === first ? "start" : x(tick) > width - 30 ? "end" : "middle" }, svg).textContent = digits(tick);
    }
    chart.curves.forEach((curve, i) => {
      const colour = `var(--series-${i % 5})`;
      const path = curve.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
      element("polyline", { points: path, fill: "none", stroke: colour, "stroke-width": 1.8 }, svg);
      if (curve.points.length < 30) {
        for (const p of curve.points) element("circle", { cx: x(p[0]), cy: y(p[1]), r: 2.6, fill: colour }, svg);
      }
    });
    const cursor = element("line", { y1: top, y2: height - bottom, stroke: "var(--soft)", visibility: "hidden" }, svg);
    const legend = document.createElement("div");
    legend.className = "legend";
    holder.append(legend);

    function read(step) {
      legend.replaceChildren();
      if (step !== null) legend.append(`step ${digits(step)}`);
      chart.curves.forEach((curve, i) => {
        const entry = document.createElement("span"), patch = document.createElement("i");
        patch.style.background = `var(--series-${i % 5})`;
        let text = curve.name;
        if (step !== null) {
          const near = reduce(curve.points, (a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
          text += ` ${digits(near[1])}`;
        }
        entry.append(patch, text);
        legend.append(entry);
      });
    }
    read(null);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = first + ((event.clientX - box.left) / box.width * width - left) / (width - left - right) * (last - first);
      const step = steps.reduce((a, b) => Math.abs(b - at) < Math.abs(a - at) ? b : a);
      cursor.setAttribute("x1", x(step));
      cursor.setAttribute("x2", x(step));
      cursor.setAttribute("visibility", "visible");
      read(step);
    });
    svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); read(null); });
  }

  const charts = document.querySelector("[data-charts]");
  if (charts) {
    const holders = data.charts.map(() => {
      const holder = document.createElement("div");
      holder.className = "chart";
      charts.append(holder);
      return holder;
    });
    let known = 0;
    new ResizeObserver(() => {
      if (charts.clientWidth === known) return;
      known = charts.clientWidth;
      data.charts.forEach((chart, i) => drawChart(chart, holders[i]));
    }).observe(charts);
  }

  const canvas = document.querySelector("[data-embedding]");
  if (!canvas) return;
  const { points, labels, predicted, files } = data.embedding;
  const chooser = document.querySelector("[data-class]"), output = document.querySelector("[data-point]");
  const present = [...new Set(labels)].sort((a, b) => a - b);
  for (const label of present) chooser.append(new Option(data.classes[label], label));
  const hue = new Map(present.map((label, i) => [label, i * 360 / present.length]));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let places = [];

  function draw() {
    const width = canvas.clientWidth, height = Math.min(560, Math.max(280, width * 0.62)), scale = devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const chosen = Number(chooser.value), margin = 12;
    places = points.map(([x, y]) => [margin + x * (width - 2 * margin), margin + y * (height - 2 * margin)]);
    const order = labels.map((_, i) => i).sort((a, b) => (labels[a] === chosen) - (labels[b] === chosen));
    for (const i of order) {
      const faint = chosen >= 0 && labels[i] !== chosen;
      const colour = `hsl(${hue.get(labels[i])} 65% ${dark.matches ? 65 : 42}% / ${faint ? 0.15 : 1})`;
      pen.beginPath();
      pen.arc(...places[i], 4, 0, 2 * Math.PI);
      if (labels[i] === predicted[i]) { pen.fillStyle = colour; pen.fill(); }
      else { pen.lineWidth = 2; pen.strokeStyle = colour; pen.stroke(); }
    }
  }
  chooser.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas.parentElement);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = 12 ** 2;
    places.forEach(([px, py], i) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) { best = i; least = distance; }
    });
    const mistake = best >= 0 && labels[best] !== predicted[best] ? `, predicted as ${data.classes[predicted[best]]}` : "";
    output.textContent = best < 0 ? "" : `${data.classes[labels[best]]}${mistake}: ${files[best]}`;
  });
})();
