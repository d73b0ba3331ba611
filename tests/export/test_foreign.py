"""Networks of others: one in several dresses gives the same answers, what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper

from dermseg.apps.cli.main import main
from dermseg.errors import ConfigError, DermsegError, ModelError, UsageError
from dermseg.export.foreign import wrap
from dermseg.inference.bundle import load_bundle
from dermseg.inference.predictor import load_model
from dermseg.inference.runtimes_openvino import openvino_installed

SIZE = 32
PLAIN: dict[str, Any] = {"layout": "NCHW", "channels": "RGB", "output": "logits", "classes": 1}
DRESSES: dict[str, dict[str, Any]] = {
    "torch, one image at a time": {"batch": 1},
    "sigmoid": {"output": "probabilities"},
    "keras": {"layout": "NHWC", "output": "probabilities"},
    "opencv and softmax": {"channels": "BGR", "output": "probabilities", "classes": 2},
    "keras, two classes": {"layout": "NHWC", "channels": "BGR", "classes": 2},
    "no channel": {"flat": True},
    "half precision": {"half": True},
    "old": {"opset": 11},
}


def network(
    layout: str,
    channels: str,
    output: str,
    classes: int,
    *,
    batch: int | str = "n",
    flat: bool = False,
    half: bool = False,
    opset: int = 17,
    baked: bool = False,
) -> onnx.ModelProto:
    """A convolution whose logit is high where the image is dark, mostly in red; names are dermseg's own."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    weight = np.zeros((classes, 3, 3, 3), dtype)
    weight[-1] = np.array([-0.4, -0.2, -0.1])[:, None, None]
    if channels == "BGR":
        weight = weight[:, ::-1]
    bias = np.full(classes, 0.3, dtype)
    bias[-1] += 0.5 if classes == 1 else 0.8
    steps = []
    x = "image"
    last = layout == "NHWC"
    if last:
        steps.append(helper.make_node("Transpose", [x], ["first"], perm=[0, 3, 1, 2]))
        x = "first"
    steps.append(helper.make_node("Conv", [x, "weight", "bias"], ["map"], pads=[1, 1, 1, 1]))
    constants = [numpy_helper.from_array(weight.copy(), "weight"), numpy_helper.from_array(bias, "bias")]
    x = "map"
    if baked:  # a size written into the graph: several images cannot work
        constants.append(numpy_helper.from_array(np.array([1, classes, SIZE, SIZE]), "shape"))
        steps.append(helper.make_node("Reshape", [x, "shape"], ["again"]))
        x = "again"
    if output == "probabilities":
        op = ("Sigmoid", {}) if classes == 1 else ("Softmax", {"axis": 1})
        steps.append(helper.make_node(op[0], [x], ["probability"], **op[1]))
        x = "probability"
    if last:
        steps.append(helper.make_node("Transpose", [x], ["last"], perm=[0, 2, 3, 1]))
        x = "last"
    if flat:
        constants.append(numpy_helper.from_array(np.array([1]), "axis"))
        steps.append(helper.make_node("Squeeze", [x, "axis"], ["flat"]))
        x = "flat"
    steps[-1].output[0] = "logits"
    shape = [batch, SIZE, SIZE, 3] if last else [batch, 3, SIZE, SIZE]
    graph = helper.make_graph(
        steps,
        "foreign",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, [None] * (3 if flat else 4))],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(folder: Path, model: onnx.ModelProto | bytes, **told: Any) -> tuple[Path, Path]:
    """The ONNX file and its card."""
    folder.mkdir()
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "net.onnx").write_bytes(data)
    options = PLAIN | told
    size = {"height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3}
    card = {
        "name": "foreign",
        "licence": "MIT",
        "input": size | {k: options[k] for k in ("layout", "channels")},
        "output": options["output"],
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "net.onnx", folder / "card.yaml"


def dressed(folder: Path, dress: dict[str, Any]) -> tuple[Path, Path]:
    return write(folder, network(**(PLAIN | dress)), **dress)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    wrap(*dressed(folder / "given", {}), folder / "bundle")
    return folder / "bundle"


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_a_network_gives_the_same_in_any_dress(plain: Path, tmp_path: Path, dress: dict[str, Any]) -> None:
    card = wrap(*dressed(tmp_path / "given", dress), tmp_path / "bundle")
    assert card.variants["original"].opset == max(13, dress.get("opset", 17))
    assert {(row.batch, row.threads) for row in card.variants["original"].latency} >= {(1, 1), (4, 1)}
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    one, other = load_model(plain), load_model(tmp_path / "bundle")
    for a, b in zip(one.segment_batch(list(images)), other.segment_batch(list(images)), strict=True):
        assert np.abs(a.probability - b.probability).max() < (5e-3 if dress.get("half") else 1e-4)
        assert 0.01 < a.probability.mean() < 0.99
    if openvino_installed():
        fast = load_model(tmp_path / "bundle", runtime="openvino").segment_batch(list(images))
        for a, b in zip(fast, other.segment_batch(list(images)), strict=True):
            assert np.abs(a.probability - b.probability).max() < 0.05  # bf16 where the processor has it


def test_the_command_makes_a_whole_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, card = dressed(tmp_path / "given", {})
    with pytest.raises(SystemExit) as ended:
        main(["export", "--onnx", str(file), "--card", str(card), "-o", str(tmp_path / "b"), "--json"])
    assert not ended.value.code
    bundle = load_bundle(tmp_path / "b")
    assert bundle.verify() == {"original": "ok"}
    assert bundle.card.parameters == 28
    assert '"random images"' not in capsys.readouterr().err
    both = ["--onnx", str(file), "--card", str(card)]
    for wrong, message, output in (
        (both[:2], "--card go together", "c"),
        ([str(tmp_path), *both], "one of RUN", "c"),
        ([], "one of RUN", "c"),
        ([*both, "--variants", "fp32", "--force"], "--variants, --force belong to RUN", "c"),
        (["--onnx", "nowhere.onnx", *both[2:]], "nowhere.onnx: cannot be read", "c"),
        (both, "a bundle already", "b"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["export", *wrong, "-o", str(tmp_path / output)])
        assert ended.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["export", *both, "-o", str(tmp_path / "b"), "--overwrite"])
    assert not ended.value.code


def two_outputs() -> onnx.ModelProto:
    model = network(**PLAIN)
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["second"]))
    model.graph.output.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [None] * 4))
    return model


