"""The calls of the package itself."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import dermseg
import dermseg.images
from dermseg.data.sources.synthetic import write_synthetic
from dermseg.data.synthetic import synthesize
from dermseg.errors import UnknownModelError
from dermseg.inference.bundle import BUNDLED


def test_segment_and_evaluate_agree_with_the_model(tmp_path: Path) -> None:
    image = synthesize(5, (96, 128))[0]
    model = dermseg.load_model()
    assert np.array_equal(dermseg.segment(image).mask, model.segment(image).mask)

    write_synthetic(tmp_path, 3, seed=11, size=(96, 128))
    evaluation = dermseg.evaluate(tmp_path / "index.csv", split="all", model=model)
    assert len(evaluation.scores) == 3
    assert 0 <= evaluation.summary()["dice"]["mean"] <= 1


def test_a_bundle_that_was_replaced_is_loaded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = synthesize(5, (96, 128))[0]
    for folder, name in (("here", "fast"), ("there", "default")):
        shutil.copytree(BUNDLED / name, tmp_path / folder / "b")
    monkeypatch.chdir(tmp_path / "here")
    first = dermseg.segment(image, model="b")
    loads = []
    monkeypatch.setattr(
        "dermseg.api.load_model", lambda place: loads.append(place) or dermseg.load_model(place)
    )
    assert np.array_equal(dermseg.segment(image, model="b").probability, first.probability)
    monkeypatch.chdir(tmp_path / "there")  # of one name, elsewhere
    other = dermseg.segment(image, model="b")
    assert np.array_equal(other.probability, dermseg.load_model().segment(image).probability)
    assert not np.array_equal(other.probability, first.probability)
    monkeypatch.chdir(tmp_path / "here")
    shutil.rmtree("b")
    shutil.copytree(tmp_path / "there" / "b", "b")
    assert np.array_equal(dermseg.segment(image, model="b").probability, other.probability)
    assert np.array_equal(dermseg.segment(image, model=Path("b")).probability, other.probability)
    assert len(loads) == 2, "only what is another bundle"
    with pytest.raises(UnknownModelError, match="there is no bundle 'nowhere'"):
        dermseg.segment(image, model="nowhere")


def test_completion_knows_what_is_not_loaded_yet() -> None:
    for module in (dermseg, dermseg.images):
        assert {*module.__all__} <= {*dir(module)}
