// The page: takes an image or camera frames, hands the pixels to the worker, draws the outline.
import { isHidden, uncovered } from "./hidden.js";

const $ = (id) => document.getElementById(id);
const MAX_PIXELS = 4096 * 4096; // what Safari on iPhones can draw; larger images are analysed reduced, and the page says so

const worker = new Worker("worker.js", { type: "module" });
const canvas = $("view"), context = canvas.getContext("2d");
const BROWSERS = "Reload the page; if that does not help, use a current Firefox, Chrome, Edge or Safari.";
let shown = null; // { bitmap, name, segments }
let stream = null, busy = false;
let turn = 0; // of the image on show: answers for earlier ones come too late
let threshold; // the user's; undefined leaves it to the model

worker.onmessage = ({ data }) => {
  if (data.kind === "ready") {
    $("model").textContent = data.name;
    showThreshold(data.threshold);
    if (!shown) document.body.dataset.state = "ready";
  } else if (data.kind === "mask") {
    saveMask(data);
  } else if (data.kind === "unsaved") {
    say(`The mask of ${data.size.join(" x ")} pixels could not be saved: ${data.message}. dermseg segment saves it.`);
  } else if (data.kind === "broken") {
    $("model").textContent = "–";
    fail(`The model could not be loaded. ${BROWSERS} (${data.message})`);
  } else if (data.turn !== turn) {
    return;
  } else if (data.kind === "result") {
    busy = false;
    shown.segments = data.segments;
    draw();
    const found = data.status === "ok";
    tell(found ? `${(100 * data.areaFraction).toFixed(1)} % of the image` : "no lesion found",
      found ? data.confidence.toFixed(2) : "–", `${Math.round(data.milliseconds)} ms`);
    $("save").disabled = false;
    document.body.dataset.state = "done";
  } else {
    fail(`${shown.name} could not be analysed. ${BROWSERS} (${data.message})`);
  }
};
worker.onerror = (event) => {
  $("model").textContent = "–";
  fail(`The page could not start. ${BROWSERS} (${event.message ?? "its worker is missing"})`);
};

const say = (text) => ($("message").textContent = text);

function showThreshold(value) {
  $("threshold").value = value;
  $("threshold-value").textContent = value.toFixed(2);
}

function tell(area, confidence, time) {
  $("area").textContent = area;
  $("confidence").textContent = confidence;
  $("time").textContent = time;
}

/** Nothing of an image that was shown before stays beside the message of one that failed. */
function fail(text) {
  turn++;
  shown?.bitmap.close();
  shown = null;
  busy = false;
  canvas.width = canvas.height = 1;
  canvas.ariaLabel = "no image";
  tell("–", "–", "–");
  $("save").disabled = true;
  say(text);
  document.body.dataset.state = "failed";
}

async function show(blob, name) {
  if (stream) stopCamera();
  const mine = ++turn;
  say("");
  tell("looking …", "–", "–");
  $("save").disabled = true; // until the mask is that of this image
  document.body.dataset.state = "busy";
  let bitmap, hidden = false;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    if (mine === turn) fail(`${name} is not an image this browser can read. Save it as JPEG or PNG (smaller, if it is very large) and open it again.`);
    return;
  }
  try {
    hidden = mine === turn && isHidden(bitmap);
    if (hidden) {
      bitmap.close();
      bitmap = await uncovered(blob);
    }
  } catch (error) {
    const what = hidden
      ? `Everything in ${name} is transparent. Save it without transparency and open it again.`
      : `${name} could not be analysed. ${BROWSERS}`; // the browser is too old, say
    if (mine === turn) fail(`${what} (${error.message})`);
    return;
  }
  if (mine !== turn) return bitmap.close(); // another one was opened meanwhile
  try {
    analyse(bitmap, name);
  } catch (error) {
    fail(`${name} could not be analysed. ${BROWSERS} (${error.message})`);
  }
}

function analyse(bitmap, name) {
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.floor(bitmap.width * scale)), height = Math.max(1, Math.floor(bitmap.height * scale));
  if (scale < 1) say(`${name} is large; it is analysed at ${width} x ${height}. The mask has the image's size.`);
  const scratch = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  layOnWhite(scratch, bitmap, width, height);
  const { data } = scratch.getImageData(0, 0, width, height);
  if (!data[3]) throw new Error(`nothing can be drawn at ${width} x ${height}`); // not even the white: no error says so
  shown?.bitmap.close();
  shown = { bitmap, name, segments: stream && shown?.live ? shown.segments : [] };
  if (stream) document.body.dataset.state = "live";
  busy = true;
  canvas.ariaLabel = `${name} with the outline of the lesion`;
  draw();
  const image = { pixels: data, width, height, size: [bitmap.width, bitmap.height] };
  worker.postMessage({ kind: "image", turn: ++turn, threshold, ...image }, [data.buffer]);
}

