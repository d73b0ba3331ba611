"""A researcher evaluates with bad photographs, and compares two models on the same images."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.compare import _format, label, table_stem
from dermseg.evaluation import robustness
from dermseg.report import comparison
from dermseg.report.page import decimal

pytest.importorskip("scipy", reason="scipy comes with the extra [stats]")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Five dark ellipses on light skin."""
    lines = ["image_id,image,masks,dataset,subject,lesion,group,split,width,height,licence,sha256"]
    for i in range(5):
        mask = np.zeros((60, 80), np.uint8)
        cv2.ellipse(mask, (40, 30), (12 + 3 * i, 8 + 3 * i), 15 * i, 0, 360, 255, -1)
        image = np.where(mask[..., None] > 0, (60, 70, 110), (170, 190, 220)).astype(np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        assert cv2.imwrite(str(tmp_path / f"{i}_m.png"), mask)
        lines.append(f"img{i},{i}.png,{i}_m.png,ellipses,,,g{i},test,80,60,CC0-1.0,")
    (tmp_path / "index.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "index.csv"


@pytest.fixture
def strict(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The same network with a threshold that is too high."""
    folder = tmp_path / "strict"
    folder.mkdir()
    card = json.loads((tiny_bundle / "card.json").read_text())
    card["postprocessing"]["threshold"] = 0.97
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "model.onnx").write_bytes((tiny_bundle / "model.onnx").read_bytes())
    return folder


def test_evaluate_with_bad_photographs(
    tiny_bundle: Path, index: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "meta.csv"
    metadata.write_text("image_id,sex\nimg0,male\nimg1,female\n")
    out = tmp_path / "out"
    words = ("evaluate", "--data", index, "--model", tiny_bundle, "--metadata", metadata, "--robustness")
    code, printed, _ = run(*words, "-o", out, "--json")
    summary = json.loads(printed)
    assert (code, summary["n"]) == (0, 5)
    assert 0 < summary["robustness"]["mean_corruption_error"]["mean"] < 1
    assert summary["calibration"]["band"]["n"] == 5
    (sex,) = [s for s in summary["strata"] if s["name"] == "sex"]
    assert (sex["unknown"], [g["n"] for g in sex["groups"]]) == (3, [1, 1])
    names = {"report.html", "metrics.json", "per_image.csv", "robustness.csv", "examples.png", "failures.jpg"}
    assert {path.name for path in out.iterdir()} == names
    page = (out / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 5 and "Bad photographs" in page
    assert len((out / "robustness.csv").read_text().splitlines()) == 1 + 5 * 71

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "evaluate_robustness", stopped)
    monkeypatch.setattr("dermseg.apps.cli.common.MANY", 5)
    code, _, said = run(*words, "-o", out, "--overwrite")
    assert (code, "without robustness" in said) == (130, True)
    assert "computing the intervals of 5 images" in said, "of 10,000 it took 40 seconds without a word"
    assert {path.name for path in out.iterdir()} == names - {"robustness.csv"}
    del summary["robustness"]
    assert json.loads((out / "metrics.json").read_text()) == summary
    monkeypatch.setattr("dermseg.evaluation.evaluate.evaluate_rows", stopped)
    code, _, said = run(*words, "-o", out, "--overwrite")
    assert (code, said) == (
        130,
        "Stopped. Nothing was written: means of the first images are not those of the split.\n",
    )
    assert json.loads((out / "metrics.json").read_text()) == summary
    code, _, said = run("compare", tiny_bundle, "default", "--data", index)
    assert (code, said) == (130, "Stopped. Nothing was compared.\n")


def test_metadata_of_other_images_are_refused_before_the_work(
    tiny_bundle: Path, strict: Path, index: Path, tmp_path: Path, run: Run
) -> None:
    metadata, out = tmp_path / "meta.csv", tmp_path / "out"
    metadata.write_text("image_id,sex\nother,male\n")
    for words in (("evaluate", "--model", tiny_bundle), ("compare", tiny_bundle, strict)):
        code, _, said = run(*words, "--data", index, "--metadata", metadata, "-o", out)
        assert (code, "names none of the 5 images" in said, out.exists()) == (2, True, False)


def test_compare_models_then_their_results(
    tiny_bundle: Path,
    strict: Path,
    index: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = []
    for model in (tiny_bundle, strict):
        folders.append(tmp_path / f"results-{model.name}")
        assert run("evaluate", "--data", index, "--model", model, "-o", folders[-1])[0] == 0
    code, printed, _ = run("compare", tiny_bundle, strict, "--data", index, "--json")
    of_models = json.loads(printed)
    assert code == 0
    dice = of_models["pairs"][0]["metrics"]["dice"]
    assert (dice["a_better"], dice["difference"]["mean"] > 0.02) == (5, True)
    assert dice["difference"]["ci95"][0] > 0 and dice["difference"]["bca95"][0] > 0

    out = tmp_path / "comparison"
    code, printed, said = run("compare", *folders, "-o", out)
    assert (code, printed) == (0, "")
    assert "is better than" in said and (out / "report.html").stat().st_size > 5000
    of_folders = json.loads((out / "comparison.json").read_text())
    same = of_folders["pairs"][0]["metrics"]["dice"]["difference"]
    assert same == dice["difference"]
    code, _, said = run("compare", *folders, "-o", out)
    assert (code, "--overwrite" in said) == (2, True)
    for more in (("--split", "val"), ("--data", index)):
        code, _, said = run("compare", *folders, *more)
        assert (code, f"{more[0]} has no effect on finished evaluations" in said) == (2, True), said
    _, _, said = run("compare", *folders, shutil.copytree(folders[0], tmp_path / "third"))
    assert said.count("Wilcoxon's p after Holm") == 3, "of several, the figures of one column are others"

    monkeypatch.setattr(comparison, "ends", lambda _: f"{decimal(-0.01)} to {decimal(0.02)}")
    _, _, said = run("compare", *folders)
    assert "-0.0100 to 0.0200" in said and said.isascii(), "as figures of the table, in any encoding"


def test_images_that_cannot_be_compared_are_listed(
    tiny_bundle: Path, strict: Path, index: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = "broken,broken.png,0_m.png,ellipses,,,gb,{split},80,60,CC0-1.0,\n"
    with index.open("a") as file:
        file.write(broken.format(split="test") + "bare,1.png,,ellipses,,,gc,test,80,60,CC0-1.0,\n")
        file.write(broken.format(split="val").replace("broken,", "other,", 1))
    out = tmp_path / "out"
    code, printed, said = run("compare", tiny_bundle, strict, "--data", index, "-o", out, "--json")
    summary = json.loads(printed)
    assert (code, summary["n"], summary["failed_images"]) == (1, 5, 1)
    assert [failure["image_id"] for failure in summary["failures"]] == ["broken"]
    assert summary["protocol"]["images_without_mask"] == 1
    assert "1 without a mask left out" in summary["protocol"]["text"]
    assert json.loads((out / "comparison.json").read_text()) == summary
    assert "failed: broken: " in said and "1 image of split 'test' has no mask" in said
    page = (out / "report.html").read_text("utf-8")
    assert "Not scored" in page and "These are in no figure." in page

    folders = [tmp_path / f"results-{model.name}" for model in (tiny_bundle, strict)]
    for model, folder in zip((tiny_bundle, strict), folders, strict=True):
        assert run("evaluate", "--data", index, "--model", model, "-o", folder)[0] == 1
    code, _, said = run("compare", *folders)
    assert (code, said.count("failed: broken: ")) == (1, 1)
    table = folders[1] / "per_image.csv"
    table.write_text(table.read_text().replace("img4", "broken"))  # one of them alone could score it
    code, _, said = run("compare", *folders)
    assert (code, "2 images are in one evaluation only: broken, img4" in said) == (2, True), said
    code, _, said = run("compare", tiny_bundle, strict, "--data", index, "--split", "val")
    assert (code, "no image could be scored (1 failed, first: other: " in said) == (1, True), said


def test_masks_of_another_program_beside_a_model(
    tiny_bundle: Path, index: Path, tmp_path: Path, run: Run
) -> None:
    masks, ours, theirs = (tmp_path / name for name in ("masks", "ours", "theirs"))
    masks.mkdir()
    for i in range(5):
        shutil.copy(tmp_path / f"{i}_m.png", masks / f"img{i}.png")
    assert run("evaluate", "--data", index, "--model", tiny_bundle, "-o", ours)[0] == 0
    assert run("score", masks, masks, "-o", theirs)[0] == 0  # by name: it knows of no data set, and no groups
    for pair in ((ours, theirs), (theirs, ours)):
        code, _, said = run("compare", *pair, "-o", tmp_path / f"{pair[0].name} first")
        assert code == 0 and "theirs is better than ours" in said, said
    found = json.loads((tmp_path / "theirs first" / "comparison.json").read_text())
    assert (found["n"], found["clusters"]) == (5, 5)
    table = tmp_path / "meta.csv"
    table.write_text("image_id,dataset,sex\nimg0,ellipses,male\nimg0,circles,female\n")
    code, printed, said = run("compare", theirs, ours, "--metadata", table, "--json")
    assert code == 0, said
    (sex,) = [each for each in json.loads(printed)["pairs"][0]["strata"] if each["name"] == "sex"]
    assert [group["name"] for group in sex["groups"]] == ["male"]


def test_wrong_use_says_what_to_do(tiny_bundle: Path, index: Path, tmp_path: Path, run: Run) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "best.safetensors").touch()
    for words, wanted in (
        ((tiny_bundle,), "at least two"),
        ((tiny_bundle, tiny_bundle, "--data", "x.csv"), "named twice"),
        ((tiny_bundle, "default"), "--data INDEX"),
        ((tiny_bundle, "nope", "--data", index), "there is no bundle 'nope'"),
        ((tiny_bundle, run_folder, "--data", index), "dermseg export"),
    ):
        code, _, said = run("compare", *words)
        assert (code, wanted in said) == (2, True), said


def test_a_name_with_a_point_is_whole_in_the_table() -> None:
    assert label(["models/lr-0.001", "models/other.v2.zip"]) == ["lr-0.001", "other.v2"]
    assert label(["a/net", "b/net"]) == ["a/net", "b/net"]
    assert [table_stem(name) for name in ("a/net", "C:\\b\\net")] == ["a_net", "C__b_net"], (
        "no folder of its own"
    )


def test_the_folder_that_one_is_in_has_a_name(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert label([".", "../other"]) == ["mine", "other"]
    assert cv2.imwrite("a.png", np.full((9, 9), 255, np.uint8))
    assert run("score", ".", tmp_path / "mine", "-o", tmp_path / "out")[0] == 0
    assert "<title>mine against mine</title>" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_columns_of_many_pixels_do_not_touch() -> None:
    ends = {"ci95_clustered": [-985.8566, -803.2509], "bca95": [-917.3183, -852.5568]}
    found = {"a": 59.7797, "b": 1054.3335, "wilcoxon_p_holm": 0.25}
    metrics = {
        name: {**found, "difference": {"mean": -894.5537, **ends, "n": n}}
        for name, n in (("dice", 5), ("hd95_px", 5), ("assd_px", 3))
    }
    lines = _format({"a": "a", "b": "b", "metrics": metrics}, "p").splitlines()
    intervals = ["-985.86 to -803.25", "-917.32 to -852.56"]
    for line, name, last in zip(
        lines[3:], ("hd95_px", "assd_px"), ("0.25", "0.25, of 3 images"), strict=True
    ):
        assert re.split(r"  +", line.strip()) == [name, "59.78", "1054.33", "-894.55", *intervals, last]


def test_photographs_are_led_to_what_measures_them(run: Run) -> None:
    code, _, err = run("compare", "visit1.jpg", "visit2.jpg")
    assert code == 2 and "dermseg measure" in err and "--data" not in err
