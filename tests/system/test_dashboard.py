"""The dashboard as people use it: Debian's Chromium, driven by Playwright, against the installed program."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
from PIL import Image

import dermseg
from dermseg.data.synthetic import synthesize
from dermseg.images import encode_jpeg, load_mask, save_mask
from dermseg.images.heic import heic_installed

pytest.importorskip("streamlit", reason="needs the extra 'dashboard'")
ROOT = Path(__file__).resolve().parents[2]
WAIT_MS = 90_000
PROGRAM = [sys.executable, "-m", "dermseg.apps.cli.main"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """20 files: 19 drawn lesions in three formats, and one that is cut off."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number in range(20):
        image, mask, _ = synthesize(500 + number, (360, 480))
        path = folder / f"lesion-{number:02d}.{('jpg', 'png', 'tif')[number % 3]}"
        Image.fromarray(image).save(path)
        paths.append(path)
        if number == 0:
            save_mask(mask, folder / "reference.png")
    paths[7] = folder / "lesion-broken.jpg"
    paths[7].write_bytes(encode_jpeg(image)[:900])
    return paths


@pytest.fixture(scope="module")
def second_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model under a card with a higher threshold: another model for the comparison."""
    source = dermseg.load_model().bundle.path
    folder = tmp_path_factory.mktemp("models") / "cautious"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    card = (folder / "card.json").read_text()
    (folder / "card.json").write_text(re.sub(r'("threshold": )[0-9.]+', r"\g<1>0.95", card, count=1))
    return folder


@pytest.fixture(scope="module")
def address(second_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running ``dermseg dashboard``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "dashboard.log"
    command = [*PROGRAM, "dashboard", "--no-browser", "--port", str(port), "--max-upload-mb", "20"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--model", "default", "--model", str(second_model)], stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        # A tab that is closed leaves a trace of Streamlit's own in the log; none may lead through the pages.
        assert "page_" not in log.read_text()
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A tab that talks to nobody but the program."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    asked: set[str] = set()
    page.on("request", lambda r: asked.add(r.url) if r.url.startswith(("http", "ws")) else None)
    yield page
    assert all(url.split("/")[2] == address.split("/")[2] for url in asked), asked
    context.close()


def shoot(page: Any, name: str) -> None:
    """Keep a picture for docs/images where DERMSEG_SCREENSHOTS names a folder."""
    folder = os.environ.get("DERMSEG_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def settle(page: Any) -> None:
    """Wait until the program has had nothing to do for this page for a while: one run may follow another."""
    app, idle = page.locator('[data-testid="stApp"]'), 0
    for _ in range(WAIT_MS // 200):
        page.wait_for_timeout(200)
        idle = idle + 1 if app.get_attribute("data-test-script-state") == "notRunning" else 0
        if idle == 3:
            return
    raise AssertionError("the program never came to rest")


def upload(page: Any, *files: Any) -> None:
    page.locator('input[type="file"]').first.set_input_files(
        [f if isinstance(f, dict) else str(f) for f in files]
    )


def download(page: Any, name: str) -> bytes:
    settle(page)
    with page.expect_download() as found:
        page.get_by_role("button", name=name).click()
    return Path(found.value.path()).read_bytes()


def shown(page: Any) -> str:
    """What the result's picture is, as text."""
    return str(page.locator("img.after").get_attribute("src"))


def show(page: Any, kind: str) -> None:
    page.get_by_test_id("stButtonGroup").get_by_text(kind, exact=True).click()
    settle(page)


def segment(folder: Path, *images: Path) -> dict[str, bytes]:
    """The masks that the command line writes, by their names."""
    command = [*PROGRAM, "segment", *map(str, images), "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a broken file among them
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in (folder / "masks").iterdir()}


def area(page: Any) -> float:
    # the last: while Streamlit draws the page anew, what it replaces may stand there for a moment
    text = page.get_by_test_id("stMetric").filter(has_text="Lesion").last.inner_text()
    return float(re.search(r"([\d.]+) %", text)[1])  # type: ignore[index]


