// Is the service there? Asks now and then, more often after it was lost, and tells when it is back.

import { askJson } from "./api.js";

const CALM_MS = 20_000;
const WORDS = {
  ready: "ready",
  starting: "starting: the model is being loaded",
  failed: "the model does not serve; the service's log says why",
  draining: "stopping",
  lost: "service unreachable, retrying",
};

/** Watches the service and shows its state in an element. */
export class Status {
  #element;
  #timer = 0;
  #failures = 0;
  #waiting = [];

  /** `onBack` is called when the service answers again after it was lost or not ready. */
  constructor(element, onBack) {
    this.#element = element;
    this.onBack = onBack;
    document.addEventListener("visibilitychange", () => document.hidden || this.check());
    this.check();
  }

  get state() {
    return this.#element.dataset.state;
  }

  /** Resolves as soon as the service is ready. */
  async ready() {
    if (this.state === "ready") return;
    await new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Ask now. */
  async check() {
    clearTimeout(this.#timer);
    try {
      const { state } = await askJson("healthz/live", { signal: AbortSignal.timeout(10_000) });
      this.#failures = 0;
      this.#tell(state in WORDS ? state : "lost");
    } catch {
      this.#failures += 1;
      this.#tell("lost");
    }
    this.#later();
  }

  #later() {
    clearTimeout(this.#timer);
    const wait = this.state === "ready" ? CALM_MS : Math.min(5000, 500 * 2 ** this.#failures);
    this.#timer = setTimeout(() => this.check(), wait);
  }

  #tell(state) {
    const before = this.state;
    this.#element.dataset.state = state;
    if (before !== state) this.#element.textContent = WORDS[state];
    if (state !== "ready") return;
    for (const resolve of this.#waiting.splice(0)) resolve();
    if (before !== "checking" && before !== "ready") this.onBack();
  }
}
