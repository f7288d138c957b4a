// How far is the analysis of a slide? Starts it, follows it whatever happens to the connection, cancels it.

import { ask, events, Problem, sendJson } from "./api.js";
import { askForScale } from "./dialogs.js";
import { $, h, show } from "./dom.js";
import { about, duration, whole } from "./words.js";

const OPEN = new Set(["queued", "running"]);
const AGAIN_MS = 1000;
const STATES = {
  queued: "waiting for its turn",
  running: "running",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
};
const ENDS = { failed: "failed", cancelled: "was cancelled" };

/** The card of the analysis; `onProgress(finished)` is called when results may have changed. */
export class Jobs {
  #status;
  #limits;
  #following = null;

  constructor(status, limits, attempt, onProgress) {
    this.#status = status;
    this.#limits = limits;
    this.attempt = attempt;
    this.onProgress = onProgress;
  }

  /** Whether a job of the slide in view is not finished. */
  get busy() {
    return this.#following !== null;
  }

  /** Stop following: another image is in view. The job itself goes on. */
  leave() {
    this.#following?.abort();
    this.#following = null;
    $("job").hidden = true;
  }

  /** Offer to start a job, or follow the one that runs. */
  offer(slide, wishes) {
    const [latest] = slide.entry.jobs ?? [];
    if (latest && OPEN.has(latest.state)) return this.follow(slide, latest.id);
    if (slide.entry.origin === "tiles") {
      show($("job"), h("h2", {}, "Analysis"), h("p", { class: "quiet" }, "This slide comes as tiles; each is analysed as it is sent."));
      return undefined;
    }
    const again = slide.entry.model;
    show($("job"),
      h("h2", {}, "Analysis"),
      h("p", { class: "quiet" }, this.#told(latest)),
      h("div", { class: "row" },
        h("button", { type: "button", id: "start", class: again ? "" : "primary", click: () => this.attempt(() => this.start(slide, wishes())) },
          "Analyse the whole slide")));
    return undefined;
  }

  #told(latest) {
    if (!latest) return "Not analysed yet. Draw a region to analyse only a part.";
    const kept = "what it found is kept, and only what is missing is analysed.";
    return latest.state === "done" ? `The last analysis is complete: ${kept}` : `The last analysis ${ENDS[latest.state]}; ${kept}`;
  }

  /** Start a job on the whole slide, or on a region of it; asks for the scale if nobody said it. */
  async start(slide, wishes, region = null) {
    const body = Object.fromEntries(Object.entries({ ...wishes, mpp: Number(wishes.mpp), region }).filter(([, value]) => value));
    try {
      const job = await sendJson(`${slide.path}/jobs`, body);
      this.follow(slide, job.id);
    } catch (error) {
      if (!(error instanceof Problem) || error.slug !== "mpp-required") throw error;
      const mpp = await askForScale(error.message, this.#limits);
      if (mpp === null) return;
      await slide.rescale(mpp);
      await this.start(slide, wishes, region);
    }
  }

  /** Show a job until it is finished; a lost connection is taken up again as soon as the service is back. */
  async follow(slide, id) {
    this.#following?.abort();
    const following = new AbortController();
    this.#following = following;
    this.#draw(id, { state: "queued", done: 0, total: 0 });
    const job = await this.#watch(id, following.signal);
    if (following.signal.aborted) return;
    this.#following = null;
    await this.onProgress(true);
    if (job?.state === "failed") this.#fail(slide, job);
  }

  async #watch(id, signal) {
    while (!signal.aborted) {
      try {
        for await (const job of events(`v1/jobs/${id}/events`, signal)) {
          if (signal.aborted) return null;
          this.#draw(id, job);
          if (!OPEN.has(job.state)) return job;
          this.onProgress(false);
        }
      } catch (error) {
        if (error.name === "AbortError") return null;
        if (error instanceof Problem && error.status === 404) return null; // deleted meanwhile
        if (error instanceof Problem && error.status === 401) throw error;
        await this.#status.check();
        await this.#status.ready();
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
    return null;
  }

  #draw(id, job) {
    const share = job.total ? job.done / job.total : 0;
    const bar = h("progress", { max: 1, value: job.total ? share : null, "aria-label": "Progress of the analysis" });
    const left = job.seconds_left ? `about ${duration(job.seconds_left)} left` : "";
    const rate = job.rate ? `${about(job.rate >= 1 ? job.rate : 1 / job.rate)} ${job.rate >= 1 ? "parts a second" : "s a part"}` : "";
    const done = job.total ? `${whole(job.done)} of ${whole(job.total)} parts` : "";
    show($("job"),
      h("h2", {}, "Analysis", h("span", { class: "quiet", id: "job-state", "data-state": job.state }, STATES[job.state])),
      bar,
      h("p", { class: "quiet", id: "job-progress" }, [done, rate, left].filter(Boolean).join(", ")),
      OPEN.has(job.state) && h("div", { class: "row" },
        h("button", { type: "button", id: "cancel", click: () => this.attempt(() => ask(`v1/jobs/${id}`, { method: "DELETE" })) }, "Cancel")));
  }

  #fail(slide, job) {
    const problem = job.problem ?? {};
    $("job").append(h("div", { class: "message bad" },
      h("h3", { class: "problem-title" }, problem.title ?? "The analysis failed"),
      h("p", {}, problem.detail ?? "The service gives no reason.")));
  }
}

