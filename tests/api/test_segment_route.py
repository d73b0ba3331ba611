"""One image in, one answer out: the masks are those of the command, and everything wrong has its status."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra [api]")

from dermseg.apps.api.answers import encode_rle, mask_answer, negotiate
from dermseg.apps.api.engine import Engine
from dermseg.apps.api.metrics import Metrics
from dermseg.apps.api.task import Ask, Task
from dermseg.apps.cli.main import main
from dermseg.audit import verdict_of, verify
from dermseg.images.contours import Polygon, polygons_to_mask
from dermseg.images.masks import load_mask
from dermseg.inference.predictor import load_model

Client = Any  # httpx.Client
Make = Callable[..., bytes]
PNG = {"Content-Type": "image/png"}


def audit_lines(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]


def command(tiny_bundle: Path, images: Path, out: Path) -> dict[str, bytes]:
    """What ``dermseg segment`` writes: name -> bytes, of masks and overlays."""
    with pytest.raises(SystemExit) as stop:
        main(
            ["segment", str(images), "-o", str(out), "--model", str(tiny_bundle), "--runtime", "onnxruntime"]
        )
    assert not stop.value.code
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*g")}


def test_masks_and_overlays_are_those_of_the_command(
    encoded: Make, client: Client, tiny_bundle: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed, extension in enumerate([".png", ".jpg", ".tiff", ".bmp", ".webp"]):
        (images / f"{seed}{extension}").write_bytes(encoded(extension, seed, (150 + 100 * seed, 200)))
    Image.open(images / "1.jpg").save(images / "5.jpg", exif=_turned())
    expected = command(tiny_bundle, images, tmp_path / "out")
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as table:
        rows = {row["file"]: row for row in csv.DictReader(table)}
    for path in sorted(images.iterdir()):
        mask = client.post("/v1/segment", content=path.read_bytes(), headers={"Accept": "image/png"})
        assert mask.status_code == 200, mask.text
        assert mask.content == expected[f"masks/{path.stem}_segmentation.png"]
        picture = client.post(
            "/v1/segment", files={"image": path.read_bytes()}, headers={"Accept": "image/jpeg"}
        )
        assert picture.content == expected[f"overlays/{path.stem}.jpg"]
        answer = client.post("/v1/segment?geometry=both", content=path.read_bytes(), headers=PNG).json()
        size = answer["height"], answer["width"]
        wanted = load_mask(mask.content, size=size)
        assert (decode_rle(answer["rle"]) == wanted).all()
        assert (decode_polygons(answer["polygons"], size) == wanted).all()
        assert answer["output_sha256"] == hashlib.sha256(mask.content).hexdigest()
        assert answer["area_px"] == wanted.sum() and answer["status"] == "ok"
        row = rows[path.name]
        for key in ("area_fraction", "confidence", "area_px", "components_removed", "lesions"):
            assert answer[key] == float(row[key]), key
        assert answer["centroid"] == [float(row["centroid_x"]), float(row["centroid_y"])]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    values = np.repeat(np.arange(len(rle["counts"])) % 2 == 1, rle["counts"])
    return values.reshape(rle["size"], order="F")


def decode_polygons(regions: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    def points(given: list[list[float]]) -> np.ndarray:
        return np.array(given, np.float32)

    polygons = [Polygon(points(r["outer"]), tuple(map(points, r["holes"]))) for r in regions]
    return polygons_to_mask(polygons, size)


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=100, deadline=None)
def test_run_lengths_give_the_mask_back(mask: np.ndarray) -> None:
    rle = encode_rle(mask).model_dump()
    assert (decode_rle(rle) == mask).all() and sum(rle["counts"]) == mask.size


def test_requests_side_by_side_share_network_calls_and_get_the_same_masks(
    encoded: Make,
    serve: Callable[..., Client],
) -> None:
    client = serve(workers=1, queue=64, max_batch=8)
    images = [encoded(".png", seed, (100 + seed, 120)) for seed in range(12)]

    def mask(data: bytes) -> bytes:
        return client.post("/v1/segment", content=data, headers={"Accept": "image/png"}).content

    alone = [mask(data) for data in images]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(mask, images * 4))
    assert together == alone * 4
    counts = client.get("/metrics").text
    assert 'dermseg_images_total{status="ok"} 60.0' in counts
    calls = next(line for line in counts.splitlines() if line.startswith("dermseg_batch_images_count"))
    assert float(calls.split()[1]) < 60


def test_a_network_call_that_fails_costs_its_own_images_alone(
    encoded: Make, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, all images that a worker had taken together got the error, and none was counted."""
    model, metrics = load_model(tiny_bundle, threads=1), Metrics()
    look, told = model.look, {}

    def small(inputs: np.ndarray, *, tta: bool = False) -> Any:
        if tta:
            raise MemoryError
        return look(inputs, tta=tta)

    monkeypatch.setattr(model, "look", small)
    engine = Engine({"m": model}, workers=1, max_batch=4, queue=4, max_pixels=10**8, metrics=metrics)
    try:
        engine._work(
            [
                Task(encoded(), Ask("m", tta=tta), mask_answer, partial(told.__setitem__, tta))
                for tta in (True, False)
            ]
        )
    finally:
        engine.stop()
    assert isinstance(told[True], MemoryError) and told[False][0].result.status == "ok"
    counts = metrics.text().decode()
    assert all(f'dermseg_images_total{{status="{status}"}} 1.0' in counts for status in ("ok", "failed"))


