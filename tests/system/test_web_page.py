"""The static page in a real browser: same masks as the command line, nothing sent, works offline."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dermseg
from dermseg.data.sources.synthetic import write_synthetic
from dermseg.data.synthetic import synthesize
from dermseg.images import find_images
from dermseg.images.masks import load_mask
from dermseg.inference.bundle import load_bundle

WEB = Path(__file__).resolve().parents[2] / "web"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``build()`` and ``build(bundle)`` give a folder with the built page."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (apt-get install npm)")
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=WEB, check=True, capture_output=True)

    def make(*bundle: Path) -> Path:
        command = ["npm", "run", "build", "--", *bundle]
        subprocess.run(command, cwd=WEB, check=True, capture_output=True)
        return shutil.copytree(WEB / "dist", tmp_path_factory.mktemp("page") / "dist")

    return make


@pytest.fixture(scope="module")
def page_folder(build: Callable[..., Path]) -> Path:
    """The page with the model that it has by itself."""
    return build()


@pytest.fixture(scope="module")
def other_folder(build: Callable[..., Path]) -> Path:
    """The page with another model."""
    return build(Path(dermseg.__file__).parent / "bundles" / "default")


def images(folder: Path, data: Path | None) -> list[Path]:
    """Five real images at native size where they are at hand, else drawn ones."""
    if data is None:
        write_synthetic(folder, 5, seed=40, size=(576, 768))
        return sorted((folder / "images").glob("*"))[:5]
    sources = [s for s in find_images([data / "ISIC_native_resolution.zip"]) if s.name.startswith("images/")]
    paths = [folder / Path(source.name).name for source in sources[:5]]
    for source, path in zip(sources, paths, strict=False):
        path.write_bytes(source.read_bytes())
    return paths


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("preprocessing", {"resize": "bilinear"}),
        ("preprocessing", {"filters": ["dullrazor"]}),
        ("postprocessing", {"smooth_radius": 0.02}),
    ],
)
def test_a_bundle_whose_steps_the_page_does_not_know_is_refused(
    tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed (apt-get install nodejs)")
    bundle = shutil.copytree(Path(dermseg.__file__).parent / "bundles" / "fast", tmp_path / "bundle")
    card = json.loads((bundle / "card.json").read_text())
    card[part] |= change
    (bundle / "card.json").write_text(json.dumps(card))
    built = subprocess.run(
        ["node", "build.mjs", bundle], check=False, cwd=WEB, capture_output=True, text=True
    )
    assert built.returncode == 1
    assert "the page does not do" in built.stderr


def test_what_a_card_leaves_out_is_as_on_the_command_line(
    browser: Any, serve: Any, build: Callable[..., Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    """Before, the page found no lesion at all: a smallest area that is not said was above every area."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    card = json.loads((bundle / "card.json").read_text())
    del card["postprocessing"]
    card["preprocessing"] = {"height": 64, "width": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
    (bundle / "card.json").write_text(json.dumps(card))
    folder = build(bundle)
    built = json.loads((folder / "card.json").read_text())
    known = load_bundle(bundle).card
    for part in ("preprocessing", "postprocessing"):
        assert built[part].items() <= json.loads(getattr(known, part).model_dump_json()).items(), part
    picture = np.full((90, 120, 3), 250, np.uint8)
    picture[30:60, 40:80] = 40
    Image.fromarray(picture).save(tmp_path / "dark.png")
    page = browser.new_page()
    page.goto(serve(folder))
    mask = outline(page, tmp_path / "dark.png", tmp_path)
    assert (
        mask.any() and (mask == dermseg.load_model(bundle).segment(tmp_path / "dark.png").mask).mean() >= 0.99
    )
    page.close()


def test_page_finds_what_the_command_line_finds(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    try:
        data = request.getfixturevalue("data_dir")
    except pytest.skip.Exception:
        data = None
    paths = images(tmp_path, data)
    card = json.loads((page_folder / "card.json").read_text())
    model = dermseg.load_model(card["name"])
    assert card["variants"][card["default_variant"]]["sha256"] == model.sha256

    address = serve(page_folder)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("body[data-state=ready]")
    for path in paths:
        overlap = dice(outline(page, path, tmp_path), model.segment(path).mask)
        assert overlap >= 0.99, (path.name, overlap)
    page.screenshot(path=str(tmp_path / "page.png"))
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert {url.split("/")[2] for url in asked if not url.startswith("blob:")} == {address.split("/")[2]}

    # the same without a network
    page.wait_for_selector("body[data-offline=ready]")
    context.set_offline(True)
    page.reload()
    page.wait_for_selector("body[data-state=ready]")
    assert outline(page, paths[0], tmp_path).any()

    # what is no image is one message
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    page.set_input_files("#file", str(broken))
    page.get_by_text("broken.jpg is not an image").wait_for()
    assert "(smaller, if it is very large)" in page.inner_text("#message")
    assert page.inner_text("#area") == "–" and page.is_disabled("#save"), "nothing of the image before"
    assert not problems
    context.close()


def test_a_page_that_cannot_start_says_so(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    """From a file browsers load none of its programs, so that the page itself has to say it."""
    page = browser.new_page()
    page.goto((page_folder / "index.html").as_uri())
    page.get_by_text("the page was opened as a file").wait_for()
    page.goto(serve(page_folder))
    page.wait_for_selector("body[data-state=ready]")
    page.wait_for_timeout(3500)
    assert not page.is_visible("#start")
    torn = shutil.copytree(page_folder, tmp_path / "torn")
    (torn / "model.onnx").write_bytes(b"not found")
    page.goto(serve(torn))
    page.get_by_text("The model could not be loaded.").wait_for()
    assert page.inner_text("#model") == "–"
    page.close()


def test_transparent_pixels_are_white_as_on_the_command_line(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    picture, _, _ = synthesize(41, (300, 400))
    far = np.hypot(*np.mgrid[-150:150, -200:200])
    alpha = np.where(far < 145, 255, 0).astype(np.uint8)
    path = tmp_path / "round.png"
    Image.fromarray(np.dstack([picture, alpha])).save(path)
    page = browser.new_page()
    page.goto(serve(page_folder))
    assert dice(outline(page, path, tmp_path), fast_mask(page_folder, path)) >= 0.999
    assert float(page.inner_text("#area").split()[0]) == pytest.approx(
        100 * fast_mask(page_folder, path).mean(), abs=0.11
    )
    page.close()


def test_an_alpha_channel_that_hides_everything_is_left_out(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hidden.png"
    picture, _, _ = synthesize(41, (300, 400))
    Image.fromarray(np.dstack([picture, np.zeros((300, 400), np.uint8)])).save(path)
    page = browser.new_page()
    page.goto(serve(page_folder))
    assert dice(outline(page, path, tmp_path), fast_mask(page_folder, path)) >= 0.999
    page.evaluate("delete window.OffscreenCanvas")  # Safari before 16.4: nothing is known of the image
    page.set_input_files("#file", str(shutil.copy(path, tmp_path / "again.png")))
    page.get_by_text("again.png could not be analysed.").wait_for()
    page.close()


def test_answers_belong_to_the_image_on_show(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    """A small image is opened while a large one is decoded: neither its outline nor its mask may win."""
    small, large = tmp_path / "small.png", tmp_path / "large.jpg"
    Image.fromarray(synthesize(42, (200, 300))[0]).save(small)
    Image.fromarray(synthesize(43, (200, 300))[0]).resize((6000, 4000)).save(large)
    page = browser.new_page()
    page.goto(serve(page_folder))
    page.wait_for_selector("body[data-state=ready]")
    page.set_input_files("#file", str(large))
    assert page.is_disabled("#save") and page.inner_text("#area") == "looking …"
    mask = outline(page, small, tmp_path)
    assert mask.shape == (200, 300)
    page.wait_for_timeout(3000)
    assert page.get_attribute("#view", "aria-label") == "small.png with the outline of the lesion"
    assert dice(mask, fast_mask(page_folder, small)) >= 0.99
    page.close()


def test_of_several_dropped_images_one_is_opened_and_it_is_said(
    browser: Any, serve: Any, page_folder: Path
) -> None:
    page = browser.new_page()
    page.goto(serve(page_folder))
    page.wait_for_selector("body[data-state=ready]")
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(300, 200);
          canvas.getContext("2d").fillRect(100, 50, 80, 80);
          const image = await canvas.convertToBlob();
          const dataTransfer = new DataTransfer();
          for (const name of ["a.png", "b.png", "c.png"]) dataTransfer.items.add(new File([image], name));
          dispatchEvent(new DragEvent("drop", { dataTransfer }));
        }"""
    )
    page.wait_for_selector("body[data-state=done]")
    assert page.inner_text("#message").startswith("One image at a time: a.png was opened, 2 more not.")
    assert page.get_attribute("#view", "aria-label") == "a.png with the outline of the lesion"
    page.close()


def test_the_camera_makes_room_and_says_what_to_do(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(synthesize(44, (200, 300))[0]).save(path)
    page = browser.new_page()
    page.goto(serve(page_folder))
    page.click("#camera")
    page.get_by_text("or open a photograph instead").wait_for()  # there is no camera here
    # a moving picture in the camera's place
    page.evaluate(
        """() => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
          const context = canvas.getContext("2d");
          setInterval(() => {
            context.fillStyle = "#e8b89a";
            context.fillRect(0, 0, 320, 240);
            context.fillStyle = "#4a2c1c";
            context.fill(new Path2D("M110 120a50 50 0 1 0 100 0a50 50 0 1 0 -100 0"));
          }, 50);
          navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(20);
        }"""
    )
    page.click("#camera")
    page.get_by_role("button", name="Stop camera").wait_for()
    page.get_by_text("% of the image").wait_for()
    # a photograph is first shown as it is, without the outline of the camera's last picture
    lines = page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(300, 200), dataTransfer = new DataTransfer(), lines = [];
          canvas.getContext("2d");
          dataTransfer.items.add(new File([await canvas.convertToBlob({ type: "image/jpeg" })], "b.jpg"));
          const view = document.querySelector("#view").getContext("2d");
          view.beginPath = () => {
            lines.push(0);
            CanvasRenderingContext2D.prototype.beginPath.call(view);
          };
          view.lineTo = () => lines[lines.length - 1]++;
          dispatchEvent(new DragEvent("drop", { dataTransfer }));
          lines.length = 0;
          while (document.body.dataset.state !== "done") await new Promise((next) => setTimeout(next, 20));
          return lines;
        }"""
    )
    assert lines[0] == 0
    page.click("#camera")
    page.get_by_role("button", name="Stop camera").wait_for()
    mask = outline(page, path, tmp_path)
    page.get_by_role("button", name="Camera", exact=True).wait_for()
    assert mask.shape == (200, 300)
    page.close()


def test_a_camera_that_shows_nothing_is_switched_off(browser: Any, serve: Any, page_folder: Path) -> None:
    page = browser.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(serve(page_folder))
    page.wait_for_selector("body[data-state=ready]")
    page.evaluate(
        """() => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
          setInterval(() => canvas.getContext("2d").fillRect(0, 0, 320, 240), 50);
          navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(20);
          window.play = HTMLMediaElement.prototype.play; // an iPhone in low power mode
          HTMLMediaElement.prototype.play = async () => {
            throw new DOMException("not now", "NotAllowedError");
          };
        }"""
    )
    page.click("#camera")
    page.get_by_text("The camera shows no picture: not now.").wait_for()
    page.get_by_role("button", name="Camera", exact=True).wait_for()
    page.evaluate(
        """() => {
          HTMLMediaElement.prototype.play = window.play;
          window.createImageBitmap = async () => { throw new DOMException("no frame", "InvalidStateError"); };
        }"""
    )
    page.click("#camera")
    page.get_by_text("The camera shows no picture: no frame.").wait_for()
    page.get_by_role("button", name="Camera", exact=True).wait_for()
    page.close()


def test_two_pages_of_one_server_keep_their_files(
    browser: Any, serve: Any, page_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(page_folder, tmp_path / "fast")
    shutil.copytree(other_folder, tmp_path / "fast" / "-other")  # one inside of the other
    # what a page asks for by a navigation was kept by a fetch, which accepts something else
    address = serve(tmp_path, headers={"Vary": "Accept"}) + "fast/"
    context = browser.new_context()
    page = context.new_page()
    for part in ("", "-other/"):
        open_offline(page, address + part)
    context.set_offline(True)
    for part, name in (("", "fast"), ("-other/", "default")):
        page.goto(address + part)
        page.wait_for_selector("body[data-state=ready]")
        assert page.inner_text("#model").split()[0] == name
    context.close()


@pytest.mark.parametrize(("path", "target"), [("/index.html", "/"), ("/", "/index.html")])
def test_the_page_opens_again_where_a_server_redirects(
    browser: Any, serve: Any, page_folder: Path, path: str, target: str
) -> None:
    address = serve(page_folder, moved={path: target})
    context = browser.new_context()
    page = context.new_page()
    open_offline(page, address)
    context.set_offline(True)
    for name in ("", "index.html", "index.html?from=home"):
        page.goto(address + name)
        page.wait_for_selector("body[data-state=ready]")
    context.close()


def test_the_pixels_cannot_leave_the_worker(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    """At the first visit the documented header keeps them, later the page's own copy does without it."""
    policy = re.search(r"^Content-Security-Policy: (.*)", (WEB.parent / "docs/web.md").read_text(), re.M)
    assert policy is not None and f'content="{policy[1]}"' in (WEB / "src/index.html").read_text()
    isolated = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }
    path = tmp_path / "a.png"
    Image.fromarray(synthesize(45, (200, 300))[0]).save(path)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = serve(tmp_path / "elsewhere", headers={"Cross-Origin-Resource-Policy": "cross-origin"})
    ask = "url => fetch(url, { mode: 'no-cors' }).then(() => 'went out', () => 'refused')"
    for headers in ({}, {"Content-Security-Policy": policy[1], **isolated}):
        context = browser.new_context()
        page = context.new_page()
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        open_offline(page, serve(page_folder, headers=headers))
        for visit in ("first", "second"):
            assert page.evaluate("crossOriginIsolated") == bool(headers)
            assert outline(page, path, tmp_path).any()
            if headers or visit == "second":
                [worker] = [worker for worker in page.workers if worker.url.endswith("/worker.js")]
                assert worker.evaluate(ask, elsewhere) == "refused"
            page.reload()
            page.wait_for_selector("body[data-state=ready]")
        context.close()


def test_masks_of_large_images_have_their_size(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    Image.fromarray(synthesize(46, (250, 400))[0]).resize((8000, 5000)).save(path)
    page = browser.new_page()
    page.goto(serve(page_folder))
    mask = outline(page, path, tmp_path)
    assert page.inner_text("#message").startswith("large.jpg is large; it is analysed at 5181 x 3238.")
    assert dice(mask, fast_mask(page_folder, path)) >= 0.99
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L" and set(image.histogram()[1:-1]) == {0}
    page.close()


def test_photographs_of_an_iphone_fit_into_its_canvas(
    browser: Any, serve: Any, page_folder: Path, tmp_path: Path
) -> None:
    """Safari there draws nothing on a canvas of more than 4096 x 4096 pixels, and raises no error."""
    path = tmp_path / "iphone.jpg"
    Image.fromarray(synthesize(47, (357, 476))[0]).resize((5712, 4284)).save(path)
    page = browser.new_page()
    page.add_init_script(
        """for (const name of ["fillRect", "drawImage"]) {
          const draw = OffscreenCanvasRenderingContext2D.prototype[name];
          OffscreenCanvasRenderingContext2D.prototype[name] = function (...given) {
            if (this.canvas.width * this.canvas.height <= (window.most ?? 4096 ** 2)) draw.apply(this, given);
          };
        }"""
    )
    page.goto(serve(page_folder))
    assert dice(outline(page, path, tmp_path), fast_mask(page_folder, path)) >= 0.99
    page.evaluate("window.most = 2048 ** 2")  # less memory still
    page.set_input_files("#file", str(shutil.copy(path, tmp_path / "again.jpg")))
    page.get_by_text("(nothing can be drawn at 4729 x 3547)").wait_for()
    assert page.inner_text("#area") == "–" and page.is_disabled("#save")
    page.close()


def test_of_several_maps_the_first_one_counts(
    browser: Any, serve: Any, build: Callable[..., Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    """A second map that is lesion where the first one is not."""
    onnx = pytest.importorskip("onnx")
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    network = onnx.load(bundle / "model.onnx")
    weight = onnx.numpy_helper.to_array(network.graph.initializer[0])
    network.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.concatenate([weight, -weight]), "weight")
    )
    network.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    data = network.SerializeToString()
    (bundle / "model.onnx").write_bytes(data)
    card = json.loads((bundle / "card.json").read_text())
    card["variants"]["fp32"] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    card["postprocessing"]["min_area_fraction"] = 0
    (bundle / "card.json").write_text(json.dumps(card))
    page = browser.new_page()
    page.goto(serve(build(bundle)))
    for name, grey in (("dark.png", 40), ("bright.png", 250)):
        picture = np.full((90, 120, 3), 250, np.uint8)
        picture[30:60, 40:80] = grey
        Image.fromarray(picture).save(tmp_path / name)
        mask = outline(page, tmp_path / name, tmp_path)
        assert (mask == dermseg.load_model(bundle).segment(tmp_path / name).mask).mean() >= 0.99
        assert (page.inner_text("#area") == "no lesion found") == (grey == 250) == (not mask.any())
    page.close()


def test_an_update_is_said(
    browser: Any, serve: Any, page_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    address = serve(tmp_path / "page")
    (tmp_path / "page").symlink_to(page_folder)
    context = browser.new_context()
    page = context.new_page()
    open_offline(page, address)
    page.evaluate(
        "new Promise((done) => setInterval(() => navigator.serviceWorker.controller && done(), 50))"
    )
    assert not page.is_visible("#update"), "nothing has changed"
    new = shutil.copytree(other_folder, tmp_path / "new-page")
    later = time.time() + 60
    os.utime(new / "sw.js", (later, later))  # the server tells versions apart by whole seconds
    (tmp_path / "new").symlink_to(new)
    (tmp_path / "new").replace(tmp_path / "page")  # at once: the browser may look at any moment
    page.reload()
    page.wait_for_selector("body[data-state=ready]")
    assert page.inner_text("#model").split()[0] == "fast"
    page.get_by_text("A new version is ready.").wait_for()
    page.click("#reload")
    page.locator("#model", has_text="default").wait_for()
    assert not page.is_visible("#update")
    context.close()


def test_half_an_update_is_not_taken(
    browser: Any, serve: Any, page_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    """All files of the new version but the model, as an upload or a proxy may have it for a while."""
    site = tmp_path / "page"
    shutil.copytree(page_folder, site)
    address = serve(site)
    context = browser.new_context()
    page = context.new_page()
    open_offline(page, address)
    later = time.time() + 60
    for path in other_folder.iterdir():
        if path.name != "model.onnx":
            shutil.copy(path, site / path.name)
            os.utime(site / path.name, (later, later))  # the server tells versions apart by whole seconds
    fresh = browser.new_context().new_page()  # of somebody who was not here before
    fresh.goto(address)
    fresh.get_by_text("The model could not be loaded.").wait_for()
    fresh.context.close()
    for _ in range(2):
        page.reload()
        page.wait_for_selector("body[data-state=ready]")
        page.wait_for_timeout(2000)
        assert page.inner_text("#model").split()[0] == "fast" and not page.is_visible("#update")
    shutil.copy(other_folder / "model.onnx", site / "model.onnx")
    os.utime(site / "model.onnx", (later, later))
    page.reload()
    page.get_by_text("A new version is ready.").wait_for()
    page.click("#reload")
    page.locator("#model", has_text="default").wait_for()
    page.wait_for_selector("body[data-state=ready]")
    context.close()


def open_offline(page: Any, address: str) -> None:
    """Open the page and wait until it has its own files."""
    page.goto(address)
    page.wait_for_selector("body[data-state=ready]")
    page.wait_for_selector("body[data-offline=ready]")


def fast_mask(page_folder: Path, path: Path) -> np.ndarray:
    """The command line's mask, of the model that the page has."""
    return dermseg.load_model(json.loads((page_folder / "card.json").read_text())["name"]).segment(path).mask


def outline(page: Any, path: Path, folder: Path) -> np.ndarray:
    """The mask that the page saves for an image."""
    page.evaluate("document.body.dataset.state = 'asked'")
    page.set_input_files("#file", str(path))
    page.wait_for_selector("body[data-state=done]")
    with page.expect_download() as download:
        page.click("#save")
    target = folder / "mask.png"
    download.value.save_as(target)
    assert download.value.suggested_filename == f"{path.stem}_segmentation.png"
    return load_mask(target)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks of one size."""
    assert a.shape == b.shape
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
