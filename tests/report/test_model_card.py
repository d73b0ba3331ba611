"""The card in the repository is what bundle and evaluations give, and its drawings hold outlines only."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermseg.evaluation.figure import Panel
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import Metric
from dermseg.report.model_card import render_model_card, results_table
from dermseg.report.outlines import draw_outlines


def test_the_card_of_the_default_model_is_the_one_in_the_repository(pytestconfig: pytest.Config) -> None:
    root: Path = pytestconfig.rootpath
    card = load_bundle().card
    figures = root / "benchmarks" / "results" / "model_card.json"
    known: dict[str, Any] = json.loads(figures.read_text("utf-8")) if figures.exists() else {}
    for evaluation in known.get("evaluations", {}).values():
        assert evaluation["model"]["sha256"] == card.variants[card.default_variant].sha256
    page = render_model_card(card, known.get("evaluations"), known.get("pictures"))
    assert (root / "MODEL_CARD.md").read_text(encoding="utf-8") == page
    for picture in known.get("pictures", {}).values():
        assert ET.parse(root / picture).getroot().tag.endswith("svg")


def test_the_table_of_results_knows_patients() -> None:
    def row(**dice: Any) -> str:
        return results_table([Metric(dataset="x", split="test", protocol="", n=9, dice=dice)]).splitlines()[2]

    assert "0.900 (0.700-0.999)" in row(mean=0.9, ci95=[0.85, 0.95], ci95_clustered=[0.7, 0.999])
    assert "| 0.900 |" in row(mean=0.9, ci95=[0.85, 0.95], ci95_clustered=None)  # all of one patient
    assert "| 0.900 |" in row(mean=0.9, ci95=None)  # one image
    assert "0.900 (0.850-0.950)" in row(mean=0.9, ci95=[0.85, 0.95])


def test_outlines_are_drawn_where_they_are_and_no_pixel_of_the_photograph_is() -> None:
    photograph = np.full((60, 90, 3), 200, np.uint8)
    reference, prediction = np.zeros((2, 60, 90), np.bool_)
    reference[20:40, 30:60] = True
    reference[28:32, 40:50] = False
    nothing = Panel(photograph, prediction, reference, "a<b", "nothing found & more")
    page = draw_outlines([nothing] * 5, columns=2)
    root = ET.fromstring(page)
    assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in ("image", "foreignObject", "style")]
    paths = [e.attrib["d"] for e in root.iter() if e.tag.endswith("path")]
    assert len(paths) == 5 and all(path.count("M") == 2 for path in paths)  # the outline and its hole
    points = np.array(re.findall(r"([\d.]+),([\d.]+)", paths[0].partition("Z")[0]), np.float64)
    # The frame is 180 wide and 120 high, centred on a square of 180 that begins at 14, 30.
    corners = (points - (14, 60)) / 2
    np.testing.assert_allclose(
        [corners.min(axis=0), corners.max(axis=0)], [(30.5, 20.5), (59.5, 39.5)], atol=0.3
    )
