// How does a file come onto the page? Dropped anywhere on it, or chosen.

/** Call `onFile` with each file that comes. */
export function acceptDrops(veil, input, onFile) {
  let depth = 0;
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  const lift = (on) => (veil.hidden = !on);

  document.addEventListener("dragenter", (event) => {
    if (!carriesFile(event)) return;
    depth += 1;
    lift(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!carriesFile(event)) return;
    depth = Math.max(0, depth - 1);
    lift(depth > 0);
  });
  document.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    depth = 0;
    lift(false);
    const [file] = event.dataTransfer.files;
    if (file) onFile(file);
  });
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // the same file may be chosen again
    if (file) onFile(file);
  });
}