def test_options_change_the_result_and_unknown_ones_are_refused(client: Client) -> None:
    two = np.full((100, 200, 3), 220, np.uint8)
    cv2.circle(two, (50, 50), 25, (30, 30, 30), -1)
    cv2.circle(two, (150, 50), 15, (30, 30, 30), -1)
    data = bytes(cv2.imencode(".png", two)[1])
    one = client.post("/v1/segment?measure=true", content=data, headers=PNG).json()
    both = client.post("/v1/segment?lesions=all&tta=true", content=data, headers=PNG).json()
    each = client.post("/v1/segment?lesions=all&measure=true", content=data, headers=PNG).json()["readings"]
    assert [reading["lesion"] for reading in each] == [1, 2] and one["readings"] is None
    assert [reading["feret_max_px"] for reading in each] == pytest.approx([50, 30], abs=5)
    assert (one["lesions"], both["lesions"]) == (1, 2) and both["area_px"] > one["area_px"]
    assert one["reading"]["feret_max_px"] == pytest.approx(50, abs=5) and one["reading"]["area_mm2"] is None
    for query in ("treshold=0.4", "threshold=0", "threshold=nan", "lesions=some", "model=" + "x" * 200):
        answer = client.post(f"/v1/segment?{query}", content=data, headers=PNG)
        assert answer.status_code == 422 and answer.json()["errors"], query
    assert client.post("/v1/segment?model=other", content=data).status_code == 404


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", PNG, 400),
        (b"hello", PNG, 422),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), PNG, 422),
        (b"any", {"Content-Type": "text/html"}, 415),
        (b"any", {"Content-Encoding": "gzip"}, 415),
        (b"any", {"Accept": "text/html"}, 406),
        (b"--x\r\n", {"Content-Type": "multipart/form-data"}, 400),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        (b"a" * 3_000_000, PNG, 413),
    ],
)
def test_what_is_wrong_has_its_status(
    serve: Callable[..., Client], body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = serve(max_body_mb=2).post("/v1/segment", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_a_form_needs_exactly_the_image(encoded: Make, client: Client) -> None:
    import httpx

    data = encoded()
    for form in ({"image": data, "other": data}, {"file": data}):
        answer = client.post("/v1/segment", files=form)
        assert answer.status_code == 400 and "image" in answer.json()["detail"]
    # Known at the second part: what follows, perhaps a million parts more, is not gone through.
    part = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/segment", content=2 * part, headers=kind)
    assert answer.status_code == 400 and "one field" in answer.json()["detail"]
    assert "in the address" in answer.json()["hint"]  # where parameters were sent as further fields
    assert client.post("/v1/segment", files={"image": ("Anna Miller.png", data)}).status_code == 200
    # What curl says unless told otherwise, what iPhones and many programs say; the content decides.
    for said in ("application/x-www-form-urlencoded", "image/heic", "image/jpg"):
        headers = {"Content-Type": said}
        assert client.post("/v1/segment", content=data, headers=headers).status_code == 200
    lines = httpx.Headers([("Accept", "text/html"), ("Accept", "image/png")])
    assert client.post("/v1/segment", content=data, headers=lines).headers["content-type"] == "image/png"


def test_a_bomb_is_refused_before_it_is_decoded(client: Client) -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 200_000
    answer = client.post("/v1/segment", content=buffer.getvalue(), headers=PNG)
    assert answer.status_code == 422 and "megapixels" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (("ok", "accept", False), "accept"),
        (("ok", "reject", False), "reject"),
        (("ok", "reject", True), "reject"),
        (("no_lesion", "review", None), "review"),
        (("ok", None, True), "review"),  # from here on a bundle without a gate
        (("ok", None, None), "ok"),
        (("no_lesion", None, True), "no_lesion"),
    ],
)
def test_the_log_says_what_the_result_said(given: tuple[str, str | None, bool | None], recorded: str) -> None:
    assert verdict_of(*given) == recorded


