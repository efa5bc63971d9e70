// Charts as inline SVG, drawn from the report's data.
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 3", "2 3", "10 3 2 3"];

function draw(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function colourOf(row) {
  return `var(--row-${row.colour})`;
}

// Rows beyond the palette share colours and differ in their dashes.
function dashOf(row) {
  return DASHES[row.round % DASHES.length];
}

function newChart(holder, width, height, label) {
  holder.replaceChildren();
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, holder);
}

function scoreAxis(svg, box, y) {
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    draw("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }, svg);
    draw("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, svg, tick.toFixed(2));
  }
}

// Round values of a logarithmic axis between two numbers: 1, 2, 5, 10, 20, ..
function roundTicks(low, high) {
  const ticks = [];
  for (let power = -3; power < 7; power += 1) {
    for (const digit of [1, 2, 5]) {
      const tick = digit * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

function drawScatter(holder, rows) {
  const [width, height] = [520, 360];
  const box = { left: 46, right: width - 18, top: 14, bottom: height - 44 };
  const timed = rows.filter((row) => row.ms !== null);
  const untimed = rows.filter((row) => row.ms === null);
  const times = timed.map((row) => row.ms);
  const [low, high] = [Math.min(...times) / 2.5, Math.max(...times) * 2.5];
  const x = (ms) => box.left + ((box.right - box.left) * Math.log(ms / low)) / Math.log(high / low);
  const y = (score) => box.bottom - (box.bottom - box.top) * score;
  const svg = newChart(holder, width, height, "Foreground J and F against milliseconds a frame");
  scoreAxis(svg, box, y);
  for (const tick of roundTicks(low, high)) {
    draw("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }, svg);
    draw("text", { x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, svg, String(Number(tick.toPrecision(3))));
  }
  draw("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, svg, "milliseconds a frame (left is faster)");
  const labels = [];
  for (const row of untimed) {
    const colour = colourOf(row);
    draw("line", { x1: box.left, x2: box.right, y1: y(row.accuracy), y2: y(row.accuracy), stroke: colour, "stroke-width": 1.5, "stroke-dasharray": "6 4" }, svg);
    labels.push({ x: box.right, y: y(row.accuracy) - 5, anchor: "end", text: row.label });
  }
  for (const row of timed) {
    const [cx, cy, colour] = [x(row.ms), y(row.accuracy), colourOf(row)];
    if (row.interval) draw("line", { x1: cx, x2: cx, y1: y(row.interval[0]), y2: y(row.interval[1]), stroke: colour, "stroke-width": 2, opacity: 0.6 }, svg);
    const point = draw("circle", { cx, cy, r: 6, fill: colour }, svg);
    draw("title", {}, point, `${row.label}: J&F ${row.accuracy.toFixed(3)}, ${row.ms.toFixed(1)} ms a frame`);
    const right = cx < (box.left + box.right) / 2;
    labels.push({ x: cx + (right ? 11 : -11), y: cy + 4, anchor: right ? "start" : "end", text: row.label });
  }
  placeLabels(svg, labels, box);
}

// Labels move down until none overlaps another.
function placeLabels(svg, labels, box) {
  const placed = [];
  for (const label of labels.sort((a, b) => a.y - b.y)) {
    const span = 7 * label.text.length;
    const from = label.anchor === "end" ? label.x - span : label.x;
    for (const other of placed) {
      if (from < other.to && other.from < from + span && label.y < other.y + 14) label.y = other.y + 14;
    }
    placed.push({ from, to: from + span, y: label.y });
    draw("text", { class: "label", x: label.x, y: Math.min(label.y, box.bottom - 3), "text-anchor": label.anchor }, svg, label.text);
  }
}

// One line for each sequence, one dot for each row.
function drawBySequence(holder, rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.items)))];
  const mean = (name) => rows.reduce((sum, row) => sum + (row.items[name] ?? 0), 0) / rows.length;
  names.sort((a, b) => mean(a) - mean(b));
  const [width, step] = [520, 26];
  const left = Math.min(170, 20 + 6.6 * Math.max(...names.map((name) => name.length)));
  const box = { left, right: width - 14, top: 8, bottom: 8 + step * names.length };
  const x = (score) => box.left + (box.right - box.left) * score;
  const svg = newChart(holder, width, box.bottom + 38, "Foreground J and F of each sequence");
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    draw("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }, svg);
    draw("text", { x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, svg, tick.toFixed(2));
  }
  draw("text", { x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, svg, "J&F");
  names.forEach((name, i) => {
    const y = box.top + step * (i + 0.5);
    const short = name.length > 22 ? `${name.slice(0, 21)}…` : name;
    const label = draw("text", { x: box.left - 10, y: y + 4, "text-anchor": "end" }, svg, short);
    draw("title", {}, label, name);
    const scored = rows.filter((row) => name in row.items);
    const scores = scored.map((row) => row.items[name]);
    draw("line", { class: "grid", x1: x(Math.min(...scores)), x2: x(Math.max(...scores)), y1: y, y2: y, "stroke-width": 3 }, svg);
    for (const row of scored) {
      const dot = draw("circle", { cx: x(row.items[name]), cy: y, r: 5.5, fill: colourOf(row), class: "dot" }, svg);
      draw("title", {}, dot, `${row.label}, ${name}: J&F ${row.items[name].toFixed(3)}`);
    }
  });
}

// J of every scored frame; `onPick` gets the frame that was clicked; the returned function moves the cursor.
function drawOverTime(holder, sequence, rows, onPick) {
  const [width, height] = [Math.max(360, holder.clientWidth), 260];
  const box = { left: 46, right: width - 12, top: 12, bottom: height - 38 };
  const last = Math.max(1, sequence.length - 1);
  const x = (frame) => box.left + ((box.right - box.left) * frame) / last;
  const y = (score) => box.bottom - (box.bottom - box.top) * score;
  const svg = newChart(holder, width, height, `J over time in ${sequence.name}`);
  scoreAxis(svg, box, y);
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => last / size <= width / 90) ?? last;
  for (let frame = 0; frame <= last; frame += step) {
    draw("text", { x: x(frame), y: box.bottom + 18, "text-anchor": "middle" }, svg, String(frame));
  }
  draw("text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" }, svg, "frame");
  for (const row of rows) {
    const points = row.region[sequence.name] ?? [];
    const path = points.map(([frame, score], i) => `${i ? "L" : "M"}${x(frame).toFixed(1)} ${y(score).toFixed(1)}`).join("");
    const line = draw("path", { class: "line", d: path, stroke: colourOf(row), "stroke-dasharray": dashOf(row) }, svg);
    draw("title", {}, line, row.label);
  }
  const cursor = draw("line", { class: "cursor", y1: box.top, y2: box.bottom }, svg);
  svg.style.cursor = "pointer";
  svg.addEventListener("click", (event) => {
    const area = svg.getBoundingClientRect();
    const at = ((event.clientX - area.left) * width) / area.width;
    onPick(Math.round(Math.min(last, Math.max(0, ((at - box.left) * last) / (box.right - box.left)))));
  });
  return (frame) => {
    cursor.setAttribute("x1", x(frame));
    cursor.setAttribute("x2", x(frame));
  };
}
