// What went wrong, and what can be done about it?

import { $, h } from "./dom.js";

/** Show a problem by its title and detail; `retry` is offered as a button. */
export function complain(error, retry) {
  const wait = error.body?.retry_after_seconds;
  const request = error.body?.instance;
  const message = h("div", { class: "message bad" },
    h("h3", { class: "problem-title" }, error.title ?? "Something went wrong"),
    h("p", {}, sentence(error.message)),
    wait ? h("p", { class: "quiet" }, `The service suggests to try again in ${wait} s.`) : null,
    request ? h("p", { class: "quiet" }, "Request ", h("code", {}, request)) : null,
    h("div", { class: "row" },
      retry && h("button", { type: "button", click: () => { message.remove(); retry(); } }, "Try again"),
      h("button", { type: "button", click: () => message.remove() }, "Dismiss")));
  $("messages").replaceChildren(message);
}

/** Nothing is wrong any more. */
export const clearMessages = () => $("messages").replaceChildren();

function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
