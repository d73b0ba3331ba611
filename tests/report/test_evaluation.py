"""The pages of an evaluation and of a comparison, and the sections of the model card."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dermseg.evaluation.compare import compare
from dermseg.evaluation.corruptions import CORRUPTIONS
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.evaluate import score_pair
from dermseg.evaluation.figure import Panel
from dermseg.evaluation.output import format_summary, summarise
from dermseg.evaluation.robustness import Robustness
from dermseg.evaluation.table import Evaluation, Failure, ImageScore
from dermseg.report.card_sections import evaluation_sections
from dermseg.report.comparison import render_comparison, verdict
from dermseg.report.evaluation import render_evaluation
from dermseg.report.page import ends, percent
from dermseg.report.strata import best_interval
from dermseg.report.svg import Axis, histogram

EVIL = "</script><img src=x onerror=alert(1)>\"'&"
VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Every element that is opened is closed; nothing is fetched and nothing runs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images = 0
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert (value or "").startswith(("data:image/jpeg;base64,", "#")), (tag, value)
        self.images += tag == "img"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def evaluation(better: float = 0.0, name: str = EVIL) -> Evaluation:
    rng = np.random.default_rng(int(100 * better) % 97)
    scores = []
    for i in range(24):
        tp = int(300 * (0.6 + 0.3 * i / 24 + better + rng.normal(0, 0.02)))
        facts: dict[str, Any] = {
            "reference_area_fraction": 0.1 if i % 2 else 0.4, "contrast": float(i), "confidence": 0.5,
            "ita": None if i < 4 else 30.0, "ita_reason": "no lesion" if i < 4 else "", "sex": name,
        }  # fmt: skip
        measures = {"surface_dice": tp / 300, "hd95_px": 9.0, "hd95_diagonal": 0.1}
        counts = Counts(tp, 20, 300 - tp, 800)
        scores.append(ImageScore(f"{name}{i}", counts, "d", f"p{i}", facts, measures))
    return Evaluation(scores, [Failure(name, name, name)])


def robustness(n: int = 3) -> Robustness:
    spoilt = np.linspace(0.9, 0.5, 5) - np.arange(len(CORRUPTIONS))[:, None] / 100
    clusters = [("image", "d", str(i)) for i in range(n)]
    shift = np.arange(n)[:, None, None] / 100
    images = [("d", str(i)) for i in range(n)]
    return Robustness(images, clusters, np.full(n, 0.95), spoilt[None] + shift, [], 0)


def summary_of(table: Evaluation, **more: Any) -> dict[str, Any]:
    protocol = {"text": EVIL}
    model = {"name": EVIL, "version": "1", "architecture": "a", "variant": "fp32", "sha256": "0" * 64}
    return {**summarise(table, robustness()), "protocol": protocol, "model": model, **more}


def test_the_page_is_whole_closed_and_inert() -> None:
    table = evaluation()
    panel = Panel(np.zeros((30, 40, 3), np.uint8), *np.zeros((2, 30, 40), np.bool_), EVIL, EVIL)
    page = render_evaluation(EVIL, table, summary_of(table), [panel])
    assert Checker(page).images == 1
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    for wanted in (
        "All figures",
        "Pixels",
        "Groups of images",
        "Bad photographs",
        "Worst images",
        "Not scored",
    ):
        assert wanted in titles
    assert "Calibration" not in titles  # this table has no probabilities
    assert "@@" not in page and not re.search(r"\bnan\b", page)


def test_a_network_that_finds_nothing_has_a_page() -> None:
    table = evaluation(name="")
    table = Evaluation([replace(score, counts=Counts(0, 0, 300, 800)) for score in table.scores])
    summary = summary_of(table)
    assert best_interval(summary["dice"]) is None  # all are 0
    page = render_evaluation("none", table, summary)
    Checker(page)
    assert "Groups of images" in page
    assert ">Dice: median 0.000<" in page and "lie above" not in page  # none does
    tables = {"a": table, "b": table}
    Checker(render_comparison(tables, {**compare(tables), "protocol": {"text": "x"}}))


def test_masks_alone_make_a_page_too() -> None:
    lesion = np.zeros((40, 40), np.bool_)
    lesion[10:30, 10:30] = True
    table = Evaluation([score_pair("only", lesion, np.roll(lesion, 3, 0))])
    page = render_evaluation("one", table, {**summarise(table), "protocol": {"text": "x"}})
    Checker(page)
    assert "A mean of one image has no interval." in page and "bootstrap" not in page
    assert "1 image:" in page and "No image has a Jaccard index below 0.65" in page
    assert "0.0 % to 79.3 %" in page, (
        "no failure of 1 image says little: Wilson's interval, not a bootstrap's"
    )


def test_the_page_of_a_comparison() -> None:
    tables = {"a": evaluation(0.06), EVIL: evaluation(0.0), "c": evaluation(0.03)}
    summary = {**compare(tables), "protocol": {"text": EVIL}}
    page = render_comparison(tables, summary)
    Checker(page)
    assert "Holm" in page and page.count("Where they differ most") == 3
    assert verdict(summary["pairs"][0]).startswith("a is better than")


def test_images_of_one_name_are_told_apart_by_their_data_sets() -> None:
    tables = {
        name: Evaluation([ImageScore("x", Counts(tp, 1, 10 - tp, 9), dataset) for dataset in "de"])
        for name, tp in (("a", 9), ("b", 5))
    }
    page = render_comparison(tables, {**compare(tables), "protocol": {"text": ""}})
    assert ">d/x<" in page and ">e/x<" in page


def test_the_verdict_does_not_claim_what_is_not_shown() -> None:
    tables = {"a": evaluation(), "b": evaluation()}
    assert verdict(compare(tables)["pairs"][0]).startswith("No difference")
    for images, who in ((1, "One image says"), (3, "Images of a single patient or lesion say")):
        scores = [replace(score, group="patient") for score in evaluation().scores[:images]]
        alone = {"a": Evaluation(scores), "b": Evaluation(scores)}
        assert verdict(compare(alone)["pairs"][0]).startswith(who)


def pair_of(
    mean: float, bca: tuple[float, float], t: tuple[float, float], clusters: int = 40
) -> dict[str, Any]:
    difference = {"mean": mean, "bca95": list(bca), "ci95_clustered": list(t), "clusters": clusters}
    return {"a": "mine", "b": "default", "metrics": {"dice": {"difference": difference}}}


def test_the_verdict_tells_figure_and_interval_from_one_side() -> None:
    said = verdict(pair_of(-0.3, (-0.5, -0.1), (-0.55, -0.05)))
    assert said == (
        "default is better than mine in Dice by 0.3000 (95 % interval of the difference 0.1000 to 0.5000)."
    )


def test_the_verdict_claims_nothing_that_one_interval_denies() -> None:
    """Nine images: the bootstrap's interval is too narrow for so few, and the t-interval says so."""
    said = verdict(pair_of(-0.3, (-0.54, -0.05), (-0.61, 0.004), 9))
    assert said.startswith("No difference") and "\u22120.0040 to 0.6100" in said


