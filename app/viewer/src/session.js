// What is in view, and what follows from it? A dropped picture or a slide; everything the reader does concerns it.

import { $, h } from "./dom.js";
import { clearMessages } from "./messages.js";
import { showNucleus } from "./nucleus.js";
import { measure, Picture } from "./picture.js";
import { showCounting, showRegion } from "./regionpanel.js";
import { clearResults, showBurden, showOrigin, showQuality } from "./results.js";
import { showSaves } from "./save.js";
import { drawScale } from "./scalebar.js";
import { Slide } from "./slide.js";
import { readWishes } from "./wishes.js";

const REACH = 8; // CSS pixels around a nucleus that still count as a hit
const FAR = 150; // and without a pointer, around the middle of the view
const REFRESH_MS = 4000; // how often a running job's results are asked for

/** The image in view. `parts` are stage, classes, regions, status, palette, slides, jobs, config, attempt. */
export class Session {
  subject = null;
  #parts;
  #asked = new AbortController(); // aborts what is under way for a former image
  #version = 0;
  #refreshed = 0;

  constructor(parts) {
    this.#parts = parts;
  }

  /** Leave the former image behind. */
  #begin() {
    this.#asked.abort();
    this.#asked = new AbortController();
    this.#parts.regions.cancel();
    this.#parts.jobs.leave();
    clearMessages();
    return this.#asked.signal;
  }

  /** A file came: a picture if the browser can show it and one request takes it, else a slide to be kept. */
  async openFile(file) {
    const signal = this.#begin();
    const picture = await measure(file, this.#parts.config.limits);
    if (picture) await this.#analyse(file, picture, signal);
    else await this.#keep(file, signal);
  }

  async #keep(file, signal) {
    await this.#parts.status.ready();
    const id = await this.#parts.slides.receive(file, readWishes().mpp, signal);
    if (!signal.aborted) await this.openSlide(id);
  }

  async #analyse(file, { url, size }, signal) {
    if (size) await this.#present(file.name, size, (stage) => stage.openPicture(url, size));
    working("finding nuclei …");
    try {
      await this.#parts.status.ready();
      const picture = await Picture.analyse(file, url, readWishes(), signal);
      if (signal.aborted) return;
      this.subject = picture;
      this.#parts.stage.outlines = picture.outlines;
      this.#tell(picture);
      address(null);
    } finally {
      if (!signal.aborted) working(null);
    }
  }

  /** Show a slide that the service keeps. */
  async openSlide(id) {
    const signal = this.#begin();
    const slide = await Slide.find(id);
    const image = await slide.image();
    if (signal.aborted) return;
    await this.#present(slide.name, slide.size, (stage) => stage.openPyramid(image, slide.size));
    if (signal.aborted) return;
    this.subject = slide;
    address(id);
    this.#parts.slides.current = id;
    await this.#results();
    if (signal.aborted) return; // another one is in view: its card must not offer work on this one
    this.#parts.attempt(() => this.#parts.slides.list());
    this.#parts.attempt(() => this.#parts.jobs.offer(slide, readWishes));
  }

  async #present(name, size, open) {
    clearResults();
    this.subject?.close();
    this.subject = null;
    for (const id of ["welcome", "scalebar", "again"]) $(id).hidden = true;
    $("toolbar").hidden = false;
    $("subject").textContent = name;
    for (const scrolled of [window, $("panel")]) scrolled.scrollTo(0, 0); // where the results will be
    await open(this.#parts.stage);
  }

  #tell({ summary, qc, space, provenance }) {
    if (summary) {
      this.#parts.classes.show(summary);
      showBurden(summary);
    }
    if (qc) showQuality(qc);
    showOrigin(space, provenance);
    if (summary) showSaves(this.subject.saves(), this.subject.name, this.#parts.attempt);
    $("again").hidden = this.subject.kind !== "picture";
    this.#parts.stage.refresh();
  }

  /** Ask for a slide's results and lay its outlines over it, of the classes that are shown. */
  async #results() {
    const slide = this.subject;
    if (!slide.entry.model) return this.#tell({ space: slide.space });
    const found = await slide.results();
    if (slide !== this.subject) return undefined;
    this.#tell(found);
    return this.#lay(slide);
  }

  async #lay(slide) {
    this.#version += 1;
    const overlay = await slide.overlay(this.#parts.palette, this.#version);
    if (slide === this.subject) await this.#parts.stage.overlay(overlay);
  }

  /** Results of the slide in view may have changed. */
  async progressed(finished) {
    const slide = this.subject;
    if (slide?.kind !== "slide") return;
    if (!finished && Date.now() - this.#refreshed < REFRESH_MS) return;
    this.#refreshed = Date.now();
    await slide.refresh();
    if (slide === this.subject) await this.#results();
    if (finished) {
      this.#parts.jobs.offer(slide, readWishes);
      await this.#parts.slides.list();
    }
  }

  /** Classes were switched. */
  async classesChanged() {
    this.#parts.stage.refresh();
    if (this.subject?.kind === "slide" && this.subject.entry.model) await this.#lay(this.subject);
  }

  /** Analyse the picture in view again, as the reader wishes now. */
  async again() {
    if (this.subject?.kind === "picture") await this.openFile(this.subject.file);
  }

  /** The service is back, or the key has changed. */
  async recover() {
    this.#parts.stage.reload();
    await this.#parts.slides.list();
  }

  /** A slide was deleted. */
  gone(id) {
    if (this.subject?.kind !== "slide" || this.subject.id !== id) return;
    this.#begin();
    clearResults();
    this.subject = null;
    this.#parts.stage.close();
    for (const hidden of ["toolbar", "scalebar", "again"]) $(hidden).hidden = true;
    $("welcome").hidden = false;
    $("subject").textContent = "";
    address(null);
  }

  /** Tell what is known of the nucleus at a point, in image pixels. */
  async point(x, y, reach = REACH) {
    const subject = this.subject;
    if (!subject) return;
    const found = await subject.nucleusAt(x, y, reach / this.#parts.stage.scale, this.#parts.palette);
    if (subject === this.subject) this.select(found);
  }

  /** Tell what is known of the nucleus nearest to the middle of the view. */
  async pointAtMiddle() {
    await this.point(...this.#parts.stage.middle, FAR);
  }

  /** Tell of one nucleus; null: of none. */
  select(one) {
    this.#parts.stage.selected = one;
    this.#parts.stage.refresh();
    $("nucleus").hidden = true;
    if (one) showNucleus(one, this.#parts.palette, () => this.select(null));
  }

  /** Tell what lies in a polygon. */
  async count(polygon) {
    const { subject } = this;
    if (!subject) return;
    const drop = () => this.dropRegion();
    showCounting(drop);
    const found = await subject.composition(polygon, this.#parts.palette).catch((problem) => {
      if (this.#parts.stage.shape === polygon) drop();
      throw problem;
    });
    if (this.#parts.stage.shape === polygon) showRegion(found, this.#parts.palette, drop, this.#actions(polygon));
  }

  #actions(polygon) {
    const { jobs, attempt } = this.#parts;
    const slide = this.subject;
    if (slide.kind !== "slide" || slide.entry.origin === "tiles" || jobs.busy) return [];
    const start = () => jobs.start(slide, readWishes(), boxOf(polygon));
    return [h("button", { type: "button", id: "start-region", click: () => attempt(start) }, "Analyse this region")];
  }

  dropRegion() {
    this.#parts.stage.shape = null;
    this.#parts.stage.refresh();
    $("region").hidden = true;
  }

  /** The view has moved. */
  moved() {
    drawScale($("scalebar"), this.subject?.umPerPixel, this.#parts.stage.scale);
  }

  /** Leave off: first drawing, then the nucleus, then the region. */
  escape() {
    const { regions, stage } = this.#parts;
    if (regions.drawing) regions.cancel();
    else if (stage.selected) this.select(null);
    else if (stage.shape) this.dropRegion();
  }
}

/** The whole pixels around a polygon: what a job takes as its region. */
function boxOf(polygon) {
  const [xs, ys] = [polygon.map(([x]) => x), polygon.map(([, y]) => y)];
  return [Math.floor(Math.min(...xs)), Math.floor(Math.min(...ys)), Math.ceil(Math.max(...xs)), Math.ceil(Math.max(...ys))];
}

/** Say that something takes its time; null: not any more. */
export function working(text) {
  $("working").textContent = text ?? "";
  $("working").hidden = !text;
}

/** Write the slide into the page's address, so that it can be sent to somebody. */
function address(slide) {
  const url = new URL(location.href);
  if (slide) url.searchParams.set("slide", slide);
  else url.searchParams.delete("slide");
  history.replaceState(null, "", url);
}
