// What lies in the region that the reader drew?

import { $, facts, h, show } from "./dom.js";
import { about, percent, whole } from "./words.js";

/** Show what was found in a region: `{total, counts, mm2, burden, note}`; `actions` are further buttons. */
export function showRegion(found, palette, onClose, actions = []) {
  const rows = palette.names.filter((name) => found.counts[name]).map((name) => row(name, found, palette));
  const close = h("button", { type: "button", class: "plain", "aria-label": "Remove the region", click: onClose }, "Remove");
  show($("region"),
    h("h2", {}, "Region", close),
    facts([
      ["Nuclei", h("span", { id: "region-total" }, whole(found.total))],
      ["Area", found.mm2 ? `${about(found.mm2)} mm²` : null],
      ["Density", found.mm2 ? `${about(found.total / found.mm2)} per mm²` : null],
      ["Tumour burden", found.burden && `${percent(found.burden.value)} (${percent(found.burden.low)} to ${percent(found.burden.high)})`],
    ]),
    rows.length > 0 && h("ul", { class: "classes region-classes" }, rows),
    h("p", { class: "quiet" }, found.note),
    actions.length > 0 && h("div", { class: "row" }, actions));
}

/** The region is being counted. */
export function showCounting(onClose) {
  const close = h("button", { type: "button", class: "plain", click: onClose }, "Remove");
  show($("region"), h("h2", {}, "Region", close), h("p", { class: "quiet" }, "counting …"));
}

function row(name, found, palette) {
  const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = palette.style(name).line;
  const count = found.counts[name];
  const share = found.shares?.[name];
  const told = share ? `${percent(share.value)} (${percent(share.low)} to ${percent(share.high)})` : percent(count / found.total);
  return h("li", {}, h("label", {}, swatch, name), h("span", { class: "number" }, whole(count)),
    h("span", { class: "number quiet" }, told));
}
