// The page: takes an image or camera frames, hands the pixels to the worker, draws the outline.
const $ = (id) => document.getElementById(id);
const MAX_PIXELS = 24e6; // larger images are analysed reduced, and the page says so

const worker = new Worker("worker.js", { type: "module" });
const canvas = $("view"), context = canvas.getContext("2d");
let shown = null; // { bitmap, name, segments }
let stream = null, busy = false;

worker.onmessage = ({ data }) => {
  if (data.kind === "ready") {
    $("model").textContent = data.name;
    $("threshold").value = data.threshold;
    $("threshold-value").textContent = data.threshold.toFixed(2);
    document.body.dataset.state = "ready";
    say("");
  } else if (data.kind === "result") {
    busy = false;
    shown.segments = data.segments;
    draw();
    const found = data.status === "ok";
    $("area").textContent = found ? `${(100 * data.areaFraction).toFixed(1)} % of the image` : "no lesion found";
    $("confidence").textContent = found ? data.confidence.toFixed(2) : "–";
    $("time").textContent = `${Math.round(data.milliseconds)} ms`;
    $("save").disabled = false;
    document.body.dataset.state = "done";
  } else if (data.kind === "mask") {
    saveMask(data);
  } else {
    busy = false;
    say(data.kind === "broken" ? `The model could not be loaded: ${data.message}` : `This image failed: ${data.message}`);
    document.body.dataset.state = "failed";
  }
};

const say = (text) => ($("message").textContent = text);
const threshold = () => Number($("threshold").value);

async function show(blob, name) {
  say("");
  try {
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    analyse(bitmap, name);
  } catch {
    say(`${name} is not an image this browser can read.`);
  }
}

function analyse(bitmap, name) {
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
  if (scale < 1) say(`${name} is large; it is analysed at ${width} x ${height}.`);
  const scratch = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  scratch.drawImage(bitmap, 0, 0, width, height);
  const { data } = scratch.getImageData(0, 0, width, height);
  shown?.bitmap.close();
  shown = { bitmap, name, segments: shown?.live ? shown.segments : [] };
  document.body.dataset.state = "busy";
  busy = true;
  draw();
  worker.postMessage({ kind: "image", pixels: data, width, height, threshold: threshold() }, [data.buffer]);
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
  context.drawImage(bitmap, 0, 0, w, h);
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

function saveMask({ mask, width, height }) {
  const image = new ImageData(width, height);
  for (let i = 0; i < mask.length; i++) {
    image.data.fill(mask[i] * 255, 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  }
  const target = new OffscreenCanvas(width, height);
  target.getContext("2d").putImageData(image, 0, 0);
  target.convertToBlob({ type: "image/png" }).then((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${shown.name.replace(/\.[^.]*$/, "")}_segmentation.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

async function camera() {
  if (stream) return stopCamera();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return say(`The camera could not be opened: ${error.message}`);
  }
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  $("camera").textContent = "Stop camera";
  const frame = async () => {
    if (!stream) return;
    if (!busy && video.videoWidth) {
      analyse(await createImageBitmap(video), "camera");
      shown.live = true;
    }
    requestAnimationFrame(frame);
  };
  frame();
}

function stopCamera() {
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("camera").textContent = "Camera";
}

$("file").onchange = ({ target }) => target.files[0] && show(target.files[0], target.files[0].name);
$("camera").onclick = camera;
$("camera").disabled = !navigator.mediaDevices?.getUserMedia;
$("outline").onchange = () => shown && draw();
$("threshold").oninput = () => {
  $("threshold-value").textContent = threshold().toFixed(2);
  if (shown) worker.postMessage({ kind: "threshold", threshold: threshold() });
};
$("save").onclick = () => worker.postMessage({ kind: "mask", threshold: threshold() });
addEventListener("resize", () => shown && draw());
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file) show(file, file.name);
});
addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (file) show(file, file.name || "pasted.png");
});
if ("serviceWorker" in navigator) {
  navigator.serviceWorker.register("sw.js").then(() => navigator.serviceWorker.ready)
    .then(() => (document.body.dataset.offline = "ready"), () => {});
}
