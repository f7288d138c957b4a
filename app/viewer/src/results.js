// What else does the service say of an image? Tumour burden, the technical check, and where all of it comes from.

import { $, facts, h, show, svg } from "./dom.js";
import { about, meaning, percent, scaleSource, verdictWord, whole } from "./words.js";

/** The share of epithelial nuclei with its interval, or why there is none. */
export function showBurden(summary) {
  const burden = summary.tumour_burden;
  const title = h("h2", {}, "Tumour burden", burden && h("span", { class: "figure" }, percent(burden.value)));
  if (!burden) {
    show($("burden"), title, h("p", { class: "quiet" }, `Not given: ${summary.tumour_burden_reason ?? "the service gives no reason"}.`));
    return;
  }
  const told = `95 % interval: ${percent(burden.low)} to ${percent(burden.high)}`;
  show($("burden"), title, interval(burden), h("p", { class: "quiet" }, told));
}

function interval({ value, low, high }) {
  return svg("svg", { class: "bars", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 100, height: 12 }),
    svg("rect", { x: 100 * low, width: Math.max(0.5, 100 * (high - low)), y: 2, height: 8, fill: "currentColor", opacity: 0.35 }),
    svg("rect", { x: 100 * value - 0.4, width: 0.8, height: 12, fill: "currentColor" }));
}

/** The verdict of the technical check and what its codes mean. */
export function showQuality(qc) {
  const badge = h("span", { class: `badge ${qc.verdict}` }, verdictWord(qc.verdict));
  const notes = qc.codes.length
    ? h("ul", { class: "notes" }, qc.codes.map((code) => h("li", { "data-code": code }, meaning(code))))
    : h("p", { class: "quiet" }, "Nothing stands out.");
  const measures = Object.entries(qc.measures ?? {});
  const more = measures.length
    ? h("details", {}, h("summary", {}, "Measures"),
        facts(measures.map(([name, value]) => [name.replaceAll("_", " "), about(value)])))
    : null;
  show($("quality"), h("h2", {}, "Technical check", badge), notes, more);
}

/** Size, scale, model and what is needed to trace the result. */
export function showOrigin(space, provenance) {
  const model = provenance?.model ?? {};
  const size = `${whole(space.width)} × ${whole(space.height)} pixels`;
  const scale = space.mpp_x ? `${scaleText(space)} µm per pixel (${scaleSource(space.mpp_source)})` : "not known";
  const short = facts([
    ["Image", size],
    ["Scale", scale],
    ["Model", model.name ? `${model.name} ${model.version}` : "none yet"],
    ["Profile", provenance?.profile],
    ["Licence", model.licence],
  ]);
  show($("origin"), h("h2", {}, "Image and model"), short, provenance?.model && more(provenance));
}

function scaleText({ mpp_x: x, mpp_y: y }) {
  return Math.abs(x - y) < 1e-3 * x ? about(x) : `${about(x)} × ${about(y)}`;
}

function more(provenance) {
  const { model, service, input, runtime } = provenance;
  return h("details", {}, h("summary", {}, "Provenance"), facts([
    ["Weights", model.sha256 && h("code", {}, model.sha256)],
    ["Learnt from", model.training_data],
    ["Settings", provenance.config_sha256 && h("code", {}, provenance.config_sha256)],
    ["Service", service && `${service.version}, revision ${service.revision}`],
    ["Ran on", runtime && [runtime.device, runtime.provider, runtime.precision].filter(Boolean).join(", ")],
    ["Image digest", input?.sha256 && h("code", {}, input.sha256)],
    ["Analysed", provenance.created && new Date(provenance.created).toLocaleString()],
    ["Request", provenance.request_id && h("code", {}, provenance.request_id)],
  ]));
}

/** Hide whatever was said of a former image. */
export function clearResults() {
  for (const id of ["nuclei", "nucleus", "region", "burden", "quality", "save", "origin", "job"]) $(id).hidden = true;
}