def three_classes() -> onnx.ModelProto:
    return network(**PLAIN | {"classes": 3})


def by_hand(scale: float) -> onnx.ModelProto:
    """Probabilities times a number, whose graph ends in a product."""
    model = network(**PLAIN)
    model.graph.node[-1].output[0] = "real"
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), "scale"))
    model.graph.node.append(helper.make_node("Sigmoid", ["real"], ["probability"]))
    model.graph.node.append(helper.make_node("Mul", ["probability", "scale"], ["logits"]))
    return model


def no_number() -> onnx.ModelProto:
    model = by_hand(-1)
    model.graph.node[-1].op_type = "Pow"
    model.graph.node[-1].input[:] = ["scale", "probability"]
    return model


def too_new(**version: int) -> onnx.ModelProto:
    model = network(**PLAIN)
    model.ir_version = version.get("ir", model.ir_version)
    model.opset_import[0].version = version.get("opset", 17)
    return model


def of_bytes() -> onnx.ModelProto:
    model = network(**PLAIN)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "real"
    return model


def mask(lesion: int) -> onnx.ModelProto:
    """A graph that ends in a mask of 0 and this number, as programs for pictures make them."""
    model = network(**PLAIN)
    model.graph.node[-1].output[0] = "real"
    for value, name in ((0.0, "edge"), (lesion, "lesion"), (0, "skin")):
        kind = np.float32 if name == "edge" else np.uint8
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
    model.graph.node.append(helper.make_node("Greater", ["real", "edge"], ["inside"]))
    model.graph.node.append(helper.make_node("Where", ["inside", "lesion", "skin"], ["logits"]))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


