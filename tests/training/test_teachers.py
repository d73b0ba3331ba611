"""Masks softened by trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermseg.data.cache import Cache
from dermseg.errors import ConfigError, ModelError
from dermseg.inference.bundle import Bundle, load_bundle
from dermseg.inference.predictor import Model
from dermseg.training.config import RunConfig
from dermseg.training.resolve import resolve
from dermseg.training.rows import open_cache
from dermseg.training.teachers import find_teachers, soften

SOURCES = {"train": [{"index": "index.csv"}], "val": [{"index": "index.csv"}]}


@pytest.fixture(scope="module")
def teacher() -> Bundle:
    return load_bundle("default")


@pytest.fixture
def cache() -> Cache:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 64, 64, 3), np.uint8)
    masks = np.zeros((5, 64, 64), np.uint8)
    masks[:, 16:48, 16:48] = 255
    return Cache(images, masks, tuple("abcde"))


def test_masks_are_mixed_with_the_teachers_probability(teacher: Bundle, cache: Cache, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    soft = soften(cache, "key", tmp_path, [teacher, teacher], 0.25, progress=lambda *n: done.append(n))
    half = soften(cache, "key", tmp_path, [teacher], 1.0)
    probability = Model(teacher).segment(np.asarray(cache.images[2])).probability
    assert np.abs(half.masks[2] / 255 - probability).max() < 0.01  # stretched and back, in bytes
    mixed = 0.75 * cache.masks[2] + 0.25 * np.asarray(half.masks[2], float)
    assert np.abs(soft.masks[2] - mixed).max() <= 1
    assert soft.images is cache.images and soft.masks.dtype == np.uint8 and done[-1] == (5, 5)


def test_the_file_is_not_mapped_when_it_gets_its_name(
    teacher: Bundle, cache: Cache, tmp_path: Path, unmapped_renames: list[Path]
) -> None:
    soften(cache, "key", tmp_path, [teacher], 0.5, progress=lambda *n: None)
    assert len(unmapped_renames) == 1


def test_softened_masks_are_kept_by_weight(teacher: Bundle, cache: Cache, tmp_path: Path) -> None:
    for weight in (0.25, 0.25, 0.5):
        soften(cache, "key", tmp_path, [teacher], weight)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_source_can_keep_its_own_masks(
    teacher: Bundle, tiny_config: tuple[Path, Any], tmp_path: Path
) -> None:
    config = RunConfig.model_validate(tiny_config[1])
    (source,) = config.data.train
    own, soft = (
        open_cache(config, source.model_copy(update={"soften": soften}), 1, print, [teacher])
        for soften in (False, True)
    )
    assert set(np.unique(own.masks)) == {0, 255}
    assert len(np.unique(soft.masks)) > 2
    # filters are the student's: teachers see the images as they are
    model = config.model.model_copy(update={"filters": ("shades_of_grey",)})
    filtered = open_cache(config.model_copy(update={"model": model}), source, 1, print, [teacher])
    assert not np.array_equal(filtered.images, soft.images)
    assert np.array_equal(filtered.masks, soft.masks)


def test_a_folder_called_default_is_no_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    config = RunConfig.model_validate({"data": SOURCES | {"teachers": ["default"]}})
    assert resolve(config).data.teachers == ("default",)
    assert [bundle.card.name for bundle in find_teachers(config)] == ["default"]


def test_teachers_must_exist_and_know_one_mask() -> None:
    missing = RunConfig.model_validate({"data": SOURCES | {"teachers": ["nowhere"]}})
    with pytest.raises(ModelError, match="nowhere"):
        find_teachers(missing)
    several = RunConfig.model_validate(
        {"data": SOURCES | {"teachers": ["default"]}, "model": {"options": {"classes": 3}}}
    )
    with pytest.raises(ConfigError, match="one mask per image"):
        find_teachers(several)
