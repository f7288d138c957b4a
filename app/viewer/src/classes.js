// How many nuclei of which class? One row each: a switch, a bar, a figure.

import { h, show, svg } from "./dom.js";
import { about, percent, whole } from "./words.js";

const MODES = {
  count: { label: "Count", title: "Nuclei", figure: whole },
  share: { label: "Share", title: "Share of all nuclei", figure: percent },
  density: { label: "Per mm²", title: "Nuclei per mm²", figure: about },
};

/** The list of classes; `onChange` is called when one is shown or hidden. */
export class Classes {
  #element;
  #palette;
  #summary = null;
  #mode = "count";

  constructor(element, palette, onChange) {
    this.#element = element;
    this.#palette = palette;
    this.onChange = onChange;
  }

  /** Show a summary as the service writes it. */
  show(summary) {
    this.#summary = summary;
    const densities = summary.density_per_mm2;
    if (this.#mode === "density" && !densities) this.#mode = "count";
    const title = h("h2", {}, "Nuclei", h("span", { class: "figure", id: "total" }, whole(summary.total)));
    const modes = Object.keys(MODES).filter((mode) => mode !== "density" || densities);
    show(this.#element, title, this.#switches(modes), h("ul", { class: "classes" }, this.#rows()), this.#everything());
  }

  hide() {
    this.#summary = null;
    this.#element.hidden = true;
  }

  /** Show or hide one class, or all; for the keyboard. */
  toggle(name) {
    if (name === undefined) this.#palette.toggleAll(!this.#palette.complete);
    else this.#palette.toggle(name);
    this.#changed();
  }

  #changed() {
    if (this.#summary) this.show(this.#summary);
    this.onChange();
  }

  #switches(modes) {
    const buttons = modes.map((mode) =>
      h("button", { type: "button", "aria-pressed": String(mode === this.#mode), "data-focus": mode, click: () => this.#look(mode) },
        MODES[mode].label));
    return h("div", { class: "segmented", role: "group", "aria-label": "What the bars show" }, buttons);
  }

  #look(mode) {
    this.#mode = mode;
    this.#changed();
  }

  #rows() {
    const { counts, total, density_per_mm2: densities } = this.#summary;
    const known = this.#palette.names.map((name) => [name, counts[name] ?? 0]);
    const open = total - known.reduce((sum, [, count]) => sum + count, 0);
    const values = this.#mode === "density" ? densities : counts;
    const figures = known.map(([name]) => [name, values[name] ?? 0]);
    if (open > 0 && this.#mode !== "density") figures.push([null, open]);
    const shares = this.#mode === "share";
    const told = figures.map(([name, value]) => [name, shares ? value / Math.max(1, total) : value]);
    const intervals = (shares && this.#summary.composition) || {};
    const most = Math.max(1e-9, ...told.map(([name, value]) => Math.max(value, intervals[name]?.high ?? 0)));
    return told.map(([name, value], i) => this.#row(name, value, most, intervals[name], i));
  }

  #row(name, value, most, interval, i) {
    const shown = this.#palette.shows(name);
    const colour = this.#palette.style(name).line;
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = colour;
    const box = h("input", {
      type: "checkbox",
      checked: shown,
      "data-focus": `class-${i}`,
      title: name === null ? "" : `Show or hide (${i + 1})`,
      change: () => {
        this.#palette.toggle(name);
        this.#changed();
      },
    });
    const bar = svg("svg", { class: "bars", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 100, height: 12 }),
      value > 0 && svg("rect", { class: "fill", width: Math.max((100 * value) / most, value ? 1 : 0), height: 12, fill: colour }),
      interval && svg("rect", whisker(interval, 100 / most)));
    const between = interval && `95 % interval: ${percent(interval.low)} to ${percent(interval.high)}`;
    const figure = h("span", { class: "number", title: between, "data-count": name ?? "unclassified" }, MODES[this.#mode].figure(value));
    return h("li", { class: shown ? "" : "off" }, h("label", {}, box, swatch, name ?? "class left open"), bar, figure);
  }

  #everything() {
    const complete = this.#palette.complete;
    return h("div", { class: "row" },
      h("button", { type: "button", class: "plain", "data-focus": "all", click: () => this.toggle() },
        complete ? "Hide all outlines" : "Show all classes"));
  }
}

/** The 95 % interval of a share as a thin line; `full` is where a share of 1 would end. */
function whisker({ low, high }, full) {
  return { class: "whisker", x: low * full, width: Math.max(0.5, (high - low) * full), y: 5, height: 2 };
}
