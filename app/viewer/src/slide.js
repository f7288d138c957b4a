// How does the page see a slide that the service keeps? Its pyramids, its summary, nuclei of a viewport.

import { address, ask, askJson } from "./api.js";
import { area, nucleus } from "./outlines.js";

const OpenSeadragon = window.OpenSeadragon;

/** A slide, as the service describes it. */
export class Slide {
  kind = "slide";

  constructor(entry) {
    this.entry = entry;
    this.id = entry.id;
  }

  static async find(id) {
    return new Slide(await askJson(`v1/slides/${encodeURIComponent(id)}`));
  }

  get name() {
    return slideName(this.entry);
  }

  get size() {
    return [this.entry.width, this.entry.height];
  }

  get umPerPixel() {
    return this.entry.mpp_x;
  }

  get readable() {
    return this.entry.origin !== "tiles";
  }

  /** The pyramid of its pixels; a blank one where the service has none. */
  async image() {
    return this.readable ? pyramid(`v1/slides/${this.id}/image`, "image") : blank(this.size);
  }

  /** The pyramid of outlines; `version` differs when results changed. */
  async overlay(classes, version) {
    const query = new URLSearchParams({ ...(classes && { classes: classes.join(",") }) }).toString();
    return pyramid(`v1/slides/${this.id}/overlay`, "overlay", query, version);
  }

  async results() {
    return askJson(`v1/slides/${this.id}/summary`);
  }

  async nucleusAt(x, y, reach, palette) {
    const box = [x - reach, y - reach, x + reach, y + reach].map((value) => Math.round(value * 100) / 100);
    const found = await askJson(`v1/slides/${this.id}/nuclei?bbox=${box.join(",")}`);
    const { Outlines } = await import("./outlines.js");
    return new Outlines(found.features).at(x, y, reach, palette);
  }
}

/** What to call a slide: the name that this tab uploaded it under, else its format and date. */
export function slideName(entry) {
  const given = sessionStorage.getItem(`karyon-name-${entry.id}`) ?? entry.path?.split("/").pop();
  return given ?? `${entry.format ?? "slide"} ${entry.id.slice(0, 6)}`;
}

export const rememberName = (id, name) => sessionStorage.setItem(`karyon-name-${id}`, name);

async function pyramid(path, kind, query = "", version = 0) {
  const text = await (await ask(`${path}.dzi${query && `?${query}`}`)).text();
  const root = new DOMParser().parseFromString(text, "application/xml").documentElement;
  const size = root.getElementsByTagName("Size")[0];
  const [width, height] = ["Width", "Height"].map((side) => Number(size.getAttribute(side)));
  const [tileSize, overlap] = ["TileSize", "Overlap"].map((name) => Number(root.getAttribute(name)));
  const source = new OpenSeadragon.DziTileSource(width, height, tileSize, overlap, address(`${path}_files/`), root.getAttribute("Format"));
  source.queryParams = query && `?${query}`;
  const hash = source.getTileHashKey.bind(source);
  source.getTileHashKey = (...place) => `${kind} ${version} ${query} ${hash(...place)}`; // an older overlay is another one
  return source;
}

function blank([width, height]) {
  return { width, height, tileSize: 512, tileOverlap: 0, minLevel: 99, maxLevel: 0, getTileUrl: () => "" };
}

export { area, nucleus };