def test_one_image(page: Any, address: str, pictures: list[Path], tmp_path: Path) -> None:
    page.goto(address)
    page.get_by_text("Find the lesion").wait_for()
    shoot(page, "dashboard-start")
    upload(page, pictures[0])
    page.get_by_text(pictures[0].name, exact=True).first.wait_for()
    page.locator("img.after").wait_for()
    settle(page)
    data = download(page, "Mask (PNG)")
    assert [data] == list(segment(tmp_path / "out", pictures[0]).values()), "byte for byte"
    mask = load_mask(data)
    shoot(page, "dashboard-image")

    before, picture = area(page), shown(page)
    assert before == pytest.approx(100 * mask.mean(), abs=0.051)
    thumb = page.get_by_role("slider", name="Threshold")
    thumb.focus()
    for _ in range(30):
        thumb.press("ArrowRight")
    for _ in range(WAIT_MS // 200):
        if shown(page) != picture and area(page) < before:  # the first step changes only the picture
            break
        page.wait_for_timeout(200)
    settle(page)
    assert area(page) < before

    seen = {shown(page)}
    show(page, "Uncertainty")
    page.get_by_text("Entropy: all the doubt").wait_for()
    for name in ("Mean", "Standard deviation", "Entropy"):
        show(page, name)
        page.get_by_text(re.compile(f"^{name}: ")).wait_for()
        seen.add(shown(page))
    assert len(seen) == 4
    shoot(page, "dashboard-uncertainty")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1", "http://127.0.0.1", b"101"),
        ("localhost", "http://localhost", b"101"),
        ("127.0.0.1", "http://evil.example", b"403"),
        ("evil.example", "http://evil.example", b"403"),  # a name that was given the address 127.0.0.1
    ],
)
def test_only_its_own_page_gets_at_it(address: str, host: str, origin: str, status: bytes) -> None:
    port = int(address.rpartition(":")[2].rstrip("/"))
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {origin}:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: streamlit\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode())
        assert connection.recv(100).split()[1] == status


def test_grad_cam(page: Any, address: str, pictures: list[Path]) -> None:
    pytest.importorskip("torch", reason="Grad-CAM needs the extra 'train'")
    page.goto(address)
    upload(page, pictures[0])
    page.locator("img.after").wait_for()
    show(page, "Grad-CAM")
    page.get_by_text(re.compile("Grad-CAM, layer decoder_1")).wait_for()
    first = shown(page)
    shoot(page, "dashboard-gradcam")
    page.get_by_role("combobox", name=re.compile("Layer")).click()
    page.get_by_role("option", name="decoder_2").click()
    page.get_by_text(re.compile("Grad-CAM, layer decoder_2")).wait_for()
    settle(page)
    assert shown(page) != first


def test_a_ruler_gives_millimetres(page: Any, address: str, pictures: list[Path]) -> None:
    page.goto(address)
    upload(page, pictures[0])
    page.locator("img.after").wait_for()
    settle(page)
    page.get_by_text("Set the scale on a ruler").click()
    page.get_by_text("0 of 2 so far").wait_for()
    box = page.locator(".stage").bounding_box()
    page.locator("img.before").evaluate("image => image.removeAttribute('src')")  # as before it is decoded
    assert page.locator(".stage").bounding_box() == box, "marks stay where they were clicked"
    page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.5 * box["height"])
    page.get_by_text("1 of 2 so far").wait_for()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"])
    page.get_by_text("Millimetres appear when").wait_for(state="detached")
    page.get_by_text(re.compile(r"1 pixel is 0\.04\d* mm")).wait_for()  # 10 mm on half of 480 pixels
    shoot(page, "dashboard-ruler")