// What is transparent is white, as on the command line.
function layOnWhite(target, bitmap, width, height) {
  target.fillStyle = "#fff";
  target.fillRect(0, 0, width, height);
  target.drawImage(bitmap, 0, 0, width, height);
}

function draw() {
  const { bitmap, segments } = shown;
  const box = $("stage").getBoundingClientRect(), ratio = devicePixelRatio || 1;
  const scale = Math.min(box.width / bitmap.width, Math.max(box.height, 240) / bitmap.height);
  const w = Math.max(1, Math.round(bitmap.width * scale * ratio)), h = Math.max(1, Math.round(bitmap.height * scale * ratio));
  canvas.width = w;
  canvas.height = h;
  canvas.style.width = `${w / ratio}px`;
  context.imageSmoothingQuality = "high";
  layOnWhite(context, bitmap, w, h);
  if (!$("outline").checked) return;
  context.beginPath();
  for (const [x0, y0, x1, y1] of segments) {
    context.moveTo(x0 * w, y0 * h);
    context.lineTo(x1 * w, y1 * h);
  }
  context.lineCap = "round";
  // dark under bright: one of the two stands out on any skin
  for (const [colour, width] of [["#10151c", 4.5], ["#ffe14d", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * ratio;
    context.stroke();
  }
}

function saveMask({ png, name }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(png);
  link.download = `${name.replace(/\.[^.]*$/, "")}_segmentation.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function camera() {
  if (stream) return stopCamera();
  if (!navigator.mediaDevices?.getUserMedia) {
    return say("The camera works on pages from https:// or from this machine only. Open a photograph instead.");
  }
  $("camera").disabled = true; // one question at a time
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const how = "Allow it for this page in the browser's settings, or open a photograph instead.";
    return say(`The camera could not be opened: ${error.message}. ${how}`);
  } finally {
    $("camera").disabled = false;
  }
  say("");
  $("camera").textContent = "Stop camera";
  $("area").ariaLive = "off"; // not every frame is read out
  const video = $("video"), mine = stream;
  mine.getVideoTracks()[0].onended = () => mine === stream && stopCamera();
  video.srcObject = mine;
  const frame = async () => {
    if (!busy && video.videoWidth) {
      const bitmap = await createImageBitmap(video);
      if (mine !== stream) return bitmap.close();
      analyse(bitmap, "camera");
      shown.live = true;
    }
    requestAnimationFrame(() => mine === stream && frame().catch(stopped));
  };
  const stopped = (error) => { // an iPhone that saves power plays nothing, for one
    if (mine !== stream) return; // it was switched off meanwhile
    stopCamera();
    say(`The camera shows no picture: ${error.message}. Press Camera again, or open a photograph instead.`);
  };
  video.play().then(frame).catch(stopped);
}

function stopCamera() {
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("camera").textContent = "Camera";
  $("area").ariaLive = "polite";
}

$("file").onclick = ({ target }) => (target.value = ""); // the same file again is asked for again
$("file").onchange = ({ target }) => target.files[0] && show(target.files[0], target.files[0].name);
$("camera").onclick = camera;
$("outline").onchange = () => shown && draw();
$("threshold").oninput = () => {
  threshold = Number($("threshold").value);
  showThreshold(threshold);
  if (shown) worker.postMessage({ kind: "threshold", turn, threshold });
};
$("save").onclick = () => worker.postMessage({ kind: "mask", turn, name: shown.name, threshold });
addEventListener("resize", () => shown && draw());
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file, ...others] = event.dataTransfer.files;
  if (file) show(file, file.name);
  if (others.length) say(`One image at a time: ${file.name} was opened, ${others.length} more not. dermseg segment takes folders.`);
});
addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (file) show(file, file.name || "pasted.png");
});
$("reload").onclick = () => location.reload();
if ("serviceWorker" in navigator) {
  let controlled = Boolean(navigator.serviceWorker.controller); // not yet at the first visit: nothing older is on show
  navigator.serviceWorker.oncontrollerchange = () => {
    $("update").hidden = !controlled;
    controlled = true;
  };
  navigator.serviceWorker.register("sw.js").then(() => navigator.serviceWorker.ready)
    .then(() => (document.body.dataset.offline = "ready"), () => {});
}