def test_of_few_patients_the_cards_show_the_t_interval() -> None:
    """Twelve images of two patients: resampling two has four outcomes and tells an interval that is none."""
    scores = [replace(score, group=f"p{i % 2}") for i, score in enumerate(evaluation().scores[:12])]
    few = Evaluation(scores)
    summary = {**summarise(few), "protocol": {"text": "x"}}
    glance = render_evaluation("x", few, summary).partition("All figures</h2>")[0]
    low, high = summary["dice"]["ci95_clustered"]
    assert f"<span>{ends((low, high), 3)}</span>" in glance
    assert ends(summary["dice"]["bca95"], 3) not in glance
    many = {**summary["dice"], "clusters": 20}
    assert best_interval(many) == summary["dice"]["bca95"]
    assert best_interval({**many, "bca95": None}) == summary["dice"]["ci95_clustered"]


def test_the_card_of_a_comparison_says_what_its_verdict_says() -> None:
    """The bootstrap of 30 images denied 0 on the card, while the sentence above it quoted the t-interval."""
    tables = {"a": evaluation(0.02), "b": evaluation(0.0)}
    summary = {**compare(tables), "protocol": {"text": "x"}}
    difference = summary["pairs"][0]["metrics"]["dice"]["difference"]
    difference |= {"mean": 0.02, "bca95": [0.001, 0.05], "ci95_clustered": [-0.02, 0.06], "clusters": 30}
    page = render_comparison(tables, summary)
    card = re.search(r"<dt>difference in Dice</dt><dd><b>[^<]*</b><span>([^<]*)</span>", page)
    assert card is not None and card[1] == ends((-0.02, 0.06))
    assert f"interval of the difference {card[1]})" in page and "No difference" in page


