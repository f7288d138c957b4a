// What does each key do? Nothing while one types, or while a dialog is open.

/** Let `actions` be called by their keys. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const target = event.target;
    if (target.matches("input:not([type=checkbox]):not([type=range]), select, textarea")) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (taken(target, name)) return;
    const action = actions[name];
    if (action && action() !== false) event.preventDefault();
  });
}

/** Keys that mean something else where the focus is: arrows scroll the panel and move sliders, Enter presses buttons. */
function taken(target, name) {
  if (name === "Enter" || name.startsWith("Arrow")) return target !== document.body && !target.closest("#canvas");
  return false;
}
