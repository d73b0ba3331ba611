// Two pictures with a divider that moves, or one picture that reports two clicked points.
export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const stage = parentElement.querySelector(".stage");
  const [before, after] = stage.querySelectorAll("img");
  const handle = stage.querySelector(".handle");
  const range = parentElement.querySelector("input");
  const marks = stage.querySelector("svg");
  // A source that is set again is decoded again, and the browser decodes when it likes: the place is the picture's before.
  stage.style.aspectRatio = data.aspect;
  if (before.src !== data.before) before.src = data.before;
  if (after.src !== data.after) after.src = data.after;
  after.alt = data.alt;
  parentElement.querySelector(".viewer").style.width = `calc(70vh * ${data.aspect})`;
  const measuring = data.points !== null;
  stage.classList.toggle("measuring", measuring);
  stage.parentElement.classList.toggle("measuring", measuring);

  const divide = () => {
    const share = measuring ? 0 : Number(range.value);
    after.style.clipPath = `inset(0 0 0 ${share}%)`;
    handle.style.visibility = share > 0 ? "visible" : "hidden";
    handle.style.left = `${share}%`;
  };
  range.oninput = divide;
  divide();

  const draw = (points) => {
    const dots = points.map(([x, y]) => `<circle cx="${x * 100}%" cy="${y * 100}%" r="6"/>`);
    if (points.length === 2) {
      const [[a, b], [c, d]] = points;
      const ends = `x1="${a * 100}%" y1="${b * 100}%" x2="${c * 100}%" y2="${d * 100}%"`;
      dots.unshift(`<line class="casing" ${ends}/><line ${ends}/>`);
    }
    marks.innerHTML = dots.join("");
  };
  let points = measuring ? data.points : [];
  draw(points);
  stage.onclick = (event) => {
    if (!measuring) return;
    const box = stage.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    points = points.length === 2 ? [at] : [...points, at];
    draw(points);
    setStateValue("points", points);
  };
}
