// The frame viewer: one panel for the truth and one for each row, moved by slider, keys, play, chart and links.
const PLAY_INTERVAL_MS = 140;

class Viewer {
  constructor(report) {
    this.report = report;
    this.hidden = new Set();
    this.index = 0;
    this.drawing = 0;
    this.moveCursor = () => {};
    this.timer = null;
    this.at = (id) => document.getElementById(id);
    this.slider = this.at("frame");
    this.fillControls();
    this.listen();
    if (!this.followLink()) this.chooseSequence(0);
  }

  fillControls() {
    this.at("sequence").append(...this.report.sequences.map((sequence, i) => new Option(sequence.name, i)));
    this.at("row-toggles").append(...this.report.rows.map((row) => this.makeToggle(row)));
  }

  makeToggle(row) {
    const toggle = document.createElement("button");
    toggle.type = "button";
    toggle.className = "toggle";
    toggle.setAttribute("aria-pressed", "true");
    toggle.append(makeSwatch(row), row.label);
    toggle.addEventListener("click", () => {
      if (!this.hidden.delete(row.label)) this.hidden.add(row.label);
      toggle.setAttribute("aria-pressed", String(!this.hidden.has(row.label)));
      this.layOut();
    });
    return toggle;
  }

  listen() {
    this.at("sequence").addEventListener("change", (event) => this.chooseSequence(Number(event.target.value)));
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    this.at("play").addEventListener("click", () => this.togglePlay());
    document.querySelectorAll("input[name=view]").forEach((radio) => radio.addEventListener("change", () => this.show(this.index)));
    document.addEventListener("keydown", (event) => this.onKey(event));
    window.addEventListener("hashchange", () => this.followLink());
    window.addEventListener("resize", () => this.drawChart());
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button, a, .scroll")) {
      if (event.target !== this.slider || event.key !== " ") return;
    }
    const actions = {
      ArrowLeft: () => this.show(this.index - 1),
      ArrowRight: () => this.show(this.index + 1),
      " ": () => this.togglePlay(),
      d: () => this.flipDifferences(),
    };
    const action = this.isInSight() && actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  isInSight() {
    const area = this.at("look").getBoundingClientRect();
    return area.top < window.innerHeight && area.bottom > 0;
  }

  flipDifferences() {
    const other = this.view() === "differences" ? "masks" : "differences";
    const radio = document.querySelector(`input[name=view][value=${other}]`);
    if (radio) radio.click();
  }

  // Links of the form #look=<sequence> open that sequence.
  followLink() {
    const name = this.nameInLink();
    const index = this.report.sequences.findIndex((sequence) => sequence.name === name);
    if (index < 0) return false;
    this.chooseSequence(index);
    this.at("look").scrollIntoView();
    return true;
  }

  nameInLink() {
    const [, name] = /^#look=(.*)$/.exec(window.location.hash) ?? [];
    try {
      return name && decodeURIComponent(name);
    } catch {
      return undefined; // The link is malformed, for example a lone "%".
    }
  }

  view() {
    return document.querySelector("input[name=view]:checked").value;
  }

  chooseSequence(index) {
    this.sequence = this.report.sequences[index];
    this.at("sequence").value = String(index);
    this.slider.max = String(this.sequence.pictures.length - 1);
    this.index = Math.floor(this.sequence.pictures.length / 2); // Most methods get the mask of the first frame.
    this.layOut();
  }

  rowsShown() {
    return this.report.rows.filter((row) => !this.hidden.has(row.label));
  }

  layOut() {
    const rows = this.rowsShown().filter((row) => this.sequence.masks[row.label]);
    this.panels = rows.map((row) => new Panel(row.label, row));
    if (this.sequence.truth) this.panels.unshift(new Panel("Ground truth", null));
    this.at("panels").replaceChildren(...this.panels.map((panel) => panel.figure));
    this.drawChart();
    this.show(this.index);
  }

  // J over time is drawn at the width of the page.
  drawChart() {
    const holder = document.querySelector("#over-time .chart");
    if (!holder) return;
    this.moveCursor = drawOverTime(holder, this.sequence, this.rowsShown(), (frame) => this.show(this.nearest(frame)));
    this.moveCursor(this.sequence.shown[this.index]);
  }

  // The picture nearest to a frame, as the report does not hold every frame of a long sequence.
  nearest(frame) {
    const distances = this.sequence.shown.map((shown) => Math.abs(shown - frame));
    return distances.indexOf(Math.min(...distances));
  }

  async show(index) {
    const count = this.sequence.pictures.length;
    this.index = Math.max(0, Math.min(count - 1, index));
    const frame = this.sequence.shown[this.index];
    this.slider.value = String(this.index);
    this.slider.setAttribute("aria-valuetext", `frame ${frame}`);
    this.at("frame-name").textContent = `frame ${frame} of 0–${this.sequence.length - 1}`;
    const legend = this.at("difference-legend");
    legend.hidden = this.view() !== "differences";
    this.moveCursor(frame);
    await this.paint();
  }

  async paint() {
    const drawing = ++this.drawing;
    const [sequence, index, view] = [this.sequence, this.index, this.view()];
    const frame = await pixelsOf(sequence.pictures[index]);
    const truthUri = sequence.truth?.[index];
    const truth = truthUri ? await pixelsOf(truthUri) : null;
    const masks = await Promise.all(this.panels.map((panel) => {
      if (panel.row === null) return truth;
      const uri = sequence.masks[panel.row.label][index];
      return uri ? pixelsOf(uri) : null;
    }));
    if (drawing !== this.drawing) return; // The slider has moved in the meantime.
    this.panels.forEach((panel, i) => panel.paint(frame, masks[i], truth, view, sequence, sequence.shown[index]));
    this.at("panels").dataset.painted = `${sequence.name}:${index}:${view}`;
  }

  togglePlay() {
    const play = this.at("play");
    if (this.timer !== null) {
      clearInterval(this.timer);
      this.timer = null;
    } else {
      this.timer = setInterval(() => this.show((this.index + 1) % this.sequence.pictures.length), PLAY_INTERVAL_MS);
    }
    play.textContent = this.timer === null ? "▶" : "❚❚";
    play.setAttribute("aria-label", this.timer === null ? "Play" : "Pause");
  }
}

class Panel {
  constructor(title, row) {
    this.row = row;
    this.figure = document.createElement("figure");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", title);
    const caption = document.createElement("figcaption");
    const name = document.createElement("span");
    this.note = document.createElement("span");
    if (row) name.append(makeSwatch(row));
    name.append(title);
    caption.append(name, this.note);
    this.figure.append(this.canvas, caption);
  }

  paint(frame, mask, truth, view, sequence, frameNumber) {
    const pixels = new ImageData(new Uint8ClampedArray(frame.data), frame.width, frame.height);
    const isDifference = view === "differences" && this.row !== null && mask !== null && truth !== null;
    if (isDifference) paintDifferences(pixels, mask, truth, this.row.foreground);
    else if (view !== "frame" && mask) paintMask(pixels, mask);
    this.canvas.width = frame.width;
    this.canvas.height = frame.height;
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
    const score = this.row?.region[sequence.name]?.find(([number]) => number === frameNumber);
    this.note.textContent = score ? `J ${score[1].toFixed(3)}` : "";
  }
}

function makeSwatch(row) {
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.setProperty("--colour", colourOf(row));
  return swatch;
}
