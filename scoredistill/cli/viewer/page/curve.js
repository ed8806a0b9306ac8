// One curve over the steps, as SVG with colors from the style sheet; the mouse or the arrow keys read values.

const MARGIN = { left: 52, right: 8, top: 8, bottom: 20 };

/** A number in a few characters. */
export const short = value => {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
};

/** About `count` round numbers from low to high. */
const ticks = (low, high, count) => {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-9); i++) found.push(Number((i * step).toPrecision(12)));
  return found;
};

/** Powers of ten between two values; where there are fewer than two, round numbers. */
const logTicks = (low, high) => {
  const powers = [];
  for (let i = Math.ceil(Math.log10(low)); 10 ** i <= high; i++) powers.push(10 ** i);
  return powers.length > 1 ? powers : ticks(low, high, 4).filter(value => value > 0);
};

const element = (name, attributes, text = "") => {
  const made = document.createElementNS("http" + "://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};

export class Plot {
  /** @param {SVGElement} svg drawn into  @param {HTMLElement} reading that says the value under the cursor */
  constructor(svg, reading) {
    Object.assign(this, { svg, reading, points: [], log: false, at: null });
    svg.addEventListener("pointermove", event => this.pointAt(event.clientX - svg.getBoundingClientRect().left));
    svg.addEventListener("pointerleave", () => this.point(null));
    svg.addEventListener("blur", () => this.point(null));
    svg.addEventListener("keydown", event => this.key(event));
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  /** Show steps and values; null where a value was not finite. */
  show([steps, values], log) {
    this.all = steps.map((step, i) => [step, values[i]]);
    this.log = log;
    this.at = null;
    this.draw();
  }

  fits(value) {
    return value !== null && (!this.log || value > 0);
  }

  draw() {
    if (!this.all) return;
    const { width, height } = this.svg.getBoundingClientRect();
    this.svg.replaceChildren();
    this.points = this.all.filter(([, value]) => this.fits(value));
    if (!this.points.length || !width) {
      const why = this.log && this.all.length ? "no positive value to draw on a log scale" : "no finite value";
      this.svg.append(element("text", { x: MARGIN.left, y: height / 2 }, why));
      return;
    }
    this.scale(width, height);
    this.axes(width, height);
    this.svg.append(element("path", { class: "line", d: this.path() }));
    if (this.points.length === 1) this.svg.append(this.mark(this.points[0]));
    this.cursor = element("g", {});
    this.svg.append(this.cursor);
    this.point(this.at);
  }

  scale(width, height) {
    const steps = this.points.map(([step]) => step), values = this.points.map(([, value]) => value);
    const reduce = (choose, list) => list.reduce((a, b) => choose(a, b));
    this.first = reduce(Math.min, steps);
    this.last = Math.max(reduce(Math.max, steps), this.first + 1);
    this.low = reduce(Math.min, values);
    this.high = reduce(Math.max, values);
    if (this.low === this.high) [this.low, this.high] = this.log ? [this.low / 2, this.low * 2] : [this.low - 1, this.high + 1];
    const up = this.log ? Math.log : value => value;
    const across = width - MARGIN.left - MARGIN.right, tall = height - MARGIN.top - MARGIN.bottom;
    this.x = step => MARGIN.left + (across * (step - this.first)) / (this.last - this.first);
    this.y = value => MARGIN.top + tall * (1 - (up(value) - up(this.low)) / (up(this.high) - up(this.low)));
  }

  axes(width, height) {
    const rows = this.log ? logTicks(this.low, this.high) : ticks(this.low, this.high, 5);
    for (const value of rows) {
      const y = this.y(value);
      this.svg.append(element("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
      this.svg.append(element("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, short(value)));
    }
    for (const step of ticks(this.first, this.last, 5).filter(Number.isInteger)) {
      const x = this.x(step), anchor = x > width - 30 ? "end" : "middle";
      this.svg.append(element("text", { x, y: height - 4, "text-anchor": anchor }, short(step)));
    }
  }

  /** The line, broken where a value cannot be drawn. */
  path() {
    let pen = "M";
    return this.all.map(([step, value]) => {
      if (!this.fits(value)) return (pen = "M"), "";
      const part = `${pen}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`;
      pen = "L";
      return part;
    }).join("");
  }

  mark([step, value]) {
    return element("circle", { class: "mark", cx: this.x(step), cy: this.y(value), r: 3 });
  }

  /** Read the point nearest to a place across. */
  pointAt(x) {
    if (!this.points.length) return;
    const distance = i => Math.abs(this.x(this.points[i][0]) - x);
    this.point(this.points.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0));
  }

  /** Read the i-th point; null: the last, without a cursor. */
  point(i) {
    this.at = i;
    if (!this.points.length || !this.cursor) return;
    const [step, value] = this.points[i ?? this.points.length - 1];
    this.reading.textContent = `step ${step}: ${short(value)}`;
    this.cursor.replaceChildren();
    if (i === null) return;
    const x = this.x(step), bottom = this.svg.getBoundingClientRect().height - MARGIN.bottom;
    this.cursor.append(element("line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: bottom }));
    this.cursor.append(this.mark([step, value]));
  }

  key(event) {
    const last = this.points.length - 1, at = this.at ?? last;
    const moved = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (moved === undefined) return;
    event.preventDefault();
    this.point(Math.max(0, Math.min(last, moved)));
  }
}
