"""What is no image or mask is refused at the door of every function that the pages show."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermseg.errors import ImageError, MaskError
from dermseg.images import draw_overlay, encode_jpeg, encode_mask, encode_png, mask_to_polygons, save_mask
from dermseg.inference.predictor import Model, load_model
from dermseg.measure.colour import describe_colour

PIXELS = np.full((60, 80, 3), 150, np.uint8)
DISC = np.hypot(*np.mgrid[-30:30, -40:40]) < 15
WRONG_MASKS = {
    "probabilities": np.where(DISC, 0.9, 0.1),
    "0 and 255": DISC.astype(np.uint8) * np.uint8(255),
    "three channels": np.dstack([DISC] * 3),
    "a list": DISC.tolist(),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("fast")


@pytest.mark.parametrize("mask", WRONG_MASKS.values(), ids=WRONG_MASKS)
@pytest.mark.parametrize(
    "use",
    [
        encode_mask,
        mask_to_polygons,
        lambda mask: save_mask(mask, "never.png"),
        lambda mask: draw_overlay(PIXELS, mask),
        lambda mask: describe_colour(PIXELS, mask),
        lambda mask: describe_colour(PIXELS, DISC, mask),
    ],
)
def test_only_a_mask_is_a_mask(
    use: Callable[[Any], object], mask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaskError, match=r"a mask is bool \(H, W\), got .* >= 0.5 of probabilities"):
        use(mask)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        (PIXELS / 255, "* 255"),
        (PIXELS.astype(np.uint16) * 257, "// 257"),
        ((PIXELS.astype(np.uint16) * 257).astype(">u2"), "// 257"),
        (np.dstack([PIXELS, PIXELS[..., 0]]), "x[..., :3] of RGBA"),
        (PIXELS[..., 0], "np.stack([x] * 3, -1) of grey"),
        (PIXELS[..., :1], "np.repeat(x, 3, -1) of grey"),
        (np.moveaxis(PIXELS, -1, 0), "np.moveaxis(x, 0, -1)"),
        (Image.fromarray(PIXELS), "np.asarray(image.convert('RGB'))"),
        (Image.fromarray(PIXELS[..., 0].astype(np.uint16)), "give the path: Pillow cuts off"),
        (PIXELS.tolist(), "give an array"),
    ],
)
def test_what_is_no_image_is_refused_with_its_own_remedy(model: Model, image: Any, remedy: str) -> None:
    uses: list[Callable[[Any], object]] = [
        model.segment,
        encode_jpeg,
        encode_png,
        lambda image: draw_overlay(image, DISC),
        lambda image: describe_colour(image, DISC),
    ]
    for use in uses:
        with pytest.raises(ImageError) as caught:
            use(image)
        assert remedy in (caught.value.hint or ""), caught.value
        wrong = {"* 255", "// 257", "[..., :3]"} - {
            part for part in ("* 255", "// 257", "[..., :3]") if part in remedy
        }
        assert not any(part in (caught.value.hint or "") for part in wrong)


def test_an_open_file_is_refused_with_what_to_do(model: Model) -> None:
    with pytest.raises(ImageError, match=r"got BytesIO .*file.read\(\)"):
        model.segment(io.BytesIO(b"x"))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(80, 60), (61, 60), (60, 70), (800, 600), (6, 11)])
def test_a_mask_of_another_frame_is_not_stretched(size: tuple[int, int]) -> None:
    mask = np.zeros(size, bool)
    for use in (draw_overlay, describe_colour):
        with pytest.raises(MaskError, match=r"does not lie on an image of 80 x 60 .*load_image"):
            use(PIXELS, mask)


@pytest.mark.parametrize("full", [(2848, 4288), (1001, 1003), (767, 1022), (9, 4000)])
@pytest.mark.parametrize("denominator", [2, 4, 8])
def test_a_reduced_picture_takes_the_full_size_mask(full: tuple[int, int], denominator: int) -> None:
    small = [-(-side // denominator) for side in full]  # as JPEGs are decoded
    picture, mask = np.zeros((*small, 3), np.uint8), np.zeros(full, bool)
    assert draw_overlay(picture, mask, max_side=max(1, max(small) // 3)).shape[2] == 3
    assert draw_overlay(np.zeros((*full, 3), np.uint8), np.zeros(small, bool)).shape[:2] == full
