// What does the reader see, and where is it? OpenSeadragon for pixels, one canvas above it for lines.

import { key, keyHeaders } from "./api.js";
import { highlight } from "./outlines.js";

const OpenSeadragon = window.OpenSeadragon;
const LINE = 1.8; // CSS pixels
const CLOSE = 2; // image pixels: a wider outline hides small nuclei, so lines grow thinner from afar
const FAINT = 0.6; // CSS pixels, but not thinner than this
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** The image, its overlay pyramid, and lines over both. */
export class Stage {
  #viewer;
  #canvas;
  #element;
  #overlays = []; // the one in view, and the one that is still loaded to replace it
  #failed = new Map(); // tiles that did not come: the tiled image of each
  #redraw = 0;
  #opacity = 1;

  outlines = null; // of a dropped image
  selected = null; // a nucleus
  shape = null; // a polygon being drawn, or the region
  size = null; // [width, height] of the image

  constructor(element, palette) {
    this.#element = element;
    this.palette = palette;
    this.#viewer = OpenSeadragon({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      animationTime: calm.matches ? 0 : 0.4,
      blendTime: 0,
      visibilityRatio: 0.4,
      minZoomImageRatio: 0.6,
      maxZoomPixelRatio: 16,
      tileRetryMax: 2,
      tileRetryDelay: 1500,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
    });
    this.#canvas = document.createElement("canvas");
    this.#canvas.className = "lines";
    this.#canvas.setAttribute("aria-hidden", "true");
    element.append(this.#canvas);
    this.#viewer.navigator.element.hidden = true;
    this.#viewer.canvas.tabIndex = -1; // the element around it takes the focus
    this.#viewer.addHandler("update-viewport", () => this.refresh());
    this.#viewer.addHandler("canvas-key", (event) => (event.preventDefaultAction = true)); // see keys.js
    this.#viewer.addHandler("canvas-click", (event) => {
      if (event.quick && this.size) this.onClick(...this.toImage(event.position));
    });
    for (const viewer of [this.#viewer, this.#viewer.navigator]) {
      viewer.addHandler("tile-load-failed", ({ tile, tiledImage }) => {
        this.#failed.set(tile, tiledImage);
        this.onTileFailed();
      });
    }
    new ResizeObserver(() => this.refresh()).observe(element);
  }

  onClick = () => {};
  onMove = () => {};
  onTileFailed = () => {};

  /** Show an image that the browser has. */
  openPicture(url, size) {
    return this.#open({ type: "image", url, buildPyramid: false }, size, false);
  }

  /** Show a slide of the service; null if it has no pixels to show. */
  openPyramid(source, size) {
    return this.#open(source, size, true);
  }

  #open(source, size, large) {
    this.#empty();
    this.size = size;
    this.#viewer.navigator.element.hidden = !large;
    this.#authorise(large);
    return new Promise((resolve, reject) => {
      this.#viewer.addOnceHandler("open", () => {
        this.#viewer.viewport.goHome(true);
        this.#viewer.navigator.updateSize(); // it had none while it was hidden
        resolve();
      });
      this.#viewer.addOnceHandler("open-failed", (event) => reject(new Error(event.message)));
      this.#viewer.open(source);
    });
  }

  #empty() {
    this.size = this.outlines = this.selected = this.shape = null;
    this.#overlays = [];
    this.#failed.clear();
  }

  #authorise(large) {
    this.#viewer.loadTilesWithAjax = large; // tiles then carry the key; a picture of the browser's needs none
    this.#viewer.setAjaxHeaders(large && key.get() ? keyHeaders() : {}, true);
  }

  /** Show a picture's outlines; what was selected or drawn among others is gone with them. */
  show(outlines) {
    this.outlines = outlines;
    this.selected = this.shape = null;
    this.refresh();
  }

  /** Lay a pyramid of outlines over the image; the one in view stays until the new one is complete. */
  overlay(source) {
    this.#viewer.addTiledImage({
      tileSource: source,
      opacity: this.#opacity,
      loadTilesWithAjax: true,
      ajaxHeaders: keyHeaders(),
      success: ({ item }) => this.#replace(item),
    });
  }

  #replace(item) {
    const [shown, ...late] = this.#overlays;
    for (const other of late) this.#viewer.world.removeItem(other); // newer outlines came before it was complete
    this.#overlays = shown ? [shown, item] : [item];
    if (this.#opacity === 0) this.#settle();
    else item.addOnceHandler("fully-loaded-change", () => this.#overlays.at(-1) === item && this.#settle());
  }

  /** Leave nothing but the newest outlines. */
  #settle() {
    const newest = this.#overlays.pop();
    for (const other of this.#overlays) this.#viewer.world.removeItem(other);
    this.#overlays = newest ? [newest] : [];
  }

  /** Show nothing. */
  close() {
    this.#empty();
    this.#viewer.close();
    this.#viewer.navigator.element.hidden = true;
    this.refresh();
  }

  /** Load again what failed while the service was away. */
  reload() {
    this.#authorise(this.#viewer.loadTilesWithAjax);
    for (const tile of this.#failed.keys()) tile.exists = true; // OpenSeadragon asks only once for what does not exist
    const items = new Set(this.#failed.values());
    for (const item of items) if (item.viewer.world.getIndexOfItem(item) >= 0) item.reset();
    this.#failed.clear();
    this.refresh();
  }

  /** Strength of all outlines, 0 to 1. */
  set opacity(value) {
    this.#opacity = value;
    for (const item of this.#overlays) item.setOpacity(value);
    if (value === 0) this.#settle(); // what is hidden is not loaded, so it would never be complete
    this.refresh();
  }

  get opacity() {
    return this.#opacity;
  }

  /** Image coordinates of a point of the element, in CSS pixels. */
  toImage({ x, y }) {
    const { viewport } = this.#viewer;
    const point = viewport.pointFromPixel(new OpenSeadragon.Point(x, y), true); // in image widths, also along y
    return [point.x * this.size[0], point.y * this.size[0]];
  }

  /** CSS pixels per image pixel. */
  get scale() {
    const { viewport } = this.#viewer;
    return (viewport.getZoom(true) * viewport.getContainerSize().x) / this.size[0];
  }

  /** What is in view: [x0, y0, x1, y1] in image pixels, within the image. */
  get view() {
    const [x0, y0] = this.toImage({ x: 0, y: 0 });
    const [x1, y1] = this.toImage({ x: this.#element.clientWidth, y: this.#element.clientHeight });
    const [width, height] = this.size;
    return [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)];
  }

  /** Image coordinates of the middle of the view. */
  get middle() {
    return this.toImage({ x: this.#element.clientWidth / 2, y: this.#element.clientHeight / 2 });
  }

  zoomBy(factor) {
    this.#viewer.viewport?.zoomBy(factor).applyConstraints();
  }

  /** Move the view by a share of its width and height. */
  pan(x, y) {
    const { width, height } = this.#viewer.viewport.getBounds();
    this.#viewer.viewport.panBy(new OpenSeadragon.Point(x * width, y * height)).applyConstraints();
  }

  home() {
    this.#viewer.viewport?.goHome();
  }

  /** Whether dragging moves the image. */
  set navigable(on) {
    this.#viewer.setMouseNavEnabled(on);
  }

  /** Draw the lines again with the next frame. */
  refresh() {
    cancelAnimationFrame(this.#redraw);
    this.#redraw = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const context = this.#canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.#element.clientWidth, this.#element.clientHeight];
    if (this.#canvas.width !== Math.round(width * ratio) || this.#canvas.height !== Math.round(height * ratio)) {
      this.#canvas.width = Math.round(width * ratio);
      this.#canvas.height = Math.round(height * ratio);
      Object.assign(this.#canvas.style, { width: `${width}px`, height: `${height}px` });
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (!this.size || !this.#viewer.world.getItemCount()) return;
    const scale = this.scale;
    const [x, y] = this.toImage({ x: 0, y: 0 });
    context.setTransform(ratio * scale, 0, 0, ratio * scale, -x * ratio * scale, -y * ratio * scale);
    context.lineJoin = "round";
    this.#drawLines(context, [x, y, x + width / scale, y + height / scale], scale);
    this.onMove();
  }

  #drawLines(context, box, scale) {
    const width = LINE / scale;
    context.globalAlpha = this.#opacity;
    this.outlines?.draw(context, this.palette, box, Math.min(width, Math.max(CLOSE, FAINT / scale)));
    context.globalAlpha = 1;
    if (this.shape?.length) drawShape(context, this.shape, width);
    if (this.selected) highlight(context, this.selected, this.palette, width);
  }
}

function drawShape(context, polygon, width) {
  context.beginPath();
  for (const point of polygon) context.lineTo(...point);
  context.closePath();
  context.fillStyle = "rgb(255 255 255 / .12)";
  context.fill();
  context.lineWidth = 3.2 * width;
  context.strokeStyle = "rgb(0 0 0 / .75)";
  context.stroke();
  context.lineWidth = 1.6 * width;
  context.strokeStyle = "white";
  context.setLineDash([6 * width, 4 * width]);
  context.stroke();
  context.setLineDash([]);
}
