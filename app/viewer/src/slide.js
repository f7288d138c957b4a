// How does the page see a slide that the service keeps? Its pyramids, its summary, nuclei of a viewport.

import { address, ask, askJson, sendJson } from "./api.js";
import { Outlines } from "./outlines.js";
import { percent } from "./words.js";

const OpenSeadragon = window.OpenSeadragon;
const FORMS = [
  ["GeoJSON for QuPath", ".geojson", "geojson"],
  ["CSV table", ".csv", "csv"],
  ["hover_net JSON", ".json", "hovernet"],
  ["GeoParquet", ".parquet", "parquet"],
];
const DICOM = [
  ["DICOM annotations", ".dcm", "dicom-ann"],
  ["DICOM segmentation", ".dcm", "dicom-seg"],
  ["DICOM report", ".dcm", "dicom-sr"],
];

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

  get path() {
    return `v1/slides/${encodeURIComponent(this.id)}`;
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

  /** What coordinates mean, as answers for single images say it. */
  get space() {
    return this.entry;
  }

  /** Ask for it again: results, jobs and scale change. */
  async refresh() {
    this.entry = await askJson(this.path);
  }

  /** Say how large a pixel is. */
  async rescale(mpp) {
    this.entry = await sendJson(this.path, { mpp }, "PATCH");
  }

  /** The pyramid of its pixels; a blank one where only tiles came. */
  async image() {
    return this.entry.origin === "tiles" ? blank(this.size) : pyramid(`${this.path}/image`);
  }

  /** The pyramid of outlines of what the palette shows; another `version` is another one. */
  async overlay(palette, version) {
    const query = palette.complete ? "" : `?${new URLSearchParams({ classes: palette.shown.join(",") })}`;
    return pyramid(`${this.path}/overlay`, query, version);
  }

  /** Counts, technical check and provenance of all that was analysed. */
  async results() {
    const summary = await askJson(`${this.path}/summary`);
    return { summary, qc: summary.qc, provenance: summary.provenance, space: summary.coordinate_space };
  }

  /** What lies in a polygon, as the service counts it. */
  async composition(polygon) {
    const region = polygon.flat().map((value) => value.toFixed(1)).join(",");
    const found = await askJson(`${this.path}/summary?${new URLSearchParams({ region })}`);
    const covered = found.region?.area_mm2 ? found.area_mm2 / found.region.area_mm2 : 1;
    const partly = covered < 0.995 ? ` Only ${percent(covered)} of the region is analysed; the area is that part's.` : "";
    const note = `Nuclei whose centre lies inside, counted by the service; 95 % intervals in brackets.${partly}`;
    return { total: found.total, counts: found.counts, shares: found.composition, mm2: found.area_mm2, burden: found.tumour_burden, note };
  }

  /** Forms in which the results can be saved. */
  saves() {
    const forms = this.entry.format === "dicom" ? [...FORMS, ...DICOM] : FORMS;
    return forms.map(([label, ending, format]) => {
      const path = `${this.path}/export?format=${format}`;
      return { label, ending, path, fetch: () => ask(path) };
    });
  }

  async nucleusAt(x, y, reach, palette) {
    const box = [x - reach, y - reach, x + reach, y + reach].map((value) => value.toFixed(2));
    const query = new URLSearchParams({ bbox: box.join(","), classes: palette.shown.join(",") });
    const found = await askJson(`${this.path}/nuclei?${query}`);
    return new Outlines(found.features).at(x, y, reach, palette);
  }
}

/** What to call a slide: the name that this tab uploaded it under, else that of its path, else its format and id. */
export function slideName(entry) {
  const given = sessionStorage.getItem(`karyon-name-${entry.id}`) ?? entry.path?.split("/").pop();
  return given ?? `${entry.format ?? "slide"} ${entry.id.slice(0, 6)}`;
}

/** The service keeps no file names, which may name patients; this tab may. */
export const rememberName = (id, name) => sessionStorage.setItem(`karyon-name-${id}`, name);

async function pyramid(path, query = "", version = 0) {
  const text = await (await ask(`${path}.dzi${query}`)).text();
  const root = new DOMParser().parseFromString(text, "application/xml").documentElement;
  const size = root.getElementsByTagName("Size")[0];
  const [width, height] = ["Width", "Height"].map((side) => Number(size.getAttribute(side)));
  const [tileSize, overlap] = ["TileSize", "Overlap"].map((name) => Number(root.getAttribute(name)));
  const files = address(`${path}_files/`);
  const source = new OpenSeadragon.DziTileSource(width, height, tileSize, overlap, files, root.getAttribute("Format"));
  source.queryParams = query;
  const hash = source.getTileHashKey.bind(source);
  source.getTileHashKey = (...place) => `${version} ${hash(...place)}`;
  return source;
}

/** A ground to lay outlines on, of the slide's size. */
function blank([width, height]) {
  return new OpenSeadragon.TileSource({
    width,
    height,
    tileSize: 256,
    tileOverlap: 0,
    minLevel: 0,
    maxLevel: 0,
    getTileUrl: () => "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAAC",
  });
}
