"""The static page in a real browser: same masks as the command line, nothing sent, works offline."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dermseg
from dermseg.data.sources.synthetic import write_synthetic
from dermseg.images import find_images
from dermseg.images.masks import load_mask

WEB = Path(__file__).resolve().parents[2] / "web"


@pytest.fixture(scope="module")
def page_folder() -> Path:
    """The built page."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (apt-get install npm)")
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=WEB, check=True, capture_output=True)
    subprocess.run(["npm", "run", "build"], cwd=WEB, check=True, capture_output=True)
    return WEB / "dist"


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
    assert not problems
    context.close()


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
