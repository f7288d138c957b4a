// How do the results leave the page? As a file, in a form that other programs read.

import { address, key } from "./api.js";
import { $, h, show } from "./dom.js";

/** Offer `saves`, each with label, ending and how to fetch it; `name` is that of the image. */
export function showSaves(saves, name, attempt) {
  const stem = name.replace(/\.[^.]{1,8}$/, "") || "nuclei";
  const choice = h("select", { id: "save-form", "aria-label": "Form of the file" }, saves.map(({ label }, i) => h("option", { value: i }, label)));
  const button = h("button", { type: "button", id: "save-button" }, "Save");
  button.addEventListener("click", async () => {
    const chosen = saves[choice.value];
    button.disabled = true;
    await attempt(() => save(chosen, `${stem}${chosen.ending}`));
    button.disabled = false;
  });
  show($("save"), h("h2", {}, "Save the results"), h("div", { class: "pair" }, choice, button));
}

async function save({ path, fetch }, name) {
  if (path && !key.get()) return click(address(path), name); // straight to the disk, whatever its size
  const url = URL.createObjectURL(await (await fetch()).blob());
  click(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return undefined;
}

function click(href, download) {
  h("a", { href, download }).click();
}
