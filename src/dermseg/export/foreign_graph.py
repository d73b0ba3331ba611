"""A foreign graph: what it takes and gives, and the nodes that make it take and give what dermseg's do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, version_converter

from dermseg.errors import ModelError
from dermseg.export.foreign_card import ForeignCard
from dermseg.export.graph import GraphBuilder, opset_of
from dermseg.export.onnx import INPUT_NAME, OUTPUT_NAME
from dermseg.export.opset import OLDEST
from dermseg.inference.session import first_line, hint_if_too_new

_EPSILON = 1e-7  # probabilities are kept this far from 0 and 1, whose logits are infinite
_ENDS_IN_PROBABILITY = ("Sigmoid", "Softmax", "HardSigmoid")
# Operators that hand on values as they are, in other places or numbers.
_HANDS_ON = ("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Gather", "Resize")
_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_REAL = {*_FLOATS, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_OLDEST_IR = 7  # from 4 on, constants need not be inputs too; onnxruntime reads 7 since 2020
_OF_NETWORK = "network/"  # begins every name of the foreign graph, so that none meets one of ours


class Original:
    """The file as it came: its graph, checked, and what it answers.

    Raises
    ------
    ModelError
        Not ONNX, weights in other files, more than one input or output, or shapes that fit no image and map.
    """

    def __init__(self, data: bytes, told: ForeignCard) -> None:
        self.told = told
        self.model = _parse(data)
        graph = self.model.graph
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            names = [[v.name for v in values] for values in (inputs, graph.output)]
            raise ModelError(
                f"one input and one output are needed, the graph has {names[0]} and {names[1]}",
                hint="onnx.utils.extract_model('net.onnx', 'one.onnx', [INPUT], [OUTPUT]) keeps these",
            )
        self.input, self.output = inputs[0], graph.output[0]
        self._check_input()
        last = _last_operator(graph, self.output.name)
        if told.output == "logits" and last in _ENDS_IN_PROBABILITY:
            raise ModelError(f"the graph ends in {last}", hint="write 'output: probabilities' in the card")
        kind = self.output.type.tensor_type.elem_type
        self.whole_numbers = kind not in _REAL
        if told.output == "logits" and self.whole_numbers:
            name = TensorProto.DataType.Name(kind)
            raise ModelError(
                f"output '{self.output.name}' is {name}: a mask, not logits",
                hint="write 'output: probabilities' in the card",
            )
        try:
            self._session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises types of its own C++ module
            raise ModelError(f"does not run: {first_line(error)}", hint=hint_if_too_new(error)) from None
        shape = self(self.images(1)).shape
        channel = 1 if told.input.layout == "NCHW" else -1
        self.dimensions = len(shape)
        self.classes = {3: 1, 4: shape[channel]}.get(len(shape), 0)
        if self.classes not in (1, 2):
            raise ModelError(
                f"the output has shape {shape}; a map with one channel, or two (skin, lesion), is needed",
                hint="in the layout that the card gives for the input",
            )

    @property
    def parameters(self) -> int:
        """Number of weights; scalars are constants of operators."""
        tensors = self.model.graph.initializer
        return sum(int(np.prod(t.dims)) for t in tensors if t.data_type in _FLOATS and t.dims)

    def images(self, count: int) -> NDArray[np.float32]:
        """Random images as dermseg hands them on: normalised RGB, ``float32 (N, 3, H, W)``."""
        size = self.told.input
        values = np.random.default_rng(0).random((count, size.height, size.width, 3), np.float32)
        normalised = (values - np.array(size.mean, np.float32)) / np.array(size.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the file itself answers, given such images in the order that it wants."""
        if self.told.input.channels == "BGR":
            images = images[:, ::-1]
        if self.told.input.layout == "NHWC":
            images = images.transpose(0, 2, 3, 1)
        kind = _FLOATS[self.input.type.tensor_type.elem_type]
        try:
            (answer,) = self._session.run(None, {self.input.name: np.ascontiguousarray(images, kind)})
        except Exception as error:  # as above
            raise ModelError(f"does not run: {first_line(error)}") from None
        return np.asarray(answer, np.float32)

    def _check_input(self) -> None:
        told, tensor = self.told.input, self.input.type.tensor_type
        if tensor.elem_type not in _FLOATS:
            kind = TensorProto.DataType.Name(tensor.elem_type)
            raise ModelError(
                f"input '{self.input.name}' is {kind}; images of FLOAT or FLOAT16 are needed",
                hint="export the network without the conversion in front; mean and std of the card do it",
            )
        shape = [d.dim_value or None for d in tensor.shape.dim]
        order = {"NCHW": (3, told.height, told.width), "NHWC": (told.height, told.width, 3)}[told.layout]
        fits = len(shape) == 4 and all(a in (None, b) for a, b in zip(shape[1:], order, strict=True))
        if tensor.HasField("shape") and not fits:
            raise ModelError(
                f"input '{self.input.name}' has shape {shape}, the card asks for {[None, *order]}",
                hint="correct layout, height and width in the card",
            )


