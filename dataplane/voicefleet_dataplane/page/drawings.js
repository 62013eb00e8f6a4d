// The set-up waterfall and the quality plots: SVG, each with a sentence for those who don't see it.

const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const ms = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString());

// One bar for each step, from the step before it to when it was reached.
export function waterfall(place, marks) {
  const width = 440, left = 118, row = 26, right = 56;
  const end = Math.max(...marks.map(({ at }) => at), 1);
  const x = (at) => left + (at / end) * (width - left - right);
  const said = marks.map(({ label, at }) => `${label} after ${ms(at)} ms`).join(", ");
  const chart = draw("svg", { viewBox: `0 0 ${width} ${marks.length * row + 22}`, role: "img", "aria-label": said });
  let before = 0;
  marks.forEach(({ name, label, kind, at }, index) => {
    const y = index * row + 4;
    chart.append(
      draw("text", { x: 0, y: y + 13 }, label),
      draw("rect", { class: kind, x: x(before), y, width: Math.max(4, x(at) - x(before)), height: 16, rx: 2, "data-step": name, "data-at": at }),
      draw("text", { class: "quiet", x: x(at) + 6, y: y + 13 }, `${ms(at - before)} ms`),
    );
    before = at;
  });
  chart.append(draw("text", { x: 0, y: marks.length * row + 17 }, "Together"), draw("text", { x: left, y: marks.length * row + 17 }, `${ms(end)} ms`));
  place.replaceChildren(chart);
}

// A value each second, the last minute of them.
export class Plot {
  constructor(place, label, unit) {
    this.label = label;
    this.unit = unit;
    this.figure = document.createElement("figure");
    place.append(this.figure);
    this.clear();
  }

  clear() {
    this.values = [];
    this.#show();
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > 60) this.values.shift();
    this.#show();
  }

  #show() {
    const width = 440, height = 62, base = 54, top = 18;
    const known = this.values.filter((value) => value !== null);
    const most = Math.max(...known, this.unit === "%" ? 5 : 10);
    const last = known.length ? `${known.at(-1).toFixed(1)} ${this.unit}` : "–";
    const said = known.length ? `${this.label}: ${last} now, at most ${Math.max(...known).toFixed(1)} ${this.unit}` : `${this.label}: not measured yet`;
    const points = this.values.flatMap((value, at) => (value === null ? [] : [`${(at / 59) * width},${base - (value / most) * (base - top)}`]));
    this.figure.replaceChildren(
      draw(
        "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said },
        draw("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }),
        draw("polyline", { class: "line", points: points.join(" ") }),
        draw("text", { x: 0, y: 11 }, `${this.label}  ${last}`),
        draw("text", { class: "quiet", x: width, y: 11, "text-anchor": "end" }, `top ${most.toFixed(0)} ${this.unit}`),
      ),
    );
  }
}
