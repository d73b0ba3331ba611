"""Monte-Carlo dropout as an ONNX graph that needs no torch, in a few kilobytes beside the model.

Design decisions:

- Nothing is stored twice. Serialized protobuf messages that are written one after the other read as their
  union, so ``model.onnx`` followed by the bytes made here is the same graph with more nodes, two more
  inputs and one more output. The new nodes use the weights of the old ones by name; ``model.onnx`` is not
  touched.
- The encoder runs once per image. Dropout scales whole channels, so the first convolution after the
  bottleneck is a sum over channels of (mask x response): the responses are computed once, and the passes
  are one matrix product. What comes from the skips (their share of each stage's first convolution, or
  their depthwise and pointwise part) does not depend on the masks either and is computed once.
- The result stays on the network's own grid (stride 4); who needs a larger map enlarges it.
- Where every stage doubles its map, the factor stands in the graph: ONNX Runtime then enlarges in the blocked
  layout of its convolutions, and the passes need a seventh less time.

The combined graph takes ``image`` float32 ``(1, 3, H, W)``, ``drop_bottleneck`` float32 ``(N, C32)`` and
``drop_stage`` float32 ``(N, C16)``, what each channel is multiplied by (0, or ``1 / (1 - p)``), and gives
``mc_logits`` float32 ``(N, C, h, w)`` besides ``logits``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dermseg.errors import ModelError
from dermseg.models.stored import HALF
from dermseg.uncertainty.mc_dropout import BOTTLENECK_INPUT, LOGITS_OUTPUT, STAGE_INPUT

_PREFIX = "mc_"


def mc_dropout_part(model: bytes, size: tuple[int, int] | None = None) -> bytes:
    """What turns an exported ``encoder_unet`` into one with Monte-Carlo dropout when appended to it.

    Parameters
    ----------
    model
        The content of ``model.onnx`` as ``to_onnx`` or ``store_as_fp16`` made it.
    size
        Height and width of the images. Where both are multiples of 32 the graph is faster and takes only such
        images; None, or another size, makes one for images of any size.

    Raises
    ------
    ModelError
        The graph is not that of an ``encoder_unet``, or the combined graph is not valid.
    """
    graph = onnx.load_from_string(model).graph
    part = _Repeated(graph, doubles=size is not None and not any(length % 32 for length in size)).build()
    data: bytes = ModelProto(graph=part).SerializeToString()
    try:
        onnx.checker.check_model(onnx.load_from_string(model + data), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the graph with Monte-Carlo dropout is not valid: {error}") from None
    return data


@dataclass
class _Repeated:
    """Writes the nodes that are repeated per mask, from the nodes of the plain graph."""

    graph: GraphProto
    doubles: bool
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def build(self) -> GraphProto:
        x = self._relu_after("bottleneck.0.weight")
        channels = self._bias_size("bottleneck.0.bias")
        stages = 0
        while self._has(f"decoder.{stages}.1."):
            stages += 1
        if not stages:
            raise ModelError(
                "the graph has no decoder stage", hint="only encoder_unet has Monte-Carlo dropout"
            )
        stage_channels = 0
        for i in range(stages):
            x = self._first_block(i, x, channels)
            channels = self._block_size(i, 0)
            x = self._second_block(i, x)
            channels = self._block_size(i, 1)
            if i == 0:
                stage_channels = channels
                mask = self._op("Reshape", STAGE_INPUT, self._ints([0, 0, 1, 1]))
                x = self._op("Mul", x, mask)
        head = self._conv(x, "head.weight", "head.bias", kernel=1)
        self.nodes[-1].output[0] = LOGITS_OUTPUT
        assert head.startswith(_PREFIX)
        bottleneck = self._bias_size("bottleneck.0.bias")
        classes = self._bias_size("head.bias")
        value = helper.make_tensor_value_info
        return GraphProto(
            node=self.nodes,
            initializer=self.constants,
            input=[
                value(BOTTLENECK_INPUT, TensorProto.FLOAT, ["passes", bottleneck]),
                value(STAGE_INPUT, TensorProto.FLOAT, ["passes", stage_channels]),
            ],
            output=[value(LOGITS_OUTPUT, TensorProto.FLOAT, ["passes", classes, "mc_h", "mc_w"])],
        )

    def _first_block(self, i: int, x: str, channels: int) -> str:
        """Convolution of ``concat(enlarge(x), skip)``, the skip's share computed once."""
        name = f"decoder.{i}.0."
        separable = self._has(f"{name}0.0.weight")
        first = f"{name}0.0" if separable else f"{name}0"
        below, skip = self._joined_before(f"{first}.weight")
        grows = any(node.op_type == "Resize" and node.output[0] == below for node in self.graph.node)
        large = self._enlarge(x, skip) if grows else x  # tiny_vit has stride 16 twice
        own, others = [0, channels], [channels, 2**31 - 1]
        if separable:
            halves = []
            for part, span, data in (("x", own, large), ("skip", others, skip)):
                weight = self._slice(f"{first}.weight", span, axis=0)
                bias = self._slice(f"{first}.bias", span, axis=0)
                groups = channels if part == "x" else self._bias_size(f"{first}.bias") - channels
                deep = self._op("Relu", self._conv(data, weight, bias, kernel=3, groups=groups))
                point = self._slice(f"{name}1.0.weight", span, axis=1)
                halves.append(
                    self._conv(deep, point, f"{name}1.0.bias" if part == "skip" else None, kernel=1)
                )
        else:
            weight = self._slice(f"{first}.weight", own, axis=1)
            of_skip = self._slice(f"{first}.weight", others, axis=1)
            response = (
                self._masked(large, weight, channels) if i == 0 else self._conv(large, weight, kernel=3)
            )
            halves = [response, self._conv(skip, of_skip, f"{first}.bias", kernel=3)]
        return self._op("Relu", self._op("Add", *halves))

    def _masked(self, large: str, weight: str, channels: int) -> str:
        """``sum_c mask[n, c] * conv(large[c], weight[:, c])`` as one matrix product over the channels."""
        turned = self._op("Transpose", weight, perm=[1, 0, 2, 3])
        flat = self._op("Reshape", turned, self._ints([-1, 1, 3, 3]))
        each = self._conv(large, flat, kernel=3, groups=channels)  # (1, channels * out, H, W)
        rows = self._op("Reshape", each, self._ints([channels, -1]))
        mixed = self._op("MatMul", BOTTLENECK_INPUT, rows)  # (N, out * H * W)
        size = self._op("Slice", self._op("Shape", large), self._ints([2]), self._ints([4]))
        shape = self._op("Concat", self._ints([-1]), self._out_channels(weight), size, axis=0)
        return self._op("Reshape", mixed, shape)

    def _out_channels(self, weight: str) -> str:
        return self._op("Slice", self._op("Shape", weight), self._ints([0]), self._ints([1]))

    def _second_block(self, i: int, x: str) -> str:
        name = f"decoder.{i}.1."
        if not self._has(f"{name}0.0.weight"):
            return self._op("Relu", self._conv(x, f"{name}0.weight", f"{name}0.bias", kernel=3))
        groups = self._bias_size(f"{name}0.0.bias")
        deep = self._conv(x, f"{name}0.0.weight", f"{name}0.0.bias", kernel=3, groups=groups)
        return self._op(
            "Relu", self._conv(self._op("Relu", deep), f"{name}1.0.weight", f"{name}1.0.bias", kernel=1)
        )

    def _enlarge(self, x: str, like: str) -> str:
        """Bilinear, to the height and width of ``like``, exactly as ``models.blocks.resize_to`` does."""
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        if self.doubles:
            return self._op("Resize", x, "", self._constant("double", [1.0, 1.0, 2.0, 2.0]), **mode)
        own = self._op("Slice", self._op("Shape", x), self._ints([0]), self._ints([2]))
        size = self._op("Slice", self._op("Shape", like), self._ints([2]), self._ints([4]))
        shape = self._op("Concat", own, size, axis=0)
        return self._op("Resize", x, "", "", shape, **mode)

    def _conv(self, x: str, weight: str, bias: str | None = None, *, kernel: int, groups: int = 1) -> str:
        inputs = [x, weight] if bias is None else [x, weight, bias]
        pad = kernel // 2
        return self._op("Conv", *inputs, kernel_shape=[kernel, kernel], pads=[pad] * 4, group=groups)

    def _slice(self, tensor: str, span: list[int], axis: int) -> str:
        return self._op("Slice", tensor, self._ints(span[:1]), self._ints(span[1:]), self._ints([axis]))

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{_PREFIX}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def _ints(self, values: list[int]) -> str:
        return self._constant(f"ints_{'_'.join(map(str, values)).replace('-', 'm')}", values)

    def _constant(self, name: str, values: list[int] | list[float]) -> str:
        name = _PREFIX + name
        if all(tensor.name != name for tensor in self.constants):
            kind = TensorProto.FLOAT if isinstance(values[0], float) else TensorProto.INT64
            self.constants.append(helper.make_tensor(name, kind, [len(values)], values))
        return name

    # What the plain graph tells

    def _has(self, prefix: str) -> bool:
        return any(tensor.name.startswith(prefix) for tensor in self.graph.initializer)

    def _block_size(self, i: int, block: int) -> int:
        name = f"decoder.{i}.{block}."
        return self._bias_size(f"{name}1.0.bias" if self._has(f"{name}0.0.weight") else f"{name}0.bias")

    def _bias_size(self, name: str) -> int:
        for tensor in self.graph.initializer:
            if tensor.name in (name, f"{name}{HALF}"):
                return int(numpy_helper.to_array(tensor).shape[0])
        raise ModelError(f"the graph has no '{name}'", hint="only encoder_unet has Monte-Carlo dropout")

    def _conv_with(self, weight: str) -> NodeProto:
        nodes: list[NodeProto] = list(self.graph.node)
        for node in nodes:
            if node.op_type == "Conv" and node.input[1] == weight:
                return node
        raise ModelError(f"no convolution uses '{weight}'", hint="only encoder_unet has Monte-Carlo dropout")

    def _relu_after(self, weight: str) -> str:
        output = self._conv_with(weight).output[0]
        for node in self.graph.node:
            if node.op_type == "Relu" and node.input[0] == output:
                return str(node.output[0])
        raise ModelError(f"no ReLU follows the convolution with '{weight}'")

    def _joined_before(self, weight: str) -> tuple[str, str]:
        """What the convolution with ``weight`` gets as one map: from below, and by the skip connection."""
        joined = self._conv_with(weight).input[0]
        for node in self.graph.node:
            if node.op_type == "Concat" and node.output[0] == joined and len(node.input) == 2:
                return str(node.input[0]), str(node.input[1])
        raise ModelError(f"no skip connection feeds the convolution with '{weight}'")
