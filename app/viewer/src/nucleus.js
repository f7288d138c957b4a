// What is known of one nucleus?

import { $, facts, h, show, svg } from "./dom.js";
import { about, percent } from "./words.js";

const CHANCE = "Probability: ";

/** Show a nucleus as the service describes it. */
export function showNucleus(one, palette, onClose) {
  const measured = Object.entries(one.feature.properties.measurements ?? {});
  const chances = measured.filter(([name]) => name.startsWith(CHANCE)).map(([name, value]) => [name.slice(CHANCE.length), value]);
  const others = measured.filter(([name]) => !name.startsWith(CHANCE) && name !== "Uncertain");
  const uncertain = measured.some(([name, value]) => name === "Uncertain" && value);
  const swatch = h("span", { class: "swatch" });
  swatch.style.background = palette.style(one.name).line;
  show($("nucleus"),
    h("h2", {}, h("span", { class: "named" }, swatch, one.name ?? "class left open"),
      h("button", { type: "button", class: "plain", "aria-label": "Close nucleus details", click: onClose }, "Close")),
    uncertain && h("p", { class: "badge warn" }, "uncertain class"),
    chances.length > 0 && h("ul", { class: "classes" }, chances.sort((a, b) => b[1] - a[1]).map((pair) => chance(pair, palette))),
    facts([
      ["Centre", `${one.centre.map((value) => value.toFixed(1)).join(", ")} (x, y)`],
      ...others.map(([name, value]) => [unit(name), about(value)]),
    ]),
    h("details", {}, h("summary", {}, "Identifier"), h("code", {}, one.feature.id ?? "none")));
}

function chance([name, value], palette) {
  return h("li", {}, h("span", {}, name),
    svg("svg", { class: "bars", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 100, height: 12, rx: 1 }),
      value > 0 && svg("rect", { class: "fill", width: 100 * value, height: 12, rx: 1, fill: palette.style(name).line })),
    h("span", { class: "number" }, percent(value)));
}

const unit = (name) => name.replace(/ (um|px)(\^2)?$/, (_, of, squared) => `, ${of === "um" ? "µm" : "px"}${squared ? "²" : ""}`);
