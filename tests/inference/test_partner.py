"""Two networks as one: the mean of both, and only ever with the partner that was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermseg.data.synthetic import synthesize
from dermseg.errors import ModelError
from dermseg.inference.bundle import load_bundle
from dermseg.inference.partner import JointSession, mean_logits, resize_batch
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.runtimes import obstacles, open_session

RUNTIMES = [name for name in ("onnxruntime", "openvino") if obstacles()[name] is None]


def joined(tmp_path: Path, name: str = "fast", **partner: Any) -> Path:
    """A bundle of the package that works together with another; ``partner`` changes what its card says."""
    folder = Path(shutil.copytree(load_bundle(name).path, tmp_path / "joined"))
    other = load_bundle("default").card
    variant = other.default_variant
    named = {"bundle": "default", "variant": variant, "sha256": other.variant(variant).sha256} | partner
    card = json.loads((folder / "card.json").read_text("utf-8"))
    card["variants"][card["default_variant"]]["partner"] = named
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_logits_are_the_mean_of_what_each_says_at_its_own_size(tmp_path: Path, runtime: str) -> None:
    fast, default = load_model("fast", threads=1), load_model("default", threads=1)
    both = load_model(joined(tmp_path), threads=1, runtime=runtime)
    image = synthesize(7)[0]
    own = fast.session(fast.prepare(image)[None])
    size = own.shape[2], own.shape[3]
    other = resize_batch(default.session(default.prepare(image)[None]), size)
    logits, features = both.session.with_features(both.prepare(image)[None])
    # the partner sees 128 pixels enlarged, not the photograph: its outline moves by less than a pixel
    joint, apart = logits > 0, (own + other) / 2 > 0
    assert (joint != apart).mean() < 0.01
    assert np.abs(logits - own).max() > 1, "the partner has been asked"
    known = fast.session.with_features(fast.prepare(image)[None])[1]
    assert (features is None) == (known is None) or runtime == "openvino"
    assert (both.session.runtime, both.session.threads) == (runtime, 1)


def test_averages_are_exact_and_keep_the_grid_of_the_first(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    own = open_session(bundle, "fp32", threads=1)
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 48), np.float32)
    assert np.array_equal(JointSession(own, own, (64, 48))(batch), own(batch))
    large = resize_batch(batch, (128, 96))
    assert large.shape == (3, 3, 128, 96) and np.array_equal(large[1], resize_batch(batch[1:2], (128, 96))[0])
    constant = np.full((2, 1, 8, 8), 3, np.float32)
    assert np.array_equal(mean_logits(constant, np.full((2, 1, 5, 9), -1, np.float32)), np.ones((2, 1, 8, 8)))
    with pytest.raises(ModelError, match="1 maps cannot work with one of 2"):
        mean_logits(constant, np.zeros((2, 2, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("partner", "message"),
    [
        ({"sha256": "0" * 64}, r"another version of 'default'.*export it again"),
        ({"variant": "fp8"}, "another version of 'default'"),
        ({"bundle": "gone"}, "together with 'gone', which this dermseg lacks"),
        ({"bundle": "../default"}, "is not a plain file name"),
    ],
)
def test_another_partner_than_the_one_that_was_measured_is_refused(
    tmp_path: Path, partner: dict[str, str], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(joined(tmp_path, **partner))


def test_a_partner_that_sees_images_otherwise_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = joined(tmp_path)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    card["preprocessing"]["mean"] = [0.5, 0.5, 0.5]
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelError, match=r"prepares images in another way \(mean\)"):
        Model(load_bundle(folder))
