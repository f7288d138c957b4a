// What happens when? The only module that knows all parts of the page.

import { Problem, Unreachable, askJson } from "./api.js";
import { Classes } from "./classes.js";
import { askForKey, showShortcuts } from "./dialogs.js";
import { $ } from "./dom.js";
import { acceptDrops } from "./drop.js";
import { listen } from "./keys.js";
import { clearMessages, complain } from "./messages.js";
import { showNucleus } from "./nucleus.js";
import { Palette } from "./palette.js";
import { Picture, measure } from "./picture.js";
import { showCounting, showRegion } from "./regionpanel.js";
import { Regions } from "./regions.js";
import { clearResults, showBurden, showOrigin, showQuality } from "./results.js";
import { drawScale } from "./scalebar.js";
import { Stage } from "./stage.js";
import { Status } from "./status.js";
import { listModels, readWishes, showWishes } from "./wishes.js";

const REACH = 8; // CSS pixels around a nucleus that still count as a hit
const config = await configured();
const palette = new Palette(config);
const stage = new Stage($("canvas"), palette);
const classes = new Classes($("nuclei"), palette, () => stage.refresh());
const regions = new Regions(stage, $("canvas"), (polygon) => attempt(() => count(polygon)));
const status = new Status($("status"), () => attempt(recover));
let subject = null;
let asked = null; // aborts what is under way for a former image

async function configured() {
  for (;;) {
    try {
      return await askJson("viewer/config.json");
    } catch {
      $("status").dataset.state = "lost";
      $("status").textContent = "service unreachable, retrying";
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }
}

/** Do something; say what went wrong, and offer to do it again. */
async function attempt(task) {
  try {
    return await task();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    $("working").hidden = true;
    if (error instanceof Unreachable) status.lost();
    else if (!(error instanceof Problem)) console.error(error);
    if (error.status === 401 && (await askForKey())) return attempt(task);
    complain(error, () => attempt(task));
    return undefined;
  }
}

function working(text) {
  $("working").textContent = text ?? "";
  $("working").hidden = !text;
}

/** Leave the former image behind. */
function begin() {
  asked?.abort();
  asked = new AbortController();
  regions.cancel();
  clearMessages();
  return asked.signal;
}

async function open(file) {
  const signal = begin();
  const picture = await measure(file, config.limits);
  if (!picture) throw new Problem(415, { title: "Not shown here yet", detail: "this file is no PNG or JPEG within the limits" });
  await attempt(() => analyse(file, picture, signal));
}

async function analyse(file, { url, size }, signal) {
  if (size) await present(url, size, file.name);
  working("finding nuclei …");
  await status.ready();
  const result = await Picture.analyse(file, url, readWishes(), signal);
  if (signal.aborted) return;
  working();
  subject?.close?.();
  subject = result;
  stage.outlines = result.outlines;
  $("again").hidden = false;
  tell(result.summary, result.qc, result.space, result.provenance);
}

async function again() {
  if (subject?.kind === "picture") await open(subject.file);
}

async function present(url, size, name) {
  clearResults();
  $("welcome").hidden = true;
  $("toolbar").hidden = false;
  $("subject").textContent = name;
  await stage.openPicture(url, size);
}

function tell(summary, qc, space, provenance) {
  classes.show(summary);
  showBurden(summary);
  showQuality(qc);
  showOrigin(space, provenance);
  stage.refresh();
}

async function point(x, y) {
  if (!subject) return;
  const found = await subject.nucleusAt(x, y, REACH / stage.scale, palette);
  select(found);
}

function select(one) {
  stage.selected = one;
  stage.refresh();
  $("nucleus").hidden = true;
  if (one) showNucleus(one, palette, () => select(null));
}

async function count(polygon) {
  if (!subject) return;
  showCounting(dropRegion);
  const found = await subject.composition(polygon, palette);
  if (stage.shape !== polygon) return; // another region by now
  showRegion(found, palette, dropRegion);
}

function dropRegion() {
  stage.shape = null;
  stage.refresh();
  $("region").hidden = true;
}

function moved() {
  drawScale($("scalebar"), subject?.umPerPixel, stage.size && stage.scale);
}

async function recover() {
  stage.reload();
}

function escape() {
  if (regions.drawing) regions.cancel();
  else if (stage.selected) select(null);
  else if (stage.shape) dropRegion();
}

let former = 1;
function toggleOutlines() {
  if (stage.opacity > 0) former = stage.opacity;
  setOpacity(stage.opacity > 0 ? 0 : former);
}

function setOpacity(value) {
  stage.opacity = Math.min(1, Math.max(0, value));
  $("opacity").value = Math.round(100 * stage.opacity);
}

const press = (action) => () => {
  if (!stage.size) return false;
  return action();
};

stage.onMove = moved;
stage.onClick = (x, y) => attempt(() => point(x, y));
$("opacity").addEventListener("input", (event) => setOpacity(event.target.value / 100));
const clicks = {
  "zoom-in": () => stage.zoomBy(1.5),
  "zoom-out": () => stage.zoomBy(1 / 1.5),
  home: () => stage.home(),
  "draw-rectangle": () => regions.begin("rectangle"),
  "draw-polygon": () => regions.begin("polygon"),
  "region-view": () => regions.takeView(),
  help: showShortcuts,
  key: async () => (await askForKey()) && attempt(recover),
  open: () => $("file").click(),
  choose: () => $("file").click(),
};
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
acceptDrops($("stage"), $("veil"), $("file"), (file) => attempt(() => open(file)));
listen({
  "+": press(clicks["zoom-in"]),
  "=": press(clicks["zoom-in"]),
  "-": press(clicks["zoom-out"]),
  0: press(clicks.home),
  ArrowLeft: press(() => stage.pan(-0.15, 0)),
  ArrowRight: press(() => stage.pan(0.15, 0)),
  ArrowUp: press(() => stage.pan(0, -0.15)),
  ArrowDown: press(() => stage.pan(0, 0.15)),
  ...Object.fromEntries(palette.names.map((name, i) => [String(i + 1), press(() => classes.toggle(name))])),
  a: press(() => classes.toggle()),
  o: press(toggleOutlines),
  "[": press(() => setOpacity(stage.opacity - 0.1)),
  "]": press(() => setOpacity(stage.opacity + 0.1)),
  r: press(clicks["draw-rectangle"]),
  p: press(clicks["draw-polygon"]),
  v: press(clicks["region-view"]),
  Enter: press(() => (regions.drawing ? regions.finish() : attempt(() => point(...stage.middle)))),
  Escape: escape,
  u: clicks.open,
  "?": showShortcuts,
});
$("notice").textContent = config.notice;
showWishes($("settings"), config, () => attempt(again));
attempt(listModels);
