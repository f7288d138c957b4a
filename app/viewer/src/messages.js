// What went wrong, and what can be done about it?

import { Unreachable } from "./api.js";
import { $, h } from "./dom.js";

let unanswered = null; // what the message in view is about, if the service was not there to do it

/** Show a problem by its title and detail; `retry` is offered as a button, and done by `takeUp`. */
export function complain(error, retry) {
  const wait = error.body?.retry_after_seconds;
  const request = error.body?.instance;
  const message = h("div", { class: "message bad" },
    h("h3", { class: "problem-title" }, error.title ?? "Something went wrong"),
    h("p", {}, sentence(error.message)),
    wait ? h("p", { class: "quiet" }, `The service suggests to try again in ${wait} s.`) : null,
    request ? h("p", { class: "quiet" }, "Request ", h("code", {}, request)) : null,
    h("div", { class: "row" },
      retry && h("button", { type: "button", click: () => { clearMessages(); retry(); } }, "Try again"),
      h("button", { type: "button", click: clearMessages }, "Dismiss")));
  $("messages").replaceChildren(message);
  unanswered = error instanceof Unreachable ? retry : null;
}

/** Nothing is wrong any more. */
export function clearMessages() {
  $("messages").replaceChildren();
  unanswered = null;
}

/** The service answers again: do what it did not answer. */
export function takeUp() {
  const retry = unanswered;
  if (!retry) return;
  clearMessages();
  retry();
}

function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