@pytest.mark.parametrize(
    ("model", "told", "message"),
    [
        (b"no ONNX", {}, "is not an ONNX model"),
        (two_outputs(), {}, r"one input and one output.*extract_model"),
        (of_bytes(), {}, r"UINT8; images of FLOAT or FLOAT16.*without the conversion"),
        (too_new(opset=99), {}, r"^[^[]+ does not run: \S+ : 1 : FAIL : .* \(pip install --upgrade onnx"),
        (too_new(ir=99), {}, r"cannot be read: .*ir_version 99.* \(pip install --upgrade onnx"),
        (no_number(), {}, r"not a number \(NaN\)"),
        (by_hand(1), {}, r"these are probabilities \(write 'output: probabilities'"),
        (by_hand(255), {"output": "probabilities"}, "no probabilities .*with a division by 255"),
        (three_classes(), {}, "with one channel, or two"),
        (network(**PLAIN), {"layout": "NHWC"}, "correct layout"),
        (network(**PLAIN), {"output": "probabilities"}, "no probabilities .*write 'output: logits'"),
        (network(**PLAIN | {"output": "probabilities"}), {}, "ends in Sigmoid"),
        (network(**PLAIN | {"output": "probabilities"}, flat=True), {}, "ends in Sigmoid"),
        (
            network(**PLAIN | {"output": "probabilities", "layout": "NHWC", "classes": 2}),
            {"layout": "NHWC"},
            "ends in Softmax",
        ),
        (network(**PLAIN, batch=1, baked=True), {}, "dynamic batch"),
        (mask(1), {}, "UINT8: a mask, not logits"),
        (mask(255), {"output": "probabilities"}, "with a division by 255"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, model: onnx.ModelProto | bytes, told: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        wrap(*write(tmp_path / "given", model, **told), tmp_path / "bundle")
    assert refused.value.file == str(tmp_path / "given" / "net.onnx")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="devices are a matter of Unix")
def test_what_has_no_end_is_not_read(plain: Path, tmp_path: Path) -> None:
    card = dressed(tmp_path / "given", {})[1]
    with pytest.raises(UsageError, match="is not a file"):
        wrap(Path("/dev/zero"), card, tmp_path / "bundle")


def test_a_graph_that_ends_in_a_mask_outlines_the_same(plain: Path, tmp_path: Path) -> None:
    wrap(*write(tmp_path / "given", mask(1), output="probabilities"), tmp_path / "bundle")
    image = np.full((SIZE, SIZE, 3), 230, np.uint8)
    image[8:20, 8:20] = 30
    found, expected = (load_model(path).segment(image).mask for path in (tmp_path / "bundle", plain))
    assert 0 < expected.mean() < 0.5
    assert np.array_equal(found, expected)


def test_every_wrong_field_of_a_card_is_named(tmp_path: Path) -> None:
    file, card = dressed(tmp_path / "given", {})
    card.write_text("name: x\nlicense: MIT\ninput: {height: 0, width: 9, mean: [0, 0, 0], std: [1, 1, 0]}\n")
    with pytest.raises(ConfigError) as refused:
        wrap(file, card, tmp_path / "bundle")
    for field in ("licence", "license", "output", "input.height", "input.std"):
        assert field in str(refused.value)
    for broken in (tmp_path / "none.yaml", file):
        with pytest.raises(DermsegError):
            wrap(file, broken, tmp_path / "bundle")


class Enlarging(torch.nn.Module):
    """Enlarges to a size that it reads from its input, as most decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.head = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = torch.nn.functional.interpolate(self.down(x), size=x.shape[-2:], mode="bilinear")
        return self.head(large)


@pytest.mark.filterwarnings("ignore")
def test_what_the_docs_write_from_torch_becomes_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = page.partition("<!-- from torch -->\n```python\n")[2].partition("```")[0].replace("256", str(SIZE))
    torch.manual_seed(0)
    network = Enlarging()
    exec(code, {"torch": torch, "network": network})
    _, card = write(tmp_path / "told", b"")
    wrap(Path("unet.onnx"), card, Path("bundle"))
    model = load_model("bundle")
    image = model.prepare(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)[None]).sigmoid().numpy()
    assert np.abs(model.infer(image[None]) - expected[:, 0]).max() < 1e-4

    torch.onnx.export(network, (torch.zeros(1, 3, SIZE, SIZE),), "one.onnx", dynamo=True, external_data=False)
    with pytest.raises(ModelError, match="again with a dynamic batch"):
        wrap(Path("one.onnx"), card, Path("other"))