def test_what_the_gate_refuses_is_refused_in_the_audit_log(
    serve: Callable[..., Client], tmp_path: Path
) -> None:
    client = serve(models=("default",))
    black = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    answer = client.post("/v1/segment", content=black, headers=PNG)
    assert answer.json()["verdict"] == "reject" == audit_lines(tmp_path / "state")[-1]["verdict"]


def test_every_result_leaves_an_audit_record(
    encoded: Make, bearer: Callable[..., dict[str, str]], client: Client, tmp_path: Path
) -> None:
    data = encoded()
    answer = client.post("/v1/segment", content=data, headers=PNG)
    seq, _, digest = answer.headers["audit-record"].partition(":")
    client.post("/v1/segment", content=b"not an image", headers=PNG)  # no result, no record
    record = audit_lines(tmp_path / "state")[-1]
    assert (record["seq"], record["hash"]) == (int(seq), digest)
    assert record["actor"] == "ris" and record["verdict"] == "ok"
    assert record["input_sha256"] == hashlib.sha256(data).hexdigest() == answer.json()["input_sha256"]
    assert record["output_sha256"] == answer.json()["output_sha256"]
    assert record["model_sha256"] == answer.json()["model"]["sha256"]
    assert record["subject"] == f"request/{answer.headers['x-request-id']}"
    # A person decides otherwise.
    path = f"/v1/audit/{seq}/override"
    decided = client.post(path, json={"decision": "rejected"}, headers=bearer("viewer"))
    assert decided.status_code == 201 and client.get("/v1/audit").json() == decided.json()
    override = audit_lines(tmp_path / "state")[-1]
    assert (override["actor"], override["override"], override["subject"]) == (
        "viewer",
        "rejected",
        f"seq/{seq}",
    )
    assert client.post("/v1/audit/1/override", json={"decision": "rejected"}).status_code == 404
    assert client.post(path, json={"decision": "Anna Miller is fine"}).status_code == 422
    large = client.post(path, json={"decision": "x" * 100_000})
    assert large.status_code == 413 and "larger than" in large.json()["detail"]
    form = client.post(path, content=b'{"decision": "rejected"}', headers={"Content-Type": "text/plain"})
    assert form.status_code == 422 and "Content-Type" in form.json()["hint"]
    assert verify(tmp_path / "state" / "audit.jsonl").ok


