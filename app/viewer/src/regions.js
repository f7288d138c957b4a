// Which part of the image does the reader mean? A rectangle or polygon drawn by pointer, or what is in view.

import { $ } from "./dom.js";

const HINTS = {
  rectangle: "Drag a rectangle. Esc cancels.",
  polygon: "Click the corners; the first one again, a double-click or Enter closes. Esc cancels.",
};
const TOUCH_HINTS = {
  rectangle: "Drag a rectangle. The button cancels.",
  polygon: "Tap the corners, then the first one again. The button cancels.",
};
const touch = matchMedia("(pointer: coarse)");
const NEAR = 10; // CSS pixels around the first corner that close a polygon

/** Draws on the stage; `onRegion` gets the finished polygon, image pixels, open; `onBegin` is called before one is drawn. */
export class Regions {
  #stage;
  #element;
  #tool = null;
  #points = [];

  constructor(stage, element, onRegion, onBegin) {
    this.#stage = stage;
    this.#element = element;
    this.onRegion = onRegion;
    this.onBegin = onBegin;
    for (const kind of ["pointerdown", "pointermove", "pointerup", "dblclick"]) {
      element.addEventListener(kind, (event) => this.#tool && this.#on(kind, event), true);
    }
  }

  get drawing() {
    return this.#tool !== null;
  }

  /** Take a tool up, or put it down if it is up already. */
  begin(tool) {
    const again = this.#tool === tool;
    this.cancel();
    if (again || !this.#stage.size) return;
    this.onBegin(); // the former region goes, and what is said of it
    this.#use(tool);
  }

  /** Put the tool down; nothing is drawn. */
  cancel() {
    if (!this.#tool) return;
    this.#stage.shape = null;
    this.#use(null);
    this.#stage.refresh();
  }

  /** Close the polygon with the corners there are. */
  finish() {
    const polygon = this.#points.map((point) => this.#within(point));
    const enough = this.#tool === "rectangle" ? 4 : 3;
    if (!this.#tool || polygon.length < enough) return;
    this.#use(null);
    this.#done(polygon);
  }

  /** The part of the image that is in view. */
  takeView() {
    if (!this.#stage.size) return;
    this.cancel();
    const [x0, y0, x1, y1] = this.#stage.view;
    this.#done([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
  }

  #use(tool) {
    this.#tool = tool;
    this.#points = [];
    this.#stage.navigable = tool === null;
    this.#element.classList.toggle("drawing", tool !== null);
    for (const name of ["rectangle", "polygon"]) $(`draw-${name}`).setAttribute("aria-pressed", String(tool === name));
    $("drawing-hint").hidden = tool === null;
    $("drawing-hint").textContent = (touch.matches ? TOUCH_HINTS : HINTS)[tool] ?? "";
  }

  #done(polygon) {
    this.#stage.shape = polygon;
    this.#stage.refresh();
    this.onRegion(polygon);
  }

  #on(kind, event) {
    event.preventDefault();
    event.stopPropagation();
    const point = this.#point(event);
    if (this.#tool === "rectangle") this.#rectangle(kind, point, event);
    else this.#polygon(kind, point);
  }

  #rectangle(kind, [x, y], event) {
    if (kind === "pointerdown") {
      this.#element.setPointerCapture(event.pointerId);
      this.#points = [[x, y]];
    }
    if (!this.#points.length) return;
    const [x0, y0] = this.#points[0];
    this.#stage.shape = [[x0, y0], [x, y0], [x, y], [x0, y]].map((point) => this.#within(point));
    this.#stage.refresh();
    if (kind !== "pointerup") return;
    if (Math.hypot(x - x0, y - y0) * this.#stage.scale < 4) this.#points = []; // a click is no rectangle
    else {
      this.#points = this.#stage.shape;
      this.finish();
    }
  }

  #polygon(kind, point) {
    if (kind === "dblclick") return this.finish();
    const first = this.#points[0];
    const closes = first && this.#points.length > 2 && this.#distance(point, first) < NEAR;
    if (kind === "pointerup") {
      if (closes) return this.finish();
      const last = this.#points.at(-1);
      if (!last || this.#distance(point, last) > 3) this.#points.push(point); // the second click of a double-click adds none
    }
    this.#stage.shape = [...this.#points, ...(kind === "pointermove" && this.#points.length ? [point] : [])];
    this.#stage.refresh();
  }

  #distance([x0, y0], [x1, y1]) {
    return Math.hypot(x1 - x0, y1 - y0) * this.#stage.scale;
  }

  #point(event) {
    const { left, top } = this.#element.getBoundingClientRect();
    return this.#stage.toImage({ x: event.clientX - left, y: event.clientY - top });
  }

  #within([x, y]) {
    const [width, height] = this.#stage.size;
    return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
  }
}

/** The whole pixels around a polygon: what a job takes as its region. */
export function boxOf(polygon) {
  const [xs, ys] = [polygon.map(([x]) => x), polygon.map(([, y]) => y)];
  return [Math.floor(Math.min(...xs)), Math.floor(Math.min(...ys)), Math.ceil(Math.max(...xs)), Math.ceil(Math.max(...ys))];
}
