// What is in view, and what follows from it? A dropped picture or a slide; everything the reader does concerns it.

import { $, bring } from "./dom.js";
import { clearMessages, complain, takeUp } from "./messages.js";
import { showNucleus } from "./nucleus.js";
import { forget, measure, Picture } from "./picture.js";
import { showCounting, showRegion } from "./regionpanel.js";
import { boxOf } from "./regions.js";
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
  #picture = null; // the dropped file on the stage, whether it could be analysed or not
  #asked = new AbortController(); // aborts what is under way for a former image
  #scene = 0; // counts what was put on the stage
  #version = 0;
  #refreshed = 0;

  constructor(parts) {
    this.#parts = parts;
  }

  /** Leave what was under way; what is in view stays until something else is ready to take its place. */
  #begin() {
    this.#asked.abort();
    this.#asked = new AbortController();
    this.#parts.regions.cancel();
    working(null);
    clearMessages();
    return this.#asked.signal;
  }

  /** A file came: a picture if the browser can show it and one request takes it, else a slide to be kept. */
  async openFile(file) {
    const signal = this.#begin();
    const picture = await measure(file, this.#parts.config.limits);
    if (signal.aborted) return forget(picture);
    if (!picture) return this.#keep(file, signal);
    if (picture.size) await this.#presentPicture(picture);
    return signal.aborted ? undefined : this.#analyse(picture, signal);
  }

  async #keep(file, signal) {
    await this.#parts.status.ready();
    const id = await this.#parts.slides.receive(file, readWishes().mpp, signal);
    if (!signal.aborted) await this.openSlide(id);
  }

  async #presentPicture(picture) {
    await this.#present(picture.file.name, (stage) => {
      this.#picture = picture;
      return stage.openPicture(picture.url, picture.size);
    });
  }

  async #analyse({ file, size }, signal) {
    try {
      const wishes = readWishes();
      working("finding nuclei …");
      await this.#parts.status.ready();
      const found = await Picture.analyse(file, wishes, signal);
      if (signal.aborted) return;
      if (!size) await this.#present(file.name, (stage) => stage.close()); // the service could read what the browser cannot
      this.#tellPicture(found);
    } finally {
      if (!signal.aborted) working(null);
      $("again").hidden = !this.#picture; // also after a failure: said otherwise, it may go well
    }
  }

  #tellPicture(picture) {
    for (const id of ["nucleus", "region"]) $(id).hidden = true; // they tell of a former analysis
    this.subject = picture;
    this.#parts.stage.show(picture.outlines);
    this.#tell(picture);
    address(null);
  }

  /** Show a slide that the service keeps. */
  async openSlide(id) {
    const signal = this.#begin();
    const slide = await this.#find(id);
    const image = await slide.image();
    if (signal.aborted) return;
    const here = await this.#present(slide.name, (stage) => stage.openPyramid(image, slide.size));
    if (!here) return;
    this.subject = slide;
    address(id);
    this.#parts.slides.current = id;
    await this.#results();
    if (slide !== this.subject) return; // another one is in view: its card must not offer work on this one
    this.#parts.attempt(() => this.#parts.slides.list());
    this.#parts.jobs.offer(slide, readWishes);
  }

  async #find(id) {
    try {
      return await Slide.find(id);
    } catch (error) {
      if (error.status === 404) this.#parts.attempt(() => this.#parts.slides.list()); // it is not there any more
      throw error;
    }
  }

  /** Put an image on the stage; resolves to whether it is still the one in view. */
  async #present(name, open) {
    const scene = ++this.#scene;
    this.#clear();
    $("welcome").hidden = true;
    $("toolbar").hidden = false;
    $("subject").textContent = name;
    for (const scrolled of [window, $("panel")]) scrolled.scrollTo(0, 0); // where the results will be
    await open(this.#parts.stage);
    return scene === this.#scene;
  }

  /** Leave what is in view. */
  #clear() {
    this.#parts.jobs.leave();
    clearResults();
    forget(this.#picture);
    this.subject = this.#picture = null;
    for (const id of ["scalebar", "again"]) $(id).hidden = true;
  }

  #tell({ summary, qc, space, provenance }) {
    if (summary) {
      this.#parts.classes.show(summary);
      showBurden(summary);
    }
    if (qc) showQuality(qc);
    showOrigin(space, provenance);
    if (summary) showSaves(this.subject.saves(), this.subject.name, this.#parts.attempt);
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
    const version = ++this.#version;
    const overlay = await slide.overlay(this.#parts.palette, version);
    if (slide === this.subject && version === this.#version) this.#parts.stage.overlay(overlay);
  }

  /** Results of the slide in view may have changed. */
  async progressed(finished) {
    const slide = this.subject;
    if (slide?.kind !== "slide") return;
    if (!finished && Date.now() - this.#refreshed < REFRESH_MS) return;
    this.#refreshed = Date.now();
    if (!(await this.#refresh(slide)) || slide !== this.subject) return;
    await this.#results();
    if (finished && slide === this.subject) this.#parts.jobs.offer(slide, readWishes);
    await this.#recount();
    if (finished) await this.#parts.slides.list();
  }

  /** Ask for a slide again; false if it is not there any more, which is said. */
  async #refresh(slide) {
    try {
      await slide.refresh();
      return true;
    } catch (error) {
      if (error.status !== 404) throw error;
      this.gone(slide.id);
      complain({ title: "Slide deleted", message: `${slide.name} was deleted meanwhile` });
      await this.#parts.slides.list();
      return false;
    }
  }

  /** Classes were switched. */
  async classesChanged() {
    this.#parts.stage.refresh();
    if (this.subject?.kind === "slide" && this.subject.entry.model) await this.#lay(this.subject);
  }

  /** Analyse the picture in view again, as the reader wishes now. */
  async again() {
    if (this.#picture) await this.#analyse(this.#picture, this.#begin());
  }

  /** The service is back, or the key has changed. */
  async recover() {
    this.#parts.stage.reload();
    takeUp();
    await this.#parts.slides.list();
  }

  /** A slide was deleted. */
  gone(id) {
    if (this.subject?.kind !== "slide" || this.subject.id !== id) return;
    this.#begin();
    this.#clear();
    this.#scene += 1;
    this.#parts.stage.close();
    $("toolbar").hidden = true;
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
    if (!one) return;
    showNucleus(one, this.#parts.palette, () => this.select(null));
    bring($("nucleus"));
  }

  /** Tell what lies in a polygon. */
  async count(polygon) {
    const { subject } = this;
    if (!subject) return;
    showCounting(() => this.dropRegion());
    await this.#count(subject, polygon).catch((problem) => {
      if (this.#parts.stage.shape === polygon) this.dropRegion();
      throw problem;
    });
    if (this.#parts.stage.shape === polygon) bring($("region"));
  }

  async #count(subject, polygon) {
    const found = await subject.composition(polygon, this.#parts.palette);
    if (this.#parts.stage.shape !== polygon) return;
    showRegion(found, this.#parts.palette, () => this.dropRegion(), this.#actions(polygon));
  }

  /** Count the region again that is shown: there may be more in it now. */
  async #recount() {
    const { regions, stage } = this.#parts;
    if (stage.shape && !regions.drawing) await this.#count(this.subject, stage.shape);
  }

  #actions(polygon) {
    const { jobs } = this.#parts;
    const slide = this.subject;
    if (slide.kind !== "slide" || slide.entry.origin === "tiles") return [];
    return [jobs.button("start-region", "Analyse this region", () => jobs.start(slide, readWishes(), boxOf(polygon)))];
  }

  /** Show no region any more. */
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
