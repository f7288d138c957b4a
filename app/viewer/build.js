// What has to be built? Nothing of ours: browsers load the modules in src/ as they are. The one library is copied out of
// node_modules with its licence, so that the service can serve it and a wheel can carry it.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";

const library = new URL("node_modules/openseadragon/", import.meta.url);
const dist = new URL("dist/", import.meta.url);
const script = readFileSync(new URL("build/openseadragon/openseadragon.min.js", library), "utf8");

mkdirSync(dist, { recursive: true });
// The source map stays behind (400 kB); a pointer to it would make developer tools ask for it in vain.
writeFileSync(new URL("openseadragon.min.js", dist), script.replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n"));
copyFileSync(new URL("LICENSE.txt", library), new URL("openseadragon.LICENSE.txt", dist));
