"""The output of a network's ONNX graph that the gate reads: the encoder's maps, averaged over the image.

The maps exist anyway, so the output costs one mean over each of them.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from dermseg.export.graph import GraphBuilder, opset_of
from dermseg.inference.session import FEATURES

_GROWING = ("Resize", "Upsample", "ConvTranspose")


def add_features(model: bytes, size: int) -> bytes:
    """The same graph with one more output ``features``, ``float32 (N, D)``.

    It is the mean over each map that the encoder hands to the decoder, from coarse to fine. A graph that has
    the output already, or no encoder that hands on several maps, is returned as it is.

    Parameters
    ----------
    model
        An ONNX file, images ``(N, 3, H, W)`` in, logits out.
    size
        Height and width of the image at which the strides are found.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    if any(output.name == FEATURES for output in graph.output):
        return model
    maps = encoder_maps(proto, size)
    if len(maps) < 2:
        return model
    builder = GraphBuilder(FEATURES)
    axes = builder.constant([2, 3]) if opset_of(proto) >= 18 else None
    means = [_mean(builder, name, axes) for name in maps.values()]
    inferred = onnx.shape_inference.infer_shapes(proto).graph.value_info
    if {v.type.tensor_type.elem_type for v in inferred if v.name in maps.values()} != {TensorProto.FLOAT}:
        means = [builder.node("Cast", mean, to=TensorProto.FLOAT) for mean in means]
    builder.node("Concat", *means, output=FEATURES, axis=1)
    graph.node.extend(builder.nodes)
    graph.initializer.extend(builder.constants)
    graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", "features"]))
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString()
    return data


def encoder_maps(proto: onnx.ModelProto, size: int) -> dict[int, str]:
    """Stride -> name of each map that is made before the first one that grows again and read afterwards."""
    fixed = onnx.ModelProto.FromString(proto.SerializeToString())
    dimensions = fixed.graph.input[0].type.tensor_type.shape.dim
    for dimension, value in zip(dimensions, (1, 3, size, size), strict=True):
        dimension.ClearField("dim_param")
        dimension.dim_value = value
    del fixed.graph.value_info[:]  # shapes of the dynamic graph would win over the fixed ones
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in inferred.value_info
    }
    nodes = list(proto.graph.node)
    growing = next((i for i, node in enumerate(nodes) if node.op_type in _GROWING), len(nodes))
    image = {proto.graph.input[0].name}  # what is made from the image, not from weights alone
    for node in nodes[:growing]:
        if image.intersection(node.input):
            image.update(node.output)
    read = {name for node in nodes[growing:] if node.op_type != "Shape" for name in node.input}
    maps = {}
    for name in (output for node in nodes[:growing] for output in node.output):
        shape = shapes.get(name, []) if name in image & read else []
        if len(shape) == 4 and shape[2] > 1 and size % shape[2] == 0:
            maps[size // shape[2]] = name
    return dict(sorted(maps.items(), reverse=True))


def _mean(builder: GraphBuilder, tensor: str, axes: str | None) -> str:
    """Mean over height and width, ``(N, C)``; the axes are an input from opset 18 on, else an attribute."""
    if axes:
        return builder.node("ReduceMean", tensor, axes, keepdims=0)
    return builder.node("ReduceMean", tensor, axes=[2, 3], keepdims=0)
