// What is asked or told in a window of its own? The key, the shortcuts, a scale that nobody said.

import { key } from "./api.js";
import { $, h } from "./dom.js";
import { scaleField, scaleIn } from "./scale.js";

/** Keys and what they do, as listed for the reader; see keys.js. */
export const SHORTCUTS = [
  [["+", "-"], "zoom in, zoom out"],
  [["←", "→", "↑", "↓"], "pan"],
  [["0"], "whole image"],
  [["1", "…", "6"], "show or hide a class"],
  [["A"], "show or hide all classes"],
  [["O"], "outlines off and on"],
  [["[", "]"], "outlines weaker, stronger"],
  [["Enter"], "details of the nucleus nearest to the middle"],
  [["R"], "draw a rectangle"],
  [["P"], "draw a polygon"],
  [["V"], "take the view as region"],
  [["Esc"], "stop drawing, close details"],
  [["U"], "open a file"],
  [["?"], "this list"],
];

function open(title, ...content) {
  const dialog = $("dialog");
  dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), ...content);
  dialog.showModal();
  return dialog;
}

const buttons = (word) => h("div", { class: "row" },
  h("button", { type: "button", click: () => $("dialog").close() }, "Cancel"),
  h("button", { type: "submit", class: "primary" }, word));

/** List the shortcuts. */
export function showShortcuts() {
  const rows = SHORTCUTS.flatMap(([keys, what]) => [
    h("dt", {}, keys.flatMap((name) => (name === "…" ? [" … "] : [h("kbd", {}, name), " "]))),
    h("dd", {}, what)]);
  open("Keyboard", h("dl", { class: "shortcuts" }, rows),
    h("div", { class: "row" }, h("button", { type: "button", class: "primary", click: () => $("dialog").close() }, "Close")));
}

/** Ask for an API key; resolves when there is an answer, true if the key changed. */
export function askForKey() {
  return new Promise((resolve) => {
    const input = h("input", { type: "password", id: "key-field", autocomplete: "off", value: key.get() });
    const form = h("form", { submit: (event) => {
      event.preventDefault();
      const changed = input.value.trim() !== key.get();
      key.set(input.value.trim());
      dialog.close(changed ? "changed" : "");
    } },
      h("p", {}, "This tab sends the key with every request and forgets it when it is closed. Leave it empty where the service asks for none."),
      h("label", { for: "key-field" }, "API key"), input, buttons("Use key"));
    const dialog = open("API key", form);
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "changed"), { once: true });
  });
}

/** Ask how large a pixel is; resolves to um per pixel, or null. */
export function askForScale(detail, limits) {
  return new Promise((resolve) => {
    let told = null;
    const input = scaleField("scale-field", limits, { required: true, placeholder: "0.5" });
    const form = h("form", { submit: (event) => {
      event.preventDefault();
      told = scaleIn(input);
      dialog.close();
    } },
      h("p", {}, detail),
      h("p", { class: "quiet" }, "About 0.25 for a 40x scan, 0.5 for a 20x scan."),
      h("label", { for: "scale-field" }, "µm per pixel"), input, buttons("Use scale"));
    const dialog = open("How large is a pixel?", form);
    dialog.addEventListener("close", () => resolve(told), { once: true });
  });
}
