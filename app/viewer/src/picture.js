// How is a dropped image analysed without a slide? One request; outlines and counts come back with it.

import { ask, Problem } from "./api.js";
import { area, crossesItself, Outlines } from "./outlines.js";

const SHOWN = new Set(["image/png", "image/jpeg"]); // what both the service reads and every browser shows
const FORMS = [
  ["GeoJSON for QuPath", ".geojson", "application/geo+json"],
  ["CSV table", ".csv", "text/csv"],
  ["hover_net JSON", ".json", "application/vnd.hovernet+json"],
  ["Outlines as PNG", ".png", "image/png"],
];
const CROSSED = { title: "No region", detail: "The border of the region crosses itself: draw it anew." };
const COUNTED = "Nuclei whose centre lies inside, counted by this page from the service's answer.";

/** A file as `{file, url, size}` if one request takes it; null if it must go the slide's way. */
export async function measure(file, limits) {
  if (!SHOWN.has(file.type) || file.size > limits.max_bytes) return null;
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const size = [image.naturalWidth, image.naturalHeight];
    if (size[0] * size[1] <= limits.max_pixels) return { file, url, size };
  } catch {
    URL.revokeObjectURL(url); // broken, or not what its name says: the service will say what is wrong with it
    return { file, url: null, size: null };
  }
  URL.revokeObjectURL(url);
  return null;
}

/** Let go of what `measure` gave. */
export function forget(picture) {
  if (picture) URL.revokeObjectURL(picture.url);
}

function send(file, wishes, type, signal) {
  const query = new URLSearchParams(Object.entries(wishes).filter(([, value]) => value));
  const headers = { "Content-Type": file.type, Accept: type };
  return ask(`v1/segment?${query}`, { method: "POST", body: file, headers, signal });
}

/** A picture with its nuclei. */
export class Picture {
  kind = "picture";

  constructor(file, wishes, answer) {
    this.wishes = wishes;
    this.file = file;
    this.name = file.name;
    this.space = answer.coordinate_space;
    this.summary = answer.summary;
    this.qc = answer.qc;
    this.provenance = answer.provenance;
    this.outlines = new Outlines(answer.features);
  }

  /** Send a file to be analysed. */
  static async analyse(file, wishes, signal) {
    const answer = await send(file, wishes, "application/geo+json", signal);
    return new Picture(file, wishes, await answer.json());
  }

  /** Forms in which the results can be saved: label, file ending, and how to get them. */
  saves() {
    return FORMS.map(([label, ending, type]) => ({ label, ending, fetch: () => send(this.file, this.wishes, type) }));
  }

  get size() {
    return [this.space.width, this.space.height];
  }

  get umPerPixel() {
    return this.space.mpp_x;
  }

  async nucleusAt(x, y, reach, palette) {
    return this.outlines.at(x, y, reach, palette);
  }

  async composition(polygon, palette) {
    if (crossesItself(polygon)) throw new Problem(422, CROSSED);
    const { total, counts } = this.outlines.countIn(polygon, palette.names);
    const mm2 = (area(polygon) * this.space.mpp_x * this.space.mpp_y) / 1e6;
    return { total, counts, mm2, note: COUNTED };
  }
}
