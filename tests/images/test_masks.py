"""Masks: what counts as one, what is refused, and that files are whole or absent."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from dermseg.errors import ImageError, MaskError
from dermseg.images import (
    draw_overlay,
    encode_jpeg,
    encode_mask,
    find_images,
    load_image,
    load_mask,
    mask_to_polygons,
    polygons_to_mask,
    read_mask,
    save_mask,
)

MASK = np.zeros((60, 80), bool)
cv2.ellipse(MASK.view(np.uint8), (40, 30), (25, 15), 20, 0, 360, 1, -1)


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def palette() -> Image.Image:
    image = Image.fromarray(MASK.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 200, 30, 30])
    return image


def painted(grey: int) -> Image.Image:
    """A lesion painted on a layer of nothing, as drawing programs export it: alpha alone says where."""
    return Image.merge("LA", [Image.new("L", MASK.shape[::-1], grey), Image.fromarray(MASK * np.uint8(255))])


def layer(colour: int, hidden: int, alpha: np.ndarray) -> bytes:
    """Red of some lightness on nothing, whose colour some programs write as white and others as black."""
    red = np.where(alpha[..., None] > 0, np.array([0, 0, colour]), hidden)
    return png(np.dstack([red, alpha]).astype(np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        encode_mask(MASK),
        png(MASK.astype(np.uint8)),  # 0 and 1
        png(MASK.astype(np.uint16)),
        png(MASK.astype(np.uint16) * 65535),
        png(np.dstack([MASK * np.uint8(255)] * 3)),
        saved(Image.fromarray(MASK), "PNG"),
        saved(Image.fromarray(MASK), "BMP"),
        saved(Image.fromarray(MASK.astype(np.float32)), "TIFF"),
        saved(palette(), "PNG"),
        saved(painted(0), "PNG"),
        saved(painted(255).convert("RGBA"), "PNG"),
        layer(255, 255, MASK * np.uint8(255)),
        layer(90, 0, MASK * np.uint8(160)),
    ],
)
def test_all_ways_to_store_a_mask(data: bytes) -> None:
    found = read_mask(data, size=(60, 80))
    assert found.mask.dtype == np.bool_
    assert np.array_equal(found.mask, MASK)
    assert found.notes == ()


@pytest.mark.parametrize("hidden", [0, 255])
def test_a_soft_brush_on_a_layer_is_cut_at_half(hidden: int) -> None:
    soft = cv2.GaussianBlur(MASK * np.uint8(255), (0, 0), 0.6)
    assert np.array_equal(load_mask(layer(255, hidden, soft)), soft >= 128)
    both = np.dstack([np.where(MASK, 255, 0)] * 3 + [np.full(MASK.shape, 255)]).astype(np.uint8)
    both[:5, :, 3], both[:5, :, :3] = 0, hidden  # black and white are painted, and a strip is not
    assert np.array_equal(load_mask(png(both)), MASK)


def test_one_bit_images_give_ones_and_zeros() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1").save(stream, "BMP")
    mask = load_mask(stream.getvalue())
    np.testing.assert_array_equal(mask.view(np.uint8), np.eye(8, dtype=np.uint8))


def test_jpeg_noise_and_soft_rims_are_tolerated_and_said() -> None:
    jpeg = cv2.imencode(".jpg", MASK * np.uint8(255), [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    found = read_mask(jpeg)
    assert (found.mask != MASK).mean() < 0.01
    assert "different values" in found.notes[0]


@pytest.mark.parametrize("values", [(0, 1, 254, 255), (0, 64, 255)])
def test_few_values_near_black_and_white_are_a_mask(values: tuple[int, ...]) -> None:
    """As a mask has them that was a JPEG of the best quality once, or was drawn with soft edges."""
    grey = MASK * np.uint8(255)
    grey[30, 10:13] = values[1]
    grey[30, 40:43] = values[-2] if values[-2] > 200 else 255
    assert np.array_equal(load_mask(png(grey)), MASK)


@pytest.mark.parametrize(("value", "full"), [(0, False), (1, True), (255, True)])
def test_single_value(value: int, full: bool) -> None:
    assert load_mask(png(np.full((4, 4), value, np.uint8))).all() == full


@pytest.mark.parametrize(
    "values",
    [
        np.tile(np.arange(256, dtype=np.uint8), (40, 1)),  # a photograph or probability map
        np.arange(12, dtype=np.uint8).reshape(3, 4) % 3,  # a label map
        np.full((4, 4), 37, np.uint8),
        # lesion 1, its rim 255 ("ignore"): the rim alone was the lesion
        cv2.dilate(MASK.astype(np.uint8), np.ones((3, 3))) * np.uint8(255) - MASK * np.uint8(254),
    ],
)
def test_what_is_no_mask_is_refused(values: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(png(values))
    with pytest.raises(MaskError, match="not a") as caught:
        load_mask(path)
    assert caught.value.file == str(path)


def test_size_and_damage() -> None:
    with pytest.raises(MaskError, match="80 x 60 pixels, its image 60 x 80"):
        load_mask(encode_mask(MASK), size=(80, 60))
    with pytest.raises(MaskError, match=r"its image 160 x 120 \(save it at its image's size"):
        load_mask(encode_mask(MASK), size=(120, 160))
    with pytest.raises(ImageError):
        load_mask(encode_mask(MASK)[:-20])


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.png"
    save_mask(MASK, path)
    assert np.array_equal(load_mask(path), MASK)
    with Image.open(path) as image:
        assert (image.mode, image.getextrema()) == ("L", (0, 255))
    assert [item.name for item in path.parent.iterdir()] == ["m.png"]


@settings(deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_polygons_give_the_mask_back(mask: np.ndarray) -> None:
    assert np.array_equal(polygons_to_mask(mask_to_polygons(mask), mask.shape), mask)


def test_simplified_polygon_is_short_and_close() -> None:
    (polygon,) = mask_to_polygons(MASK, epsilon=1.0)
    assert polygon.outer.dtype == np.float32
    assert len(polygon.outer) < 30
    assert (polygons_to_mask([polygon], MASK.shape) != MASK).mean() < 0.02


@pytest.mark.parametrize("ground", [15, 90, 245])
@pytest.mark.parametrize("width", [200, 1600])
def test_outline_stands_out_on_any_skin(ground: int, width: int) -> None:
    image = np.full((width * 3 // 4, width, 3), ground, np.uint8)
    drawn = draw_overlay(image, MASK)  # the mask has another size: it is scaled
    changed = np.abs(drawn.astype(int) - ground).max(axis=2)
    assert changed.max() > 120
    edge = cv2.resize(MASK.view(np.uint8), (width, width * 3 // 4), interpolation=cv2.INTER_NEAREST)
    assert changed[edge == 0][::7].mean() < 30  # most of the picture is untouched
    assert np.array_equal(image, np.full_like(image, ground))


def test_each_of_several_lesions_has_its_number() -> None:
    labels = np.zeros((200, 300), np.uint8)
    labels[60:160, 20:120], labels[0:80, 180:280] = 1, 2
    image = np.full((200, 300, 3), 150, np.uint8)
    plain, numbered = (draw_overlay(image, labels > 0, labels=which) for which in (None, labels))
    changed = (plain != numbered).any(axis=2)
    assert changed[30:60, 50:90].any()  # above the first; the second has no room there
    assert changed[0:30, 210:250].any() and changed.sum() == changed[:60].sum()
    one = np.minimum(labels, 1)
    assert np.array_equal(plain, draw_overlay(image, labels > 0, labels=one))
    large = np.kron(labels, np.ones((4, 4), np.uint8))
    assert np.array_equal(numbered, draw_overlay(image, labels > 0, labels=large))


def test_legend_leaves_the_lesion_free_and_small_pictures_alone() -> None:
    image = np.full((300, 400, 3), 180, np.uint8)
    mask = np.zeros((300, 400), bool)
    mask[150:, :200] = True
    drawn = draw_overlay(image, mask, legend=["Lesion", "12 %"])
    plain = draw_overlay(image, mask)
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    assert len(rows)
    assert not mask[rows, columns].any()
    for side in (1, 3, 20):
        tiny = np.zeros((side, side, 3), np.uint8)
        assert draw_overlay(tiny, np.ones((side, side), bool), legend=["Lesion"]).shape == tiny.shape
    assert draw_overlay(image, mask, max_side=100).shape == (75, 100, 3)
    assert load_image(encode_jpeg(drawn)).pixels.shape == drawn.shape


@pytest.mark.data
def test_reference_masks_of_all_sets_are_read(data_dir: Path) -> None:
    for archive in ("ISIC2018_Task1_Training_GroundTruth.zip", "ISIC_native_resolution.zip"):
        inputs = [str(data_dir / archive)] if "Truth" in archive else [f"{data_dir / archive}!masks"]
        for source in find_images(inputs)[::100]:
            assert load_mask(source).any()
    lesions = [
        source for source in find_images([data_dir / "PH2Dataset_20.zip"]) if "_lesion.bmp" in source.name
    ]
    assert len(lesions) == 20
    assert all(load_mask(source).any() for source in lesions)


def test_a_photograph_with_every_value_is_not_taken_for_a_label_map() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with pytest.raises(MaskError) as caught:
        load_mask(png(every))
    assert "two values" in str(caught.value.hint)