def adapt(original: Original) -> bytes:
    """The same network with dermseg's input, ``image``, and output, ``logits``; any number of images.

    Raises
    ------
    ModelError
        ONNX cannot put the parts together.
    """
    told, model = original.told, onnx.ModelProto()
    model.CopyFrom(original.model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)
    del model.graph.value_info[:]  # may hold a fixed batch
    kind = original.input.type.tensor_type.elem_type

    front, prepared = GraphBuilder("front"), INPUT_NAME
    if told.input.channels == "BGR":
        prepared = front.node("Gather", prepared, front.constant([2, 1, 0]), axis=1)
    if told.input.layout == "NHWC":
        prepared = front.node("Transpose", prepared, perm=[0, 2, 3, 1])
    prepared = front.node("Cast", prepared, to=kind)

    back, answer = GraphBuilder("back"), "answer"
    answer = back.node("Cast", answer, to=TensorProto.FLOAT)
    if original.dimensions == 3:
        answer = back.node("Unsqueeze", answer, back.constant([1]))
    elif told.input.layout == "NHWC":
        answer = back.node("Transpose", answer, perm=[0, 3, 1, 2])
    if original.classes == 2:
        one = back.constant([1])
        skin = back.node("Slice", answer, back.constant([0]), one, one)
        lesion = back.node("Slice", answer, one, back.constant([2]), one)
        answer = lesion if told.output == "probabilities" else back.node("Sub", lesion, skin)
    if told.output == "probabilities":
        low, high = (back.constant(v, np.float32) for v in (_EPSILON, 1 - _EPSILON))
        answer = back.node("Min", back.node("Max", answer, low), high)
        odds = back.node("Div", answer, back.node("Sub", back.constant(1, np.float32), answer))
        answer = back.node("Log", odds)
    back.node("Identity", answer, output=OUTPUT_NAME)

    image = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["n", 3, "height", "width"])
    logits = helper.make_tensor_value_info(
        OUTPUT_NAME, TensorProto.FLOAT, ["n", 1, "out_height", "out_width"]
    )
    between = [
        helper.make_tensor_value_info(name, of, [None] * rank)
        for name, of, rank in (
            (prepared, kind, 4),
            ("answer", original.output.type.tensor_type.elem_type, original.dimensions),
        )
    ]
    try:
        whole = compose.merge_models(
            _part(model, front, image, between[0]),
            compose.add_prefix(model, _OF_NETWORK),
            [(prepared, _OF_NETWORK + original.input.name)],
        )
        whole = compose.merge_models(
            whole, _part(model, back, between[1], logits), [(_OF_NETWORK + original.output.name, "answer")]
        )
    except (ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"the graph cannot be adapted: {first_line(error)}") from None
    data: bytes = whole.SerializeToString()
    return data


def _part(
    like: onnx.ModelProto, nodes: GraphBuilder, source: onnx.ValueInfoProto, target: onnx.ValueInfoProto
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes.nodes, "part", [source], [target], nodes.constants)
    return helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)


def _last_operator(graph: onnx.GraphProto, output: str) -> str | None:
    """What computes the values of an output, whatever moves them afterwards (channels last, one channel)."""
    makers = {name: node for node in graph.node for name in node.output}
    while (node := makers.get(output)) is not None:
        if node.op_type not in _HANDS_ON:
            return str(node.op_type)
        output = node.input[0]
    return None


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(data)
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise ModelError(
                "its weights are in other files",
                hint="onnx.save(onnx.load('model.onnx'), 'whole.onnx') puts them inside",
            )
        onnx.checker.check_model(model)
        if opset_of(model) < OLDEST:
            model = version_converter.convert_version(model, OLDEST)
    except ModelError:
        raise
    except Exception as error:  # protobuf and onnx raise types of their own
        too_new = hint_if_too_new(error)
        what = "cannot be read" if too_new else "is not an ONNX model"
        raise ModelError(f"{what}: {first_line(error)}", hint=too_new) from None
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    return model