def test_without_an_audit_record_there_is_no_result(encoded: Make, client: Client, tmp_path: Path) -> None:
    with (tmp_path / "state" / "audit.jsonl").open("ab") as file:  # somebody writes into the log
        file.write(b'{"seq":2,"time":"now"}\n')
    answer = client.post("/v1/segment", content=encoded(), headers=PNG)
    assert answer.status_code == 503 and "area_px" not in answer.text


@pytest.mark.skipif(os.name == "nt", reason="files that are open cannot be moved on Windows")
def test_a_server_without_its_audit_log_is_not_ready(encoded: Make, client: Client, tmp_path: Path) -> None:
    """Else a load balancer goes on sending it images, which all get 503."""
    log, away = tmp_path / "state" / "audit.jsonl", tmp_path / "audit.jsonl.1"
    log.rename(away)
    assert client.post("/v1/segment", content=encoded(), headers=PNG).status_code == 503
    answer = client.get("/ready")
    assert answer.status_code == 503 and "audit log" in answer.json()["detail"]
    away.rename(log)
    assert client.get("/ready").status_code == 200
    assert client.post("/v1/segment", content=encoded(), headers=PNG).status_code == 200


def test_a_server_whose_disk_is_read_only_is_not_ready(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What systems make of a disk with errors: results cannot be recorded, so none are given out."""
    access = os.access

    def read_only(path: Any, mode: int, **options: Any) -> bool:
        return access(path, mode, **options) and not (mode & os.W_OK and Path(path) == tmp_path / "state")

    assert client.get("/ready").status_code == 200
    monkeypatch.setattr(os, "access", read_only)
    answer = client.get("/ready")
    assert answer.status_code == 503 and "cannot be written" in answer.json()["detail"]


def test_full_queue_is_refused_at_once_and_recovers(encoded: Make, serve: Callable[..., Client]) -> None:
    client = serve(workers=1, queue=2)
    slow = encoded(".png", 0, (1500, 2000))
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/segment?tta=true", content=slow), range(24)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert client.post("/v1/segment", content=encoded()).status_code == 200
    assert 'dermseg_shed_total{reason="queue"}' in client.get("/metrics").text


def test_what_finds_no_room_is_counted(
    encoded: Make, serve: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, go_on = serve(max_body_mb=1, max_inflight_mb=1), threading.Event()

    def slowly() -> Iterator[bytes]:  # in chunks, so that it may become as large as any
        yield b"x"
        go_on.wait(20)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/segment", content=slowly())
        deadline = time.monotonic() + 20
        while "dermseg_inflight_bytes 0.0" in client.get("/metrics").text and time.monotonic() < deadline:
            time.sleep(0.02)
        assert client.post("/v1/segment", content=encoded()).status_code == 503
        go_on.set()
        assert first.result().status_code == 422
    counts = client.get("/metrics").text  # the first of a kind, too, is more than before
    assert all(
        f'dermseg_shed_total{{reason="{why}"}} 0.0' in counts for why in ("rate", "queue", "jobs", "disk")
    )
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=0))
    zipped = {"Content-Type": "application/zip"}
    assert client.post("/v1/jobs", content=b"x", headers=zipped).status_code == 507
    counts = client.get("/metrics").text
    assert all(f'dermseg_shed_total{{reason="{why}"}} 1.0' in counts for why in ("memory", "disk"))


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("image/jpeg, image/png;q=0.5", "image/jpeg"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "image/png"),
        ("text/html", None),
        ("image/png;q=x", None),
        ("", None),
    ],
)
def test_accept(accept: str, chosen: str | None) -> None:
    assert negotiate(accept, ("application/json", "image/png", "image/jpeg")) == chosen


def test_models_and_card(client: Client, tiny_bundle: Path) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["default"] and model["name"] == "darkness"
    card = json.loads((tiny_bundle / "card.json").read_text())
    assert client.get("/v1/models/darkness").json() == card
    assert client.get("/v1/models/other").status_code == 404
