"""Two and more evaluations of the same images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dermseg.errors import DataError, UsageError
from dermseg.evaluation.compare import compare
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.intervals import holm, wilcoxon_p
from dermseg.evaluation.table import Evaluation, Failure, ImageScore

pytest.importorskip("scipy.stats", reason="scipy comes with the extra [stats]")


def table(better: float, seed: int = 0, n: int = 30) -> Evaluation:
    """References of 400 pixels, of which a share that is hard to guess is found."""
    rng = np.random.default_rng(seed)
    difficulty = np.random.default_rng(99).uniform(0.5, 0.9, n)
    found = np.clip(difficulty + better + rng.normal(0, 0.02, n), 0, 1)
    scores = []
    for i, tp in enumerate((400 * found).astype(int).tolist()):
        counts, sex = Counts(tp, 10, 400 - tp, 1000), "female" if i % 3 else "male"
        measures = {"hd95_px": 40.0 - tp / 20}
        scores.append(ImageScore(f"i{i:02}", counts, "d", f"p{i // 2}", {"sex": sex}, measures))
    return Evaluation(scores)


def test_difference_with_interval_and_test() -> None:
    a, b = table(0.05, 1), table(0.0, 2)
    summary = compare({"a": a, "b": b})
    (pair,) = summary["pairs"]
    dice = pair["metrics"]["dice"]
    differences = a.values("dice") - b.values("dice")
    assert (summary["n"], summary["clusters"]) == (30, 15)
    assert dice["difference"]["mean"] == pytest.approx(differences.mean())
    assert dice["difference"]["mean"] == pytest.approx(dice["a"] - dice["b"])
    assert dice["difference"]["bca95"][0] > 0  # the means' own intervals overlap widely
    assert dice["wilcoxon_p"] == dice["wilcoxon_p_holm"] == wilcoxon_p(differences)
    distance = pair["metrics"]["hd95_px"]
    assert distance["difference"]["mean"] < 0 and distance["a_better"] > distance["b_better"]
    (sex,) = pair["strata"]
    assert [(g["name"], g["n"], g["refused"]) for g in sex["groups"]] == [
        ("female", 20, False),
        ("male", 10, False),
    ]
    assert sex["groups"][0]["dice"]["difference"]["n"] == 20


def test_what_was_scored_by_name_takes_data_set_and_groups_of_the_other() -> None:
    a, b = table(0.05, 1), table(0.0, 2)
    plain = Evaluation([replace(score, dataset="", group="") for score in a.scores])
    for pair in ({"a": plain, "b": b}, {"b": b, "a": plain}):
        assert compare(pair)["clusters"] == 15
    assert (
        compare({"a": plain, "b": b})["pairs"][0]["metrics"]
        == compare({"a": a, "b": b})["pairs"][0]["metrics"]
    )
    lost = [Evaluation(e.scores, [Failure("x", "broken", e.scores[0].dataset)]) for e in (plain, b)]
    assert compare(dict(zip("ab", lost, strict=True)))["failures"] == [
        {"image_id": "x", "dataset": "d", "reason": "broken"}
    ]
    twice = Evaluation([*b.scores, *(replace(score, dataset="e") for score in b.scores)])
    with pytest.raises(DataError, match="in one evaluation only"):
        compare({"a": plain, "b": twice})


@pytest.mark.parametrize("older", ["", "own"], ids=["without", "of one image each"])
def test_exchange_turns_the_sign(older: str) -> None:
    """Also where the groups of one are older than the patients of its index, or it has none."""
    a, b = (Evaluation([replace(s, dataset="") for s in e.scores]) for e in (table(0.05, 1), table(0.0, 2)))
    a = Evaluation([replace(s, group=older and f"{s.image_id} {older}") for s in a.scores])
    forth = compare({"a": a, "b": b})["pairs"][0]["metrics"]["dice"]
    back = compare({"b": b, "a": a})["pairs"][0]["metrics"]["dice"]
    assert back["difference"]["mean"] == pytest.approx(-forth["difference"]["mean"])
    assert back["difference"]["ci95_clustered"] == pytest.approx(
        [-x for x in forth["difference"]["ci95_clustered"][::-1]]
    )
    assert (back["a_better"], back["wilcoxon_p"]) == (forth["b_better"], pytest.approx(forth["wilcoxon_p"]))


def test_three_are_compared_each_with_each_and_corrected() -> None:
    summary = compare({"a": table(0.02, 1), "b": table(0.01, 2), "c": table(0.0, 3)})
    assert [(p["a"], p["b"]) for p in summary["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    ps = [p["metrics"]["dice"]["wilcoxon_p"] for p in summary["pairs"]]
    corrected = [p["metrics"]["dice"]["wilcoxon_p_holm"] for p in summary["pairs"]]
    assert corrected == pytest.approx(holm(ps)) and max(corrected) > max(min(ps), 0)


def test_the_same_twice_is_no_difference() -> None:
    dice = compare({"a": table(0.0), "b": table(0.0)})["pairs"][0]["metrics"]["dice"]
    assert (dice["difference"]["mean"], dice["difference"]["bca95"], dice["wilcoxon_p"]) == (
        0.0,
        None,  # no interval of width 0
        None,
    )
    assert (dice["equal"], dice["wilcoxon_p_holm"]) == (30, None)


def test_refuses_other_images_and_other_references() -> None:
    a = table(0.0)
    with pytest.raises(DataError, match="1 image is in one evaluation only: i29"):
        compare({"a": a, "b": Evaluation(a.scores[:-1])})
    other = ImageScore("i00", Counts(1, 1, 1, 1), "d")
    with pytest.raises(DataError, match="other references: i00"):
        compare({"a": a, "b": Evaluation([other, *a.scores[1:]])})
    with pytest.raises(UsageError, match="at least two"):
        compare({"a": a})
