// What does the reader say before an analysis? The scale, the model, how thorough.

import { askJson } from "./api.js";
import { $, h, show } from "./dom.js";
import { scaleField, scaleIn } from "./scale.js";

const DEFAULT = "service default";

/** Show the fields; the models are filled in as soon as the service lists them. `onAgain` analyses the image again. */
export function showWishes(element, config, onAgain) {
  show(element, h("h2", {}, "How to analyse"), h("div", { class: "fields" },
    h("label", {}, "Scale, µm per pixel",
      scaleField("wish-mpp", config.limits, { placeholder: "from the file" })),
    h("label", {}, "Profile", h("select", { id: "wish-profile" },
      h("option", { value: "" }, DEFAULT),
      h("option", { value: "fast" }, "fast: one view"),
      h("option", { value: "accurate" }, "accurate: three views"))),
    h("label", { class: "wide" }, "Model", h("select", { id: "wish-model" }, h("option", { value: "" }, DEFAULT)))),
    h("div", { class: "row" }, h("button", { type: "button", id: "again", hidden: true, click: onAgain }, "Analyse again")));
}

/** Fill in the models; without a key that is needed, the default is all there is. */
export async function listModels() {
  const { models } = await askJson("v1/models");
  const options = models.map(({ name, version }) => h("option", { value: `${name}@${version}` }, `${name} ${version}`));
  $("wish-model").replaceChildren(h("option", { value: "" }, DEFAULT), ...options);
}

/** What was said: `{mpp, profile, model}`, each empty if nothing was; a `Problem` if the scale is none. */
export function readWishes() {
  return { mpp: scaleIn($("wish-mpp")), profile: $("wish-profile").value, model: $("wish-model").value };
}
