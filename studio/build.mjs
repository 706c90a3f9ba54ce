// Bundles the page into the folder that ships, and notes what it was made of: a test compares that with what lies here.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = "../src/onemask/studio/static";
mkdirSync(out, { recursive: true });
await build({ entryPoints: ["src/main.ts"], bundle: true, format: "esm", target: "es2022", minify: true, outfile: `${out}/studio.js` });
await build({ entryPoints: ["src/studio.css"], minify: true, outfile: `${out}/studio.css` });
for (const name of ["index.html", "icon.svg"]) copyFileSync(`src/${name}`, `${out}/${name}`);

const sources = readdirSync("src").sort();
const hash = createHash("sha256");
for (const name of sources) hash.update(name).update(readFileSync(`src/${name}`));
writeFileSync(`${out}/built-from.txt`, `${hash.digest("hex")}\n`);
