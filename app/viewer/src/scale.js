// How large is a pixel, in the reader's words? A figure with a decimal point or comma, within what the service takes.

import { Problem } from "./api.js";
import { h } from "./dom.js";

const FIGURE = /^(\d+\.?\d*|\.\d+)$/;

/** A field for um per pixel. Browsers read a comma in a field for numbers as their language has it, or skip it. */
export function scaleField(id, limits, attributes) {
  const field = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", id, ...attributes });
  const check = () => field.setCustomValidity(complaint(field.value, limits));
  field.addEventListener("input", check);
  field.addEventListener("change", () => field.reportValidity());
  return field;
}

/** What a field says, null if nothing. */
export function scaleIn(field) {
  if (!field.validity.valid) throw new Problem(422, { title: "Scale not understood", detail: field.validationMessage });
  const text = field.value.trim();
  return text ? Number(text.replace(",", ".")) : null;
}

function complaint(text, { min_mpp: least, max_mpp: most }) {
  const figure = text.trim().replace(",", ".");
  if (!figure) return "";
  if (!FIGURE.test(figure)) return `“${text}” is no scale: say it in µm per pixel, such as 0.5.`;
  return Number(figure) >= least && Number(figure) <= most ? "" : `A scale lies between ${least} and ${most} µm per pixel.`;
}
