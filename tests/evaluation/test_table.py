"""The per-image table, its summary and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermseg.errors import DataError, ScoringError
from dermseg.evaluation.calibration import calibrate
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.table import Evaluation, Failure, ImageScore, read_per_image


def table(*counts: tuple[str, Counts]) -> Evaluation:
    return Evaluation([ImageScore(name, c, dataset="d") for name, c in counts])


GOOD, BAD = Counts(80, 10, 10, 900), Counts(10, 20, 70, 900)


def test_summary_names_means_and_pooled_apart() -> None:
    summary = table(("a", GOOD), ("b", BAD)).summary()
    assert summary["n"] == 2
    assert summary["jaccard"]["mean"] == pytest.approx((0.8 + 0.1) / 2)  # type: ignore[index]
    assert summary["threshold_jaccard"]["mean"] == pytest.approx(0.4)  # type: ignore[index]
    assert summary["failed_below_065"] == 0.5
    pooled = summary["pooled"]
    assert pooled["lesion"]["iou"] == pytest.approx(90 / 200)  # type: ignore[index]


def test_several_references_are_one_image() -> None:
    evaluation = table(("a", GOOD), ("a", BAD), ("b", GOOD))
    assert evaluation.n == 2
    assert evaluation.values("jaccard") == pytest.approx([0.45, 0.8])
    assert evaluation.summary()["failed_below_065"] == 0.25


def test_calibration_weighs_images_and_not_references() -> None:
    lesion = np.zeros((20, 20), np.bool_)
    lesion[:10] = True
    right, wrong = (calibrate(p.astype(np.float32), lesion) for p in (lesion, ~lesion))
    scores = [ImageScore("a", GOOD, calibration=wrong)] * 3 + [ImageScore("b", GOOD, calibration=right)]
    found: Any = Evaluation(scores).reliability()
    for part in (found["all"], found["band"]):
        assert (part["n"], part["ece"], part["brier"]) == (2, 0.5, 0.5)


def test_one_name_in_two_data_sets_is_two_images() -> None:
    assert Evaluation([ImageScore("a", GOOD, "x"), ImageScore("a", GOOD, "y")]).n == 2


def test_csv_comes_back(tmp_path: Path) -> None:
    scores = [ImageScore("a,1", GOOD, "d", "g", {"confidence": np.float64(0.5), "touches_border": True})]
    evaluation = Evaluation([*scores, ImageScore("b", BAD)], [Failure("c", "too\nlarge", "d", "g")])
    evaluation.write_csv(tmp_path / "per_image.csv")
    header = (tmp_path / "per_image.csv").read_text().splitlines()[0].split(",")
    assert header[:9] == ["image_id", "dataset", "group", "status", "message", "tp", "fp", "fn", "tn"]
    assert header[-2:] == ["confidence", "touches_border"]
    back = read_per_image(tmp_path / "per_image.csv")
    assert back.summary() == evaluation.summary()
    assert back.scores[0].facts == {"confidence": "0.5", "touches_border": "true"}
    assert list(back.failures) == list(evaluation.failures)
    text = (tmp_path / "per_image.csv").read_text()  # as Excel saves it
    (tmp_path / "excel.csv").write_text(text.replace("true", "TRUE"), "utf-8-sig")
    assert read_per_image(tmp_path / "excel.csv") == back


def test_nothing_scored_says_why() -> None:
    with pytest.raises(ScoringError, match=r"no image could be scored \(1 failed, first: c: too large"):
        Evaluation([], [Failure("c", "too large")]).summary()


def test_refuses_another_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column image_id"):
        read_per_image(tmp_path / "x.csv")
