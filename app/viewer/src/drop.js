// How does a file come onto the page? Dropped anywhere on it, or chosen.

const MANY = "A slide that consists of several files is added by its path: see Slides, below the results. Any other file is dropped alone.";

/** Call `onFile` with each file that comes, `onRefused` with a title and a message where it is not one file. */
export function acceptDrops(veil, input, onFile, onRefused) {
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
    const refused = refusal(event.dataTransfer);
    const [file] = event.dataTransfer.files;
    if (refused) onRefused(refused);
    else if (file) onFile(file);
  });
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // the same file may be chosen again
    if (file) onFile(file);
  });
}

/** Why something dropped cannot be taken; null if it can. */
function refusal({ items, files }) {
  const folder = [...items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
  if (folder) return { title: "A folder, not a file", message: MANY };
  return files.length > 1 ? { title: "Several files at once", message: MANY } : null;
}
