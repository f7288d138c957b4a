// What happens when? Puts the parts of the page together and listens to mouse and keys.

import { askJson, Broken, Problem, Unreachable } from "./api.js";
import { Classes } from "./classes.js";
import { askForKey, showShortcuts } from "./dialogs.js";
import { $ } from "./dom.js";
import { acceptDrops } from "./drop.js";
import { Jobs } from "./jobs.js";
import { listen } from "./keys.js";
import { complain } from "./messages.js";
import { Palette } from "./palette.js";
import { Regions } from "./regions.js";
import { Session, working } from "./session.js";
import { Slides } from "./slides.js";
import { Stage } from "./stage.js";
import { Status } from "./status.js";
import { listModels, showWishes } from "./wishes.js";

const config = await configured();
const parts = { config, attempt, palette: new Palette(config) };
const session = new Session(parts);
parts.stage = new Stage($("canvas"), parts.palette);
parts.classes = new Classes($("nuclei"), parts.palette, () => attempt(() => session.classesChanged()));
parts.regions = new Regions(parts.stage, $("canvas"), (polygon) => attempt(() => session.count(polygon)), () => session.dropRegion());
parts.status = new Status($("status"), () => attempt(() => session.recover()));
parts.slides = new Slides(attempt, (id) => attempt(() => session.openSlide(id)), (id) => session.gone(id));
parts.jobs = new Jobs(parts.status, config.limits, attempt, (finished) => attempt(() => session.progressed(finished)));
const { classes, regions, stage } = parts;

/** What the page must know of its service; waits for a service that is not there yet. */
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
    working(null);
    if (!(error instanceof Unreachable || error instanceof Problem)) console.error(error);
    if (error.status === 401 && (await askForKey())) return attempt(task);
    if (error instanceof Unreachable) await parts.status.check();
    const broken = error instanceof Unreachable && parts.status.state === "ready"; // then it was this request alone
    complain(broken ? new Broken() : error, () => attempt(task));
    return undefined;
  }
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

/** An action that needs an image in view. */
const on = (action) => () => (stage.size ? action() : false);

stage.onMove = () => session.moved();
stage.onTileFailed = () => parts.status.check(); // the service may be away; what failed is loaded again when it is back
stage.onClick = (x, y) => attempt(() => session.point(x, y));
$("opacity").addEventListener("input", (event) => setOpacity(event.target.value / 100));
const clicks = {
  "zoom-in": on(() => stage.zoomBy(1.5)),
  "zoom-out": on(() => stage.zoomBy(1 / 1.5)),
  home: on(() => stage.home()),
  "draw-rectangle": on(() => regions.begin("rectangle")),
  "draw-polygon": on(() => regions.begin("polygon")),
  "region-view": on(() => regions.takeView()),
  help: showShortcuts,
  key: async () => (await askForKey()) && attempt(start),
  open: () => $("file").click(),
  choose: () => $("file").click(),
};
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", () => action());
acceptDrops($("veil"), $("file"), (file) => attempt(() => session.openFile(file)), complain);
listen({
  "+": clicks["zoom-in"],
  "=": clicks["zoom-in"],
  "-": clicks["zoom-out"],
  0: clicks.home,
  ArrowLeft: on(() => stage.pan(-0.15, 0)),
  ArrowRight: on(() => stage.pan(0.15, 0)),
  ArrowUp: on(() => stage.pan(0, -0.15)),
  ArrowDown: on(() => stage.pan(0, 0.15)),
  ...Object.fromEntries(parts.palette.names.map((name, i) => [String(i + 1), on(() => classes.toggle(name))])),
  a: on(() => classes.toggle()),
  o: on(toggleOutlines),
  "[": on(() => setOpacity(stage.opacity - 0.1)),
  "]": on(() => setOpacity(stage.opacity + 0.1)),
  r: clicks["draw-rectangle"],
  p: clicks["draw-polygon"],
  v: clicks["region-view"],
  Enter: on(() => (regions.drawing ? regions.finish() : attempt(() => session.pointAtMiddle()))),
  Escape: () => session.escape(),
  u: clicks.open,
  "?": showShortcuts,
});
$("notice").textContent = config.notice;
showWishes($("settings"), config, () => attempt(() => session.again()));

/** Ask for what needs a key: the models, the slides, the slide that the address names. */
async function start() {
  await listModels();
  await parts.slides.list();
  const wanted = new URLSearchParams(location.search).get("slide");
  if (wanted) await session.openSlide(wanted);
}
attempt(start);
