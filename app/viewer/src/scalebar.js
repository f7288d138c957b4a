// How long is a micrometre on this screen?

import { whole } from "./words.js";

const LONGEST = 130; // CSS pixels
const STEPS = [1, 2, 5];

/** Show a bar of a round length; hide it where the scale is not known. */
export function drawScale(element, umPerPixel, scale) {
  element.hidden = !umPerPixel || !Number.isFinite(scale);
  if (element.hidden) return;
  const most = (LONGEST / scale) * umPerPixel;
  const power = 10 ** Math.floor(Math.log10(most));
  const um = power * (STEPS.findLast((step) => step * power <= most) ?? 1);
  const bar = element.firstElementChild;
  bar.style.width = `${(um / umPerPixel) * scale}px`;
  bar.textContent = um >= 1000 ? `${um / 1000} mm` : `${um < 1 ? um.toPrecision(1) : whole(um)} µm`;
}
