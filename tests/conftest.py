"""Fixtures that every test may use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from dermseg.apps.cli.main import main

# A busy machine is no reason to fail: no test is timed.
hypothesis.settings.register_profile("dermseg", deadline=None)
hypothesis.settings.load_profile("dermseg")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real images, named by the environment variable DERMSEG_DATA."""
    value = os.environ.get("DERMSEG_DATA")
    if not value:
        pytest.skip("DERMSEG_DATA is not set: the real images are not here")
    path = Path(value)
    if not path.is_dir():
        pytest.skip(f"DERMSEG_DATA={value} is not a folder")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The program with these words, in this process: exit code, what went to stdout and to stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def unmapped_renames(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where files were renamed to; none may be mapped then, for Windows would refuse."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("reads what is mapped from /proc")
    replace, renamed = Path.replace, []

    def checked(self: Path, target: Path) -> Path:
        assert str(self) not in maps.read_text(encoding="utf-8")
        renamed.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", checked)
    return renamed


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle (folder) whose network finds dark regions: one convolution, 64 x 64, no torch.

    Its logit is above 0 where the mean of the three channels, averaged over 3 x 3 pixels, is below half.
    """
    onnx = pytest.importorskip("onnx")
    from dermseg.inference.card import ModelCard, Postprocessing, Preprocessing, Variant

    # With mean 0.5 and std 0.25 the input is (v - 0.5) / 0.25, so -5 times its mean is -20 (v - 0.5).
    weight = np.full((1, 3, 3, 3), -5.0 / 27.0, np.float32)
    tensor, helper = onnx.TensorProto.FLOAT, onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Conv", ["padded", "weight"], ["logits"])],
        "darkness",
        [helper.make_tensor_value_info("image", tensor, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", tensor, ["n", 1, "h", "w"])],
        [
            onnx.numpy_helper.from_array(weight, "weight"),
            onnx.numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads"),
        ],
    )
    # Edge padding: a zero border would look like mid grey.
    graph.node.insert(0, helper.make_node("Pad", ["image", "pads"], ["padded"], mode="edge"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()
    card = ModelCard(
        name="darkness",
        version="1",
        created="2026-11-21",
        summary="finds dark regions",
        architecture="unet",
        parameters=27,
        licence="Apache-2.0",
        preprocessing=Preprocessing(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        postprocessing=Postprocessing(min_area_fraction=0.001),
        variants={
            "fp32": Variant(file="model.onnx", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        },
        default_variant="fp32",
    )
    folder = tmp_path_factory.mktemp("tiny_bundle")
    (folder / "model.onnx").write_bytes(data)
    (folder / "card.json").write_text(card.to_json())
    return folder
