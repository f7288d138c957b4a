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
  #starting = null; // the slide for which a job is being asked for
  #shown = null; // the job that the card tells of

  constructor(status, limits, attempt, onProgress) {
    this.#status = status;
    this.#limits = limits;
    this.attempt = attempt;
    this.onProgress = onProgress;
  }

  /** Stop following: another image is in view. The job itself goes on. */
  leave() {
    this.#following?.abort();
    this.#following = this.#starting = this.#shown = null;
    $("job").hidden = true;
  }

  /** A button that starts a job; there is one job at a time, so all of them wait while there is one. */
  button(id, label, start, kind = "") {
    const button = h("button", { type: "button", id, class: kind, "data-starts": label, click: () => this.attempt(start) });
    this.#renew(button);
    return button;
  }

  #renew(button) {
    const waits = Boolean(this.#starting || this.#following); // but keeps the focus, which a disabled button loses
    button.setAttribute("aria-disabled", String(waits));
    button.textContent = this.#starting ? "Starting …" : button.dataset.starts;
  }

  #renewAll() {
    for (const button of document.querySelectorAll("[data-starts]")) this.#renew(button);
  }

  /** Offer to start a job, or follow the one that runs. */
  offer(slide, wishes) {
    const [latest] = slide.entry.jobs ?? [];
    if (latest && OPEN.has(latest.state)) {
      this.attempt(() => this.follow(slide, latest.id));
      return;
    }
    this.#shown = null;
    if (slide.entry.origin === "tiles") {
      show($("job"), h("h2", {}, "Analysis"), h("p", { class: "quiet" }, "This slide comes as tiles; each is analysed as it is sent."));
      return;
    }
    const again = slide.entry.model;
    show($("job"),
      h("h2", {}, "Analysis"),
      h("p", { class: "quiet" }, this.#told(latest)),
      h("div", { class: "row" },
        this.button("start", "Analyse the whole slide", () => this.start(slide, wishes()), again ? "" : "primary")));
  }

  #told(latest) {
    if (!latest) return "Not analysed yet. Draw a region to analyse only a part.";
    const kept = "what it found is kept, and only what is missing is analysed.";
    return latest.state === "done" ? `The last analysis is complete: ${kept}` : `The last analysis ${ENDS[latest.state]}; ${kept}`;
  }

  /** Start a job on the whole slide, or on a region of it; asks for the scale if nobody said it. */
  async start(slide, wishes, region = null) {
    if (this.#starting || this.#following) return;
    this.#starting = slide;
    this.#renewAll();
    try {
      const id = await this.#ask(slide, { ...wishes, mpp: Number(wishes.mpp), region });
      if (id && this.#starting === slide) this.attempt(() => this.follow(slide, id));
    } finally {
      if (this.#starting === slide) this.#starting = null;
      this.#renewAll();
    }
  }

  /** The id of the job that does what was asked for; null if the reader would not say the scale. */
  async #ask(slide, wanted) {
    try {
      const job = await sendJson(`${slide.path}/jobs`, Object.fromEntries(Object.entries(wanted).filter(([, value]) => value)));
      return job.id;
    } catch (error) {
      if (error.slug === "conflict") return this.#running(slide, error);
      if (error.slug !== "mpp-required") throw error;
      const mpp = await askForScale(error.message, this.#limits);
      if (mpp === null) return null;
      await slide.rescale(mpp);
      return this.#ask(slide, wanted);
    }
  }

  /** The id of the job that was in the way of another one: somebody else started it, another tab perhaps. */
  async #running(slide, conflict) {
    await slide.refresh();
    const running = slide.entry.jobs?.find(({ state }) => OPEN.has(state));
    if (!running) throw conflict;
    return running.id;
  }

  /** Show a job until it is finished; a lost connection is taken up again as soon as the service is back. */
  async follow(slide, id) {
    this.#following?.abort();
    const following = new AbortController();
    this.#following = following;
    this.#draw(id, { state: "queued", done: 0, total: 0 });
    this.#renewAll();
    const job = await this.#watch(id, following.signal).finally(() => this.#unfollow(following));
    if (following.signal.aborted) return;
    await this.onProgress(true);
    if (job?.state === "failed") this.#fail(job);
  }

  #unfollow(following) {
    if (this.#following === following) this.#following = null;
    this.#renewAll();
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

  /** Tell of a job: the card is made once, so that its button stays the same while one presses it. */
  #draw(id, job) {
    if (this.#shown !== id) this.#frame(id);
    this.#shown = id;
    const left = job.seconds_left ? `about ${duration(job.seconds_left)} left` : "";
    const rate = job.rate ? `${about(job.rate >= 1 ? job.rate : 1 / job.rate)} ${job.rate >= 1 ? "parts a second" : "s a part"}` : "";
    const done = job.total ? `${whole(job.done)} of ${whole(job.total)} parts` : "";
    $("job-state").textContent = STATES[job.state];
    $("job-state").dataset.state = job.state;
    $("job-progress").textContent = [done, rate, left].filter(Boolean).join(", ");
    if (job.total) $("job-bar").value = job.done / job.total;
  }

  #frame(id) {
    const cancel = () => this.attempt(() => ask(`v1/jobs/${id}`, { method: "DELETE" }));
    show($("job"),
      h("h2", {}, "Analysis", h("span", { class: "quiet", id: "job-state" })),
      h("progress", { id: "job-bar", max: 1, "aria-label": "Progress of the analysis" }),
      h("p", { class: "quiet", id: "job-progress" }),
      h("div", { class: "row" }, h("button", { type: "button", id: "cancel", click: cancel }, "Cancel")));
  }

  #fail(job) {
    const problem = job.problem ?? {};
    $("job").append(h("div", { class: "message bad" },
      h("h3", { class: "problem-title" }, problem.title ?? "The analysis failed"),
      h("p", {}, problem.detail ?? "The service gives no reason.")));
  }
}