def test_failures_of_one_patient_tell_no_share_of_others() -> None:
    alone = Evaluation([replace(score, group="p") for score in evaluation(-0.2).scores[:12]])
    summary = {**summarise(alone), "protocol": {"text": "x"}}
    assert summary["failed_below_065"] > 0 and summary["failed_below_065_ci95"] is None
    line = next(line for line in format_summary(summary).splitlines() if "jaccard below" in line)
    assert line.endswith("unknown") and "of one patient or lesion" in format_summary(summary)
    page = render_evaluation("one patient", alone, summary)
    assert (
        f"<dt>failed outlines</dt><dd><b>{percent(summary['failed_below_065'])}</b><span>\u2013</span>"
        in page
    )


def test_counts_have_whole_ticks() -> None:
    assert Axis("images", 0.0, 2.16, counts=True).ticks() == [0, 1, 2]
    assert Axis("images", 0.0, 23.8, counts=True).ticks() == [0, 5, 10, 15, 20]
    assert Axis("share", 0.0, 2.16).ticks() == [0, 0.5, 1, 1.5, 2]
    plot = histogram([0.5] * 12_000, Axis("Dice", 0.0, 1.0), "Dice")
    assert ">10,000<" in plot and "e+" not in plot
    plot = histogram([0.5], Axis(f"Dice of {'a' * 99} minus b", 0.0, 1.0), "Dice")
    assert re.search("Dice of a{16}\u2026a{11} minus b<", plot), "a long label has both ends"


def test_an_evaluation_is_shown_in_one_line() -> None:
    assert re.fullmatch(r"Evaluation\(24 images, \d failed, mean Dice 0\.\d{4}\)", repr(evaluation()))
    assert repr(Evaluation([])) == "Evaluation(0 images, 0 failed)"


def test_intervals_that_are_not_known_get_no_column() -> None:
    lesion = np.zeros((40, 40), np.bool_)
    lesion[10:30, 10:30] = True
    one = Evaluation([score_pair("only", lesion, lesion)])
    assert "(BCa)" not in format_summary(summarise(one))
    assert "(BCa)" in format_summary(summarise(evaluation()))


def test_a_mean_of_fewer_images_says_of_how_many() -> None:
    table = evaluation()
    calibrated = {**table.scores[0].measures, "hd95_mm": 0.5}  # the others have no millimetres
    table = Evaluation([replace(table.scores[0], measures=calibrated), *table.scores[1:]])
    lines = {line.split()[0]: line for line in format_summary(summarise(table)).splitlines() if line}
    assert lines["hd95_mm"].endswith("of 1 image") and " of " not in lines["hd95_px"]


def test_card_sections_hold_every_figure() -> None:
    table = evaluation(-0.2, "ISIC_")
    text = evaluation_sections({"Test": summary_of(table)}, {"Test": "docs/worst.jpg"})
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Robustness",
        "## Groups of images: Test",
        "## Failures",
    ]
    for name in CORRUPTIONS:
        assert f"| {name.replace('_', ' ')} |" in text
    assert "could not be estimated in 4 of 24 images (16.7 %): no lesion: 4" in text
    assert "](https://api.isic-archive.com/images/ISIC_0/) |" in text
    assert "![Outlines of the worst images of Test](docs/worst.jpg)" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in tables[: len(CORRUPTIONS) + 3]}
    assert widths == {4}
    assert evaluation_sections({}) == ""


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.21, 0.21), (0, 0.003), (0.7, 1), (0, 512)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    ticks = Axis("x", low, high).ticks()
    assert 3 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)
    assert len({round(b - a, 9) for a, b in pairwise(ticks)}) == 1
