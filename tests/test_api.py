"""The calls of the package itself."""

from pathlib import Path

import numpy as np

import dermseg
from dermseg.data.sources.synthetic import write_synthetic
from dermseg.data.synthetic import synthesize


def test_segment_and_evaluate_agree_with_the_model(tmp_path: Path) -> None:
    image = synthesize(5, (96, 128))[0]
    model = dermseg.load_model()
    assert np.array_equal(dermseg.segment(image).mask, model.segment(image).mask)

    write_synthetic(tmp_path, 3, seed=11, size=(96, 128))
    evaluation = dermseg.evaluate(tmp_path / "index.csv", split="all", model=model)
    assert len(evaluation.scores) == 3
    assert 0 <= evaluation.summary()["dice"]["mean"] <= 1


def test_completion_knows_what_is_not_loaded_yet() -> None:
    assert {*dermseg.__all__} <= {*dir(dermseg)}
