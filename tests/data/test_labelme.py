import base64
import io
import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermseg.data.labelme import Annotation, draw_labels, mask_to_shapes, read_labelme, write_labelme
from dermseg.errors import DataError


@given(seed=st.integers(0, 10_000), sigma=st.floats(0.4, 6), share=st.floats(0.05, 0.95))
def test_a_mask_comes_back_exactly(seed: int, sigma: float, share: float) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((40, 56), np.float32), (0, 0), sigma)
    mask = noise > np.quantile(noise, share)
    written = write_labelme(Annotation("a.jpg", 56, 40, tuple(mask_to_shapes(mask, "lesion"))))
    assert np.array_equal(draw_labels(read_labelme(written), ["lesion"]), mask)


def _file(*shapes: dict[str, object], **more: object) -> bytes:
    content = {
        "version": "5.0.1",
        "shapes": shapes,
        "imagePath": "a.jpg",
        "imageHeight": 60,
        "imageWidth": 80,
    }
    return json.dumps(content | more).encode()


def test_shapes_groups_and_holes_are_drawn() -> None:
    square = {"label": "lesion", "points": [[10, 10], [50, 10], [50, 50], [10, 50]], "group_id": 1}
    hole = {"label": "hole", "points": [[20, 20], [30, 30]], "shape_type": "rectangle", "group_id": 1}
    circle = {"label": "lesion", "points": [[65, 25], [65, 30]], "shape_type": "circle", "group_id": None}
    other = {"label": "ruler", "points": [[0, 55], [79, 55]], "shape_type": "line"}
    annotation = read_labelme(_file(square, hole, circle, other))
    mask = draw_labels(annotation, ["lesion"])
    assert annotation.labels == ("lesion", "ruler")
    assert mask[40, 40] and mask[25, 65] and not mask[25, 25] and not mask[55, 5]
    assert mask.sum() == pytest.approx(41 * 41 - 11 * 11 + np.pi * 25, rel=0.02)
    assert draw_labels(annotation, ["ruler"])[55, 5]


def test_a_mask_shape_is_placed_and_cut_at_the_border() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((10, 10), 1, np.uint8)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    shape = {"label": "lesion", "points": [[75, -5], [84, 4]], "shape_type": "mask", "mask": text}
    mask = draw_labels(read_labelme(_file(shape)), ["lesion"])
    assert mask[:5, 75:].all() and mask.sum() == 25


def test_unknown_fields_are_kept() -> None:
    shape = {"label": "lesion", "points": [[1, 1], [9, 1], [9, 9]], "flags": {"sure": True}, "colour": "red"}
    back = json.loads(write_labelme(read_labelme(_file(shape, reviewer="B", imageData="QUJD"))))
    assert back["reviewer"] == "B" and back["imageData"] == "QUJD" and back["version"] == "5.0.1"
    assert back["shapes"][0]["colour"] == "red" and back["shapes"][0]["flags"] == {"sure": True}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff", "not a JSON"),
        (b"[]", "no list 'shapes'"),
        (_file(imageWidth=0), "not a size"),
        (_file({"label": "a", "points": [[1, 2]]}), "shape 1 cannot be read: a polygon needs 3"),
        (_file({"label": "a", "points": [[1, 2], [3, float("nan")], [4, 4]]}), "finite"),
        (_file({"label": "a", "points": [[1, 2]] * 3, "shape_type": "blob"}), "unknown shape_type 'blob'"),
        (_file({"label": "a", "points": [[1, 2]] * 2, "shape_type": "mask", "mask": "%%"}), "shape 1"),
    ],
)
def test_damaged_files_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labelme(data, "a.json")
