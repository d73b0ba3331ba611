// Builds the static page into dist/: the sources, ONNX Runtime from node_modules, one bundle of dermseg.
//
//   npm ci && npm run build [-- BUNDLE_FOLDER]
//
// Any static server can serve dist/ (a secure origin is needed for the camera and for offline use).
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const bundles = join(here, "..", "src", "dermseg", "bundles");
const bundle = process.argv[2] ?? join(bundles, existsSync(join(bundles, "fast")) ? "fast" : "default");
const out = join(here, "dist");

const card = JSON.parse(readFileSync(join(bundle, "card.json"), "utf8"));
// What a card may leave out, as inference/card.py has it; the page takes the card as complete.
card.preprocessing = {
  resize: "area",
  filters: [],
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
  input_name: "image",
  output_name: "logits",
  ...card.preprocessing,
};
card.postprocessing = {
  threshold: 0.5,
  temperature: 1,
  keep_largest: true,
  fill_holes: true,
  smooth_radius: 0,
  min_area_fraction: 0,
  ...card.postprocessing,
};
const { filters, resize } = card.preprocessing;
const unknown = [
  card.postprocessing.smooth_radius > 0 ? "smooth_radius" : "",
  ...filters,
  resize === "area" ? "" : `resize: ${resize}`,
].filter(Boolean);
if (unknown.length) {
  throw new Error(`${bundle}: the page does not do ${unknown.join(", ")}; use a bundle without`);
}
const variant = card.variants[card.default_variant];
const model = readFileSync(join(bundle, variant.file));
if (createHash("sha256").update(model).digest("hex") !== variant.sha256) {
  throw new Error(`${bundle}/${variant.file} is not the file its card describes`);
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out);
cpSync(join(here, "src"), out, { recursive: true });
writeFileSync(join(out, "model.onnx"), model);
writeFileSync(join(out, "card.json"), JSON.stringify({ ...card, metrics: [] }));
const runtime = join(here, "node_modules", "onnxruntime-web", "dist");
// Browsers run only what the server calls JavaScript; of .mjs nginx, for one, knows nothing.
for (const name of ["ort.wasm.min", "ort-wasm-simd-threaded"]) {
  cpSync(join(runtime, `${name}.mjs`), join(out, `${name}.js`));
}
cpSync(join(runtime, "ort-wasm-simd-threaded.wasm"), join(out, "ort-wasm-simd-threaded.wasm"));

// The service worker keeps exactly these files; its version changes with any of them.
const files = readdirSync(out).filter((name) => name !== "sw.js").sort();
const hash = createHash("sha256"), kept = {};
for (const name of files) {
  const data = readFileSync(join(out, name));
  hash.update(name).update(data);
  // The page itself is the one file that servers write something into.
  if (name === "index.html") kept["./"] = "";
  else kept[name] = `sha256-${createHash("sha256").update(data).digest("base64")}`;
}
const [, policy] = readFileSync(join(out, "index.html"), "utf8").match(/"Content-Security-Policy" content="([^"]+)"/);
const worker = readFileSync(join(out, "sw.js"), "utf8")
  .replace("__POLICY__", policy)
  .replace("__VERSION__", hash.digest("hex").slice(0, 16))
  .replace("__FILES__", JSON.stringify(kept));
writeFileSync(join(out, "sw.js"), worker);
console.log(`dist/: ${files.length + 1} files, model ${card.name} ${card.version}`);
