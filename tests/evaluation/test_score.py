"""Matching mask files by name, and reading them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.errors import MaskError, UsageError
from dermseg.evaluation.matching import image_id_of, match_masks
from dermseg.evaluation.score import read_mask, score_folders
from dermseg.images.sources import ImageSource


def sources(*names: str) -> list[ImageSource]:
    return [ImageSource(name, Path("root") / name) for name in names]


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("ISIC_0000000.png", "ISIC_0000000"),
        ("a/ISIC_0000000_segmentation.png", "ISIC_0000000"),
        ("ISIC_0000000_Segmentation.PNG", "ISIC_0000000"),
        ("IMD003_lesion.bmp", "IMD003"),
        ("x-mask.png", "x"),
        ("ISIC_0000000_attribute_globules.png", "ISIC_0000000_attribute_globules"),
        ("mask.png", "mask"),
        ("_mask.png", "_mask"),
    ],
)
def test_image_id_of(name: str, image_id: str) -> None:
    assert image_id_of(name) == image_id


def test_matches_across_conventions() -> None:
    pairing = match_masks(
        sources("masks/a.png", "masks/b_segmentation.png", "masks/z.png"),
        sources("gt/a_segmentation.png", "gt/b.png", "gt/c.png"),
    )
    assert [(i, p.name, r.name) for i, p, r in pairing.pairs] == [
        ("a", "masks/a.png", "gt/a_segmentation.png"),
        ("b", "masks/b_segmentation.png", "gt/b.png"),
    ]
    assert [i for i, _ in pairing.missing] == ["c"]
    assert pairing.extra == ["masks/z.png"]


def test_two_predictions_for_one_image_are_not_guessed() -> None:
    pairing = match_masks(sources("a.png", "a_pred.png", "b.png"), sources("a.png", "b.png"))
    assert pairing.ambiguous == [("a", "several predictions: a.png, a_pred.png")]


def test_two_files_are_a_pair_but_two_folders_of_one_are_not(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "x.png", np.full((4, 4), 255, np.uint8))
    write(tmp_path / "theirs" / "y.png", np.full((4, 4), 255, np.uint8))
    assert score_folders(tmp_path / "mine" / "x.png", tmp_path / "theirs" / "y.png").n == 1
    with pytest.raises(UsageError, match=r"1 of 1 references have no prediction: y .* the first is x\.png"):
        score_folders(tmp_path / "mine", tmp_path / "theirs")  # to count all as empty is no way on


@pytest.mark.parametrize("turned", [False, True])
def test_images_that_are_called_lesion_keep_their_names(turned: bool) -> None:
    """Without what marks a mask ``arm_lesion.png`` was ``arm``, and had no partner."""
    one, other = sources("arm_lesion.png", "leg.png"), sources("arm_lesion_segmentation.png", "leg_mask.png")
    pairing = match_masks(other, one) if turned else match_masks(one, other)
    assert [image_id for image_id, _, _ in pairing.pairs] == ["arm_lesion", "leg"]
    assert (pairing.missing, pairing.extra) == ([], [])
    pairing = match_masks(sources("arm.png"), sources("arm_lesion.png"))  # with and without, as before
    assert [image_id for image_id, _, _ in pairing.pairs] == ["arm"]


def test_folders_count_where_names_repeat() -> None:
    pairing = match_masks(sources("out/1/a.png", "out/2/a.png"), sources("1/a_mask.png", "2/a_mask.png"))
    assert [(i, p.name) for i, p, _ in pairing.pairs] == [("1/a", "out/1/a.png"), ("2/a", "out/2/a.png")]
    # the one folder that has predictions is no top folder to leave away
    pairing = match_masks(sources("out/1/a.png"), sources("1/a_mask.png", "2/a_mask.png"))
    assert [i for i, _, _ in pairing.pairs] == ["1/a"] and [i for i, _ in pairing.missing] == ["2/a"]


@pytest.mark.parametrize(
    ("values", "lesion", "note"),
    [
        ([0, 0, 255, 255], [0, 0, 1, 1], ""),
        ([0, 128, 129, 255], [0, 0, 1, 1], "lesion is what is above 128"),
        ([200, 200, 255, 255], [1, 1, 1, 1], "lesion is what is above 128"),
        ([0, 30, 60, 128], [0, 0, 0, 0], "no value is above 128"),
        ([0, 1, 1, 0], [0, 1, 1, 0], "the official scorer would see an empty mask"),
    ],
)
def test_reads_grey_values(tmp_path: Path, values: list[int], lesion: list[int], note: str) -> None:
    write(tmp_path / "a.png", np.array([values], np.uint8))
    mask, notes = read_mask(ImageSource("a.png", tmp_path / "a.png"))
    assert mask.astype(int).tolist() == [lesion]
    assert note in "; ".join(notes) and bool(notes) == bool(note)


@pytest.mark.parametrize("grey", [0, 90, 255])
def test_a_lesion_painted_on_a_transparent_layer_is_what_is_painted(tmp_path: Path, grey: int) -> None:
    lesion = np.arange(20).reshape(4, 5) > 11
    write(tmp_path / "a.png", np.dstack([np.full((4, 5, 3), grey), lesion * 255]).astype(np.uint8))
    mask, notes = read_mask(ImageSource("a.png", tmp_path / "a.png"))
    assert np.array_equal(mask, lesion) and not notes


def test_a_photograph_is_not_a_mask(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    with pytest.raises(MaskError, match="not a binary mask"):
        read_mask(ImageSource("a.png", tmp_path / "a.png"))


def test_missing_predictions_are_refused_or_empty(tmp_path: Path) -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[2:5, 2:5] = 255
    for name in ("a", "b"):
        write(tmp_path / "gt" / f"{name}_segmentation.png", mask)
    write(tmp_path / "pred" / "a.png", mask)
    write(tmp_path / "pred" / "other.png", mask)
    with pytest.raises(UsageError, match="1 of 2 references have no prediction: b"):
        score_folders(tmp_path / "pred", tmp_path / "gt")
    evaluation = score_folders(tmp_path / "pred", tmp_path / "gt", missing_is_empty=True)
    assert evaluation.values("dice").tolist() == [1.0, 0.0]
    assert [score.facts["missing"] for score in evaluation.scores] == [False, True]
