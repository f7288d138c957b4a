// How is an element made without a line of HTML in a string? What users and servers say only ever becomes text.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id. */
export const $ = (id) => document.getElementById(id);

/** An element; attributes that are functions become listeners, `false` and `null` are left out. */
export function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put new content into an element and show it; what the reader stands on, chose or opened there stays so. */
export function show(element, ...children) {
  const restore = element.hidden ? () => {} : remembered(element);
  element.replaceChildren(...children.flat().filter(Boolean));
  element.hidden = false;
  restore();
}

/** Take down what the reader did to an element's content; gives how to do the same to new content. */
function remembered(element) {
  const focused = element.contains(document.activeElement) && document.activeElement;
  const fields = [...element.querySelectorAll("input[type=text], select")].map(({ id, value }) => [id, value]);
  const opened = new Set([...element.querySelectorAll("details[open]")].map(nameOf));
  return () => {
    for (const [id, value] of fields) {
      const field = id && element.querySelector(`#${id}`);
      if (field) field.value = value;
    }
    for (const details of element.querySelectorAll("details")) if (opened.has(nameOf(details))) details.open = true;
    if (focused && focused !== element) standOn(element, nameOf(focused));
  };
}

/** Focus what bears a name, or at least stay in the element, so that the next Tab goes on from there. */
function standOn(element, name) {
  const same = [...element.querySelectorAll("button, input, select, summary")].find((one) => nameOf(one) === name);
  if (!same) element.tabIndex = -1;
  (same ?? element).focus({ preventScroll: true });
}

const nameOf = (one) => one.dataset.focus || one.id || (one.querySelector("summary") ?? one).textContent;

/** Bring a card into view where it is outside, as below a telephone's image. */
export function bring(card) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  card.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

/** Name and value pairs; those without a value are left out. */
export function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, told.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
