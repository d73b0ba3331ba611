from __future__ import annotations

from dermseg.inference.bundle import load_bundle
from dermseg.report.model_card import render_model_card


def test_the_card_of_the_default_model_is_the_one_in_the_repository(pytestconfig) -> None:  # type: ignore[no-untyped-def]
    page = pytestconfig.rootpath / "MODEL_CARD.md"
    assert page.read_text(encoding="utf-8") == render_model_card(load_bundle().card)