def test_the_scale_of_one_image_is_never_that_of_another(
    page: Any, address: str, pictures: list[Path], tmp_path: Path
) -> None:
    for number in (0, 3):
        with zipfile.ZipFile(tmp_path / f"patient-{number}.zip", "w") as archive:
            archive.write(pictures[number], "IMG_1.jpg")
    page.goto(address)
    upload(page, tmp_path / "patient-0.zip", tmp_path / "patient-3.zip")
    page.locator("img.after").wait_for()
    settle(page)
    page.get_by_text("Set the scale on a ruler").click()
    page.get_by_text("0 of 2 so far").wait_for()
    page.get_by_label("Distance between").fill("25")
    page.get_by_label("Distance between").press("Enter")
    settle(page)
    box = page.locator(".stage").bounding_box()
    page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.5 * box["height"])
    page.get_by_text("1 of 2 so far").wait_for()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"])
    page.get_by_text(re.compile(r"1 pixel is 0\.10\d* mm")).wait_for()  # 25 mm on half of 480 pixels
    chosen, field = (
        page.get_by_role("combobox", name=re.compile("Image")),
        page.get_by_test_id("stFileUploader"),
    )
    assert chosen.bounding_box()["y"] < field.bounding_box()["y"], "not below a list of files"
    chosen.click()
    page.get_by_role("option", name="patient-3.zip: IMG_1.jpg").click()
    page.get_by_text("0 of 2 so far").wait_for()
    settle(page)
    assert page.get_by_text("Millimetres appear when").count() == 1
    assert page.locator(".stage circle").count() == 0
    assert float(page.get_by_label("Distance between").input_value()) == 10


def test_many_images_with_a_broken_one(page: Any, address: str, pictures: list[Path], tmp_path: Path) -> None:
    page.goto(f"{address}/batch")
    upload(page, *pictures)
    page.get_by_role("button", name="Segment").click()
    ends = page.get_by_text("Another page or another setting ends it.")
    ends.wait_for()
    page.get_by_role("button", name="Everything (ZIP)").wait_for()
    assert ends.count() == 0 and page.get_by_test_id("stAlert").count() == 1
    assert pictures[7].name in page.get_by_test_id("stAlert").inner_text()
    shoot(page, "dashboard-batch")
    data = download(page, "Everything (ZIP)")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        masks = {name: archive.read(name) for name in archive.namelist() if name.startswith("masks/")}
        table = archive.read("results.csv").decode()
    assert len(masks) == 19 and masks == segment(tmp_path / "out", *pictures), "byte for byte"
    assert table.count("\n") == 21 and re.search(r"lesion-broken.jpg,failed,", table)


def test_buttons_can_be_read_in_the_dark(browser: Any, address: str, pictures: list[Path]) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(f"{address}/batch")
    upload(page, pictures[0])
    button = page.get_by_role("button", name="Segment")
    button.wait_for()
    colour = "element => getComputedStyle(element)"
    assert button.evaluate(f"{colour}.backgroundColor") == "rgb(86, 180, 233)"
    assert button.evaluate(f"{colour}.color") == "rgb(14, 17, 22)"
    context.close()


