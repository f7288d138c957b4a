// What do figures and codes read like?

const WHOLE = new Intl.NumberFormat("en");

/** 12345 as 12,345. */
export const whole = (value) => WHOLE.format(value);

/** A figure with about three digits that count. */
export function about(value) {
  return new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(value);
}

/** .934 as 93 %. */
export const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${new Intl.NumberFormat("en", { maximumFractionDigits: share < 0.1 ? 1 : 0 }).format(100 * share)} %`);

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${about(seconds / 3600)} h`;
}

/** Bytes as people say them. */
export function bytes(count) {
  const steps = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
  const [size, unit] = steps.find(([step]) => count >= step) ?? [1, "bytes"];
  return `${about(count / size)} ${unit}`;
}

const SOURCES = {
  request: "as you said",
  file: "from the file",
  "model-default": "assumed: the model's own",
};

/** Where the scale comes from. */
export const scaleSource = (source) => SOURCES[source] ?? source;

const CODES = {
  no_tissue: "There is hardly any tissue in this image.",
  no_nuclei_in_tissue: "There is tissue, but no nucleus was found in it.",
  out_of_focus: "The image is out of focus; outlines and classes suffer.",
  too_bright: "The tissue is very bright.",
  too_dark: "The image is very dark.",
  saturated: "Many pixels are clipped to pure black or white.",
  pen_mark: "There seem to be pen marks.",
  stain_shift: "The stain is unlike the H&E that the model learnt from; classes may be wrong.",
  mpp_implausible: "The nuclei have an implausible size: the scale may be wrong.",
  mpp_assumed: "Nobody said the scale, so the model's own was assumed; areas and densities rest on it.",
  mpp_conflict: "The file states another scale than you did; yours was used.",
  ensemble_disagreement: "Networks or views of the model disagree on what is nucleus more than usual.",
};

/** What a technical code means. */
export const meaning = (code) => CODES[code] ?? code.replaceAll("_", " ");

const VERDICTS = { pass: "passed", warn: "warnings", fail: "failed" };

/** What a verdict of the technical check means. */
export const verdictWord = (verdict) => VERDICTS[verdict] ?? verdict;
