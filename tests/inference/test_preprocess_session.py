"""What the network sees, how many threads it gets, and views for test-time augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dermseg.errors import ImageError, ModelError, UsageError
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import Preprocessing
from dermseg.inference.preprocess import to_input
from dermseg.inference.session import OrtSession, first_line, hint_if_too_new
from dermseg.inference.threads import cgroup_quota
from dermseg.inference.tta import merge_views, stack_views

SIZE = Preprocessing(height=32, width=48)


def test_a_plain_colour_becomes_its_normalised_value() -> None:
    image = np.full((301, 407, 3), (10, 128, 250), np.uint8)
    seen = to_input(image, SIZE)
    assert seen.shape == (3, 32, 48) and seen.dtype == np.float32 and seen.flags.c_contiguous
    expected = (np.array([10, 128, 250]) / 255 - SIZE.mean) / np.array(SIZE.std)
    assert np.abs(seen - expected[:, None, None]).max() < 1e-6


def test_shrinking_is_the_mean_of_what_is_covered() -> None:
    image = np.random.default_rng(0).integers(0, 256, (320, 480, 3), np.uint8)
    plain = Preprocessing(height=32, width=48, mean=(0, 0, 0), std=(1, 1, 1))
    means = image.reshape(32, 10, 48, 10, 3).mean(axis=(1, 3)) / 255
    assert np.abs(to_input(image, plain) - means.transpose(2, 0, 1)).max() <= 0.51 / 255


@pytest.mark.parametrize("shape", [(1, 1), (1, 40_000), (40_000, 1), (5, 9_000), (31, 49), (33, 47)])
@pytest.mark.parametrize("resize", ["area", "bilinear"])
def test_any_shape_keeps_its_mean(shape: tuple[int, int], resize: str) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    seen = to_input(image, SIZE.model_copy(update={"resize": resize}))
    assert np.ptp(seen[0]) < 0.02


def test_views_of_an_array_and_a_slot_of_a_batch() -> None:
    image = np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8)
    batch = np.zeros((2, 3, 32, 48), np.float32)
    assert to_input(image[::-1, ::-1], SIZE, out=batch[1]) is not None
    assert np.array_equal(batch[1], to_input(np.ascontiguousarray(image[::-1, ::-1]), SIZE))
    assert not batch[0].any()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_not_rgb_uint8_is_refused_with_a_remedy(wrong: np.ndarray) -> None:
    with pytest.raises(ImageError, match="convert"):
        to_input(wrong, SIZE)


def test_a_session_takes_any_batch_and_size(tiny_bundle: Path) -> None:
    session = OrtSession(load_bundle(tiny_bundle).read_model(), threads=1)
    for shape in ((1, 3, 64, 64), (5, 3, 32, 96)):
        assert session(np.zeros(shape, np.float32)).shape == (shape[0], 1, *shape[2:])
    with pytest.raises(ModelError, match="fails on input"):
        session(np.zeros((1, 4, 64, 64), np.float32))


def test_bytes_that_are_no_model_and_wrong_names_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        OrtSession(b"not an onnx model")
    data = load_bundle(tiny_bundle).read_model()
    with pytest.raises(ModelError, match="no output 'probability'"):
        OrtSession(data, output_name="probability")
    with pytest.raises(UsageError):
        OrtSession(data, threads=0)


def test_limits_of_control_groups(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert cgroup_quota(tmp_path) is None
    (group.parent / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/m\n3:cpu,cpuacct:/docker/x\n")
    v1 = tmp_path / "sys/fs/cgroup/cpu,cpuacct"  # inside a container its group is the mount's root
    v1.mkdir()
    (v1 / "cpu.cfs_quota_us").write_text("400000\n")
    (v1 / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_quota(tmp_path) == 4.0
    (v1 / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize("shape", [(3, 6, 6), (3, 4, 6)])
def test_views_turn_back_to_where_they_came_from(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(2).random(shape).astype(np.float32)
    stacked = stack_views(image)
    assert len({view.tobytes() for view in stacked}) == len(stacked) == (8 if shape[1] == shape[2] else 4)
    assert np.allclose(merge_views(stacked[:, 0]), image[0])


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (
            "FAIL : /onnxruntime_src/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, "
            "const onnxruntime::ModelOptions&) Unsupported model IR version: 14, max supported: 13",
            "FAIL : Unsupported model IR version: 14, max supported: 13",
        ),
        (
            "Name:'r' Status Message: /src/cpu/tensor/reshape_helper.h:91 onnxruntime::ReshapeHelper::"
            "ReshapeHelper(const onnxruntime::TensorShape&, bool) input_shape_size == size was false.",
            "Name:'r' Status Message: input_shape_size == size was false.",
        ),
        ("INVALID_PROTOBUF : protobuf (of /a/b) failed", "INVALID_PROTOBUF : protobuf (of /a/b) failed"),
    ],
)
def test_a_message_of_the_runtime_says_what_is_wrong_and_not_where_in_its_source(
    said: str, left: str
) -> None:
    assert first_line(RuntimeError(f"{said}\nmore")) == left
    assert bool(hint_if_too_new(RuntimeError(said))) == ("IR version" in said)
