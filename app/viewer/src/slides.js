// Which slides does the service keep for this reader, and how does a new one come in?

import { ask, askJson, sendJson, upload } from "./api.js";
import { $, bring, h, show } from "./dom.js";
import { rememberName, slideName } from "./slide.js";
import { bytes, whole } from "./words.js";

const OCTETS = "application/octet-stream";
const PAGE = 20;

/** The card of slides; `onOpen(id)` is called with the one that the reader picks. */
export class Slides {
  constructor(attempt, onOpen, onGone) {
    this.attempt = attempt;
    this.onOpen = onOpen;
    this.onGone = onGone;
    this.current = null;
  }

  /** Show what the service keeps. */
  async list(count = PAGE) {
    const { slides, next } = await askJson(`v1/slides?limit=${count}`);
    const rows = slides.map((entry) => this.#row(entry));
    show($("slides"),
      h("h2", {}, "Slides"),
      rows.length ? h("ul", { class: "list" }, rows) : h("p", { class: "quiet" }, "None yet. Drop a slide file on the page: SVS, NDPI, MRXS, SCN, BIF, DICOM, TIFF, or a large PNG or JPEG."),
      next && h("button", { type: "button", class: "plain", click: () => this.attempt(() => this.list(Math.min(1000, 5 * count))) }, "Show more"),
      this.#byPath());
  }

  #row(entry) {
    const told = [`${whole(entry.width)} × ${whole(entry.height)}`, entry.model ? "analysed" : ""].filter(Boolean).join(", ");
    const name = slideName(entry);
    return h("li", { "data-slide": entry.id },
      h("button", { type: "button", class: "plain name", "data-focus": `open-${entry.id}`, "aria-current": entry.id === this.current ? "true" : null, click: () => this.onOpen(entry.id) }, name),
      h("span", { class: "quiet" }, told),
      h("button", { type: "button", class: "plain", "data-focus": `delete-${entry.id}`, "aria-label": `Delete ${name}`, click: () => this.#confirm(entry, name) }, "Delete"));
  }

  #confirm(entry, name) {
    const dialog = $("dialog");
    const remove = async () => {
      dialog.close();
      await ask(`v1/slides/${entry.id}`, { method: "DELETE" }).catch((error) => {
        if (error.status !== 404) throw error; // somebody else deleted it before
      });
      this.onGone(entry.id);
      await this.list();
    };
    const kept = entry.origin === "rooted" ? "Its results are deleted; the file itself stays where it is." : "The file and its results are deleted from the service.";
    dialog.replaceChildren(h("h2", { id: "dialog-title" }, `Delete ${name}?`), h("p", {}, kept),
      h("div", { class: "row" },
        h("button", { type: "button", click: () => dialog.close() }, "Keep"),
        h("button", { type: "button", class: "primary", click: () => this.attempt(remove) }, "Delete")));
    dialog.showModal();
  }

  #byPath() {
    const input = h("input", { type: "text", id: "path-field", placeholder: "folder/slide.svs", autocomplete: "off" });
    const form = h("form", { class: "row", submit: (event) => {
      event.preventDefault();
      if (input.value.trim()) this.attempt(() => this.#register(input));
    } }, input, h("button", { type: "submit" }, "Add"));
    return h("details", {}, h("summary", {}, "Add one by its path"),
      h("label", { for: "path-field", class: "quiet" }, "Path below the service's slide folder"), form);
  }

  async #register(input) {
    const { id } = await sendJson("v1/slides", { path: input.value.trim() });
    input.value = "";
    await this.onOpen(id);
  }

  /** Send a file; shows how far it is. Its name stays here, only the suffix travels. */
  async receive(file, mpp, signal) {
    const suffix = /\.[A-Za-z0-9]{1,8}$/.exec(file.name)?.[0] ?? "";
    const query = new URLSearchParams({ filename: `slide${suffix.toLowerCase()}`, ...(mpp && { mpp }) });
    const cancel = new AbortController();
    signal.addEventListener("abort", () => cancel.abort());
    const bar = h("progress", { max: 1, value: 0, "aria-label": "Progress of the upload" });
    const words = h("p", { class: "quiet", id: "upload-progress" });
    show($("upload"), h("h2", {}, "Upload"), bar, words,
      h("div", { class: "row" }, h("button", { type: "button", click: () => cancel.abort() }, "Cancel")));
    bring($("upload"));
    const tell = (sent, total) => {
      bar.value = sent / total;
      words.textContent = sent < total ? `${bytes(sent)} of ${bytes(total)}` : "received, being checked";
    };
    try {
      const entry = await upload(`v1/slides?${query}`, file, OCTETS, tell, cancel.signal);
      rememberName(entry.id, file.name);
      return entry.id;
    } finally {
      if (bar.isConnected) $("upload").hidden = true; // else it tells of another file by now
    }
  }
}

