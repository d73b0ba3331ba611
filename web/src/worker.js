// The network in a thread of its own, so that the page never freezes.
import * as ort from "./ort.wasm.min.js";
import { clean, confidence, maskAt, outline, toInput } from "./lesion.js";
import { maskPng } from "./png.js";

const place = (file) => new URL(file, import.meta.url).href;
ort.env.wasm.wasmPaths = { mjs: place("ort-wasm-simd-threaded.js"), wasm: place("ort-wasm-simd-threaded.wasm") };
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;

const ready = (async () => {
  const card = await fetch("card.json").then((r) => r.json());
  // Of half an update another network may be there: with this card's threshold it would give other outlines.
  const digest = card.variants[card.default_variant].sha256.match(/../g).map((byte) => parseInt(byte, 16));
  const integrity = `sha256-${btoa(String.fromCharCode(...digest))}`;
  const model = await fetch("model.onnx", { integrity }).then((r) => r.arrayBuffer());
  return { card, session: await ort.InferenceSession.create(model) };
})();

ready.then(
  ({ card }) => postMessage({ kind: "ready", name: `${card.name} ${card.version}`, threshold: card.postprocessing.threshold }),
  (error) => postMessage({ kind: "broken", message: String(error.message ?? error) }),
);

let last = null; // logits of the newest image: another threshold needs no network
let work = Promise.resolve();

// One after the other: a mask that is asked for while the network runs is that of the image it runs on.
onmessage = ({ data }) => (work = work.then(() => answer(data)));

async function answer({ kind, turn, name, threshold, ...image }) {
  try {
    const { card, session } = await ready;
    if (kind === "image") {
      last = null;
      last = await run(card, session, image);
    }
    if (!last) return;
    const found = clean(last.logits, last.w, last.h, card.postprocessing, threshold);
    if (kind !== "mask") return post(card, found, turn);
    const [width, height] = last.size;
    postMessage({ kind, name, png: await maskPng(maskAt(found, width, height), width, height) });
  } catch (error) {
    if (kind === "mask") return postMessage({ kind: "unsaved", size: last.size, message: String(error.message ?? error) });
    postMessage({ kind: "failed", turn, message: String(error.message ?? error) });
  }
}

// `size` [width, height] is the image's own, of which large ones are analysed reduced: masks have it.
async function run(card, session, { pixels, width, height, size }) {
  const p = card.preprocessing, begin = performance.now();
  const input = new ort.Tensor("float32", toInput(pixels, width, height, p), [1, 3, p.height, p.width]);
  const result = await session.run({ [p.input_name]: input });
  const { data, dims } = result[p.output_name];
  const [, , h, w] = dims; // of several maps the first one counts
  return { logits: data.subarray(0, h * w), h, w, size, milliseconds: performance.now() - begin };
}

function post(card, found, turn) {
  const mask = maskAt(found, ...last.size.map((side) => Math.min(side, 512)));
  const inside = mask.reduce((sum, v) => sum + v, 0) / mask.length;
  postMessage({
    kind: "result",
    turn,
    segments: outline(found),
    status: found.count ? "ok" : "no_lesion",
    areaFraction: inside,
    confidence: confidence(last.logits, card.postprocessing.temperature, found),
    milliseconds: last.milliseconds,
  });
}