def test_a_zip_without_images_is_said(page: Any, address: str, pictures: list[Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("notes.txt", "none")
    page.goto(f"{address}/batch")
    upload(page, tmp_path / "none.zip")
    page.get_by_role("button", name="Segment").click()
    page.get_by_text("there is no image in none.zip").wait_for()
    settle(page)
    assert page.get_by_text("Loading the model").count() == 0
    page.get_by_role("button", name="Remove none.zip").click()
    settle(page)
    upload(page, tmp_path / "none.zip", pictures[0])
    settle(page)
    page.get_by_role("button", name="Segment").click()
    page.get_by_role("button", name="Everything (ZIP)").wait_for()
    page.get_by_text("there is no image in none.zip").wait_for()


def test_names_of_files_are_no_markup(page: Any, address: str, pictures: list[Path]) -> None:
    names = ["*left* arm ~~1~~ $a$ and $b$ _x_.jpg", "![x](/no.png) `c` [d](e).jpg"]
    files = [{"name": name, "mimeType": "image/jpeg", "buffer": pictures[7].read_bytes()} for name in names]
    page.goto(f"{address}/batch")
    upload(page, *files, {**files[0], "name": "whole $a$ *b*.jpg", "buffer": pictures[0].read_bytes()})
    page.get_by_role("button", name="Segment").click()
    page.get_by_role("button", name="Everything (ZIP)").wait_for()
    alerts = page.get_by_test_id("stAlert").all_inner_texts()
    assert names[0] in "".join(alerts) and "`c` [d](e).jpg" in "".join(alerts)
    page.get_by_text("whole $a$ *b*.jpg").last.wait_for()
    assert page.locator('[data-testid="stMain"] img[alt="x"]').count() == 0


def test_results_never_stay_under_other_settings(page: Any, address: str, pictures: list[Path]) -> None:
    page.goto(f"{address}/batch")
    upload(page, pictures[0])
    page.get_by_role("button", name="Segment").click()
    archive = page.get_by_role("button", name="Everything (ZIP)")
    archive.wait_for()
    page.get_by_text("Made with the model default: the largest lesion.").wait_for()
    page.get_by_text("All lesions", exact=True).click()
    archive.wait_for(state="detached")
    page.get_by_text("The results at hand were made with the model default: the largest lesion.").wait_for()
    page.get_by_text("All lesions", exact=True).click()
    archive.wait_for()
    page.get_by_role("combobox", name=re.compile("Model")).click()
    page.get_by_role("option", name="cautious").click()
    archive.wait_for(state="detached")
    page.get_by_role("button", name="Segment").click()
    page.get_by_text("Made with the model cautious: the largest lesion.").wait_for()
    archive.wait_for()


def test_dicom(page: Any, address: str) -> None:
    pytest.importorskip("pydicom", reason="needs the extra 'dicom'")
    from pydicom.filebase import DicomBytesIO

    sys.path.insert(0, str(ROOT / "tests" / "dicom"))
    try:
        from files import photograph
    finally:
        sys.path.pop(0)
    image, _, _ = synthesize(500, (360, 480))
    stored = DicomBytesIO()
    photograph(image, spacing=(0.05, 0.05)).save_as(stored, enforce_file_format=True)
    page.goto(address)
    upload(page, {"name": "a.dcm", "mimeType": "application/dicom", "buffer": stored.getvalue()})
    page.locator("img.after").wait_for()
    settle(page)
    page.get_by_text(re.compile("^DICOM, 480 x 360")).wait_for()
    page.get_by_text("1 pixel is 0.0500 mm wide.").wait_for()
    mask = load_mask(download(page, "Mask (PNG)"))
    assert np.array_equal(mask, dermseg.load_model().segment(image).mask)
    shoot(page, "dashboard-dicom")


def test_follow(page: Any, address: str, tmp_path: Path) -> None:
    """The same lesion from farther away and turned: the skin says that it has not grown."""
    picture = synthesize(3, (480, 640))[0]
    matrix = cv2.getRotationMatrix2D((320, 240), 30, 0.85)
    later = cv2.warpAffine(picture, matrix, (640, 480), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    for number, shot in enumerate((picture, later), 1):
        (tmp_path / f"visit{number}.jpg").write_bytes(encode_jpeg(np.ascontiguousarray(shot)))
    (tmp_path / "visit3.jpg").write_bytes((tmp_path / "visit1.jpg").read_bytes()[:900])
    page.goto(f"{address}/follow")
    page.get_by_text("Give two photographs of one lesion").wait_for()
    page.locator('input[type="file"]').set_input_files([str(p) for p in sorted(tmp_path.glob("*.jpg"))])
    page.get_by_text(re.compile("^visit3.jpg: the file is truncated")).wait_for()
    settle(page)
    shoot(page, "dashboard-follow")
    words = page.get_by_text(re.compile("^visit2.jpg\\s+area")).inner_text()
    change = float(re.search(r"area (\S+) %", words)[1].replace("\u2212", "-"))  # type: ignore[index]
    assert abs(change) < 8
    report = download(page, "Report (HTML)").decode()
    assert "Lesions over time" in report and report.count("<img") == 2


def test_compare(page: Any, address: str, pictures: list[Path]) -> None:
    page.goto(f"{address}/compare")
    page.get_by_text("Give an image and its reference mask").wait_for()
    upload(page, pictures[0])
    settle(page)
    page.locator('input[type="file"]').last.set_input_files(str(pictures[0].parent / "reference.png"))
    page.locator("img.after").wait_for()
    settle(page)
    shoot(page, "dashboard-compare")
    prediction = dermseg.load_model().segment(pictures[0]).mask
    reference = load_mask(pictures[0].parent / "reference.png")
    dice = 2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())
    assert f"{dice:.3f}" in page.get_by_test_id("stMetric").first.inner_text()
    page.get_by_text("Second model", exact=True).first.click()
    page.get_by_text("only the second model has it").wait_for()
    settle(page)
    text = page.get_by_test_id("stMetric").first.inner_text()
    assert 0.5 < float(text.split()[-1]) < 1


def test_a_broken_file_is_one_message(page: Any, address: str, pictures: list[Path]) -> None:
    page.set_viewport_size({"width": 390, "height": 800})  # a phone: the sidebar is out of sight
    page.goto(address)
    page.get_by_text("Find the lesion").wait_for()
    upload(page, pictures[7])
    page.get_by_test_id("stMain").get_by_test_id("stAlert").wait_for()
    settle(page)
    assert page.get_by_test_id("stAlert").count() == 1
    assert page.get_by_test_id("stSidebar").get_by_text("not a medical device").count() == 1
    assert page.get_by_test_id("stSidebar").get_by_text("All lesions").count() == 1
    assert "Traceback" not in page.inner_text("body")


def test_files_and_results_are_there_after_a_look_at_another_page(
    page: Any, address: str, pictures: list[Path]
) -> None:
    page.goto(f"{address}/batch")
    page.get_by_role("heading", name="Many images").wait_for()
    settle(page)
    upload(page, *pictures[:3])
    settle(page)
    page.get_by_role("button", name="Segment").click()
    page.get_by_role("button", name="Everything (ZIP)").wait_for()
    settle(page)
    pictures_without_text = page.locator("img:not([alt])").count() + page.locator('img[alt=""]').count()
    assert pictures_without_text == 0
    page.get_by_role("link", name="One image").click()
    page.get_by_text("Find the lesion").wait_for()
    settle(page)
    page.get_by_role("link", name="Many images").click()
    page.get_by_text(re.compile(f"Still here: {re.escape(pictures[0].name)}")).wait_for()
    page.get_by_role("button", name="Everything (ZIP)").wait_for()
    settle(page)
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Everything (ZIP)").wait_for(state="detached")
    settle(page)
    page.get_by_role("link", name="One image").click()
    page.get_by_role("link", name="Many images").click()
    page.get_by_role("heading", name="Many images").wait_for()
    settle(page)
    assert page.get_by_text("Still here").count() == 0


def test_a_phone_says_that_it_is_no_medical_device(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 667})
    page.goto(address)
    page.locator("p.phone", has_text="not a medical device").wait_for()
    page.set_viewport_size({"width": 1400, "height": 900})
    page.locator("p.phone").wait_for(state="hidden")
    accepted = str(page.locator('input[type="file"]').first.get_attribute("accept"))
    assert (".heic" in accepted) == heic_installed()  # without it an iPhone hands over JPEG
    page.close()


def test_many_failures_do_not_push_the_results_off_the_page(page: Any, address: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        for number in range(12):
            archive.writestr(f"IMG_{number}.avif", b"\0\0\0\x18ftypavif" + bytes(50))
        archive.writestr("flat.png", encode_jpeg(np.full((300, 400, 3), 180, np.uint8)))
    page.goto(f"{address}/batch")
    page.get_by_role("heading", name="Many images").wait_for()
    settle(page)
    upload(page, broken)
    settle(page)
    page.get_by_role("button", name="Segment").click()
    page.get_by_role("button", name="Everything (ZIP)").wait_for()
    settle(page)
    assert page.get_by_text("AVIF files are not read").count() == 5
    page.get_by_text("... and 7 more").wait_for()
    page.get_by_text("By their verdict 0 to review, 1 rejected.").wait_for()
    page.get_by_text("no lesion found").wait_for()
