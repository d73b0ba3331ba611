"""The whole way in one graph: ``uint8 (N, H, W, 3)`` RGB of any size in, ``uint8 (N, H, W)`` masks out.

Inside are the resize of the card, normalisation, network, sigmoid with temperature, enlargement and
threshold. Holes, small components and all but the largest lesion stay: labelling needs loops over pixels,
which ONNX has no operator for.

ONNX's ``Resize`` has no area average (``antialias=1`` is a triangle twice as wide: grey values differ by up
to 18 of 255 from OpenCV's, and it needs opset 18). An area average is a difference of running sums at
fractional positions, so the graph holds ``CumSum`` instead: the same values as OpenCV but for a rounding of
1/255, in about the same time, from opset 13 on. Running sums need float32: in bfloat16, which
OpenVINO takes by itself, up to half of the pixels of a mask are others.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from dermseg.errors import UsageError
from dermseg.export.graph import TO_THE_END, GraphBuilder, set_input, set_nodes, set_output
from dermseg.inference.card import Postprocessing, Preprocessing

PIXELS, MASK = "pixels", "mask"
NOTES = (
    "Input 'pixels' uint8 (N, H, W, 3) RGB upright, any size; output 'mask' uint8 (N, H, W), 0 or 255. Not "
    "in the graph: largest component, holes, smoothing, smallest area. Differs from dermseg by rounding "
    "only, where dermseg is given the same pixels (it decodes large JPEGs at a reduced scale). Run it in "
    "float32 (OpenVINO: INFERENCE_PRECISION_HINT f32): other masks come out in bfloat16 or half precision."
)


def add_ends(data: bytes, pre: Preprocessing, post: Postprocessing) -> bytes:
    """The network's ONNX file with everything before and after it put inside.

    Parameters
    ----------
    data
        Graph from normalised float32 images to logits, opset 13 or later.
    pre, post
        From the card.

    Raises
    ------
    UsageError
        The card has filters, which no ONNX operators stand for.
    """
    check_filters(pre)
    model = onnx.load_from_string(data)
    graph = model.graph
    ends = GraphBuilder("end_to_end")
    small = _resized(ends, pre)
    std = np.array(pre.std, np.float32)
    scale = ends.constant((1 / (255 * std)).reshape(1, 3, 1, 1), np.float32)
    shift = ends.constant((np.array(pre.mean) / std).reshape(1, 3, 1, 1), np.float32)
    ends.node("Sub", ends.node("Mul", small, scale), shift, output=pre.input_name)
    before, ends.nodes = ends.nodes, []

    lesion = ends.node("Slice", pre.output_name, ends.constant([0]), ends.constant([1]), ends.constant([1]))
    logit = ends.node("Div", lesion, ends.constant(post.temperature, np.float32))
    probability = ends.node("Sigmoid", logit)
    count, height, width = (
        ends.node("Slice", ends.node("Shape", PIXELS), *_from_to(ends, i)) for i in range(3)
    )
    size = ends.node("Concat", count, ends.constant([1]), height, width, axis=0)
    full = _linear(ends, probability, size)
    inside = ends.node("GreaterOrEqual", full, ends.constant(post.threshold, np.float32))
    grey = ends.node("Where", inside, ends.constant(255, np.uint8), ends.constant(0, np.uint8))
    ends.node("Squeeze", grey, ends.constant([1]), output=MASK)

    set_nodes(graph, [*before, *graph.node, *ends.nodes])
    graph.initializer.extend(ends.constants)
    set_input(graph, PIXELS, TensorProto.UINT8, ["n", "height", "width", 3])
    set_output(graph, MASK, TensorProto.UINT8, ["n", "height", "width"])
    onnx.checker.check_model(model, full_check=True)
    out: bytes = model.SerializeToString()
    return out


def check_filters(pre: Preprocessing) -> None:
    """Refuse a card with filters.

    Raises
    ------
    UsageError
        It has some.
    """
    if pre.filters:
        raise UsageError(
            f"a graph from pixels to mask cannot hold the filters {', '.join(pre.filters)}",
            hint="leave --end-to-end out, or train with model.filters=[]",
        )


def _resized(g: GraphBuilder, pre: Preprocessing) -> str:
    """Pixels at the network's size, ``float32 (N, 3, height, width)`` of whole numbers from 0 to 255."""
    if pre.resize == "area":
        small = _area(g, _area(g, PIXELS, 1, pre.height), 2, pre.width)
    else:
        small = g.node("Cast", PIXELS, to=TensorProto.FLOAT)
    small = g.node("Round", g.node("Transpose", small, perm=[0, 3, 1, 2]))
    size = g.node(
        "Concat",
        g.node("Slice", g.node("Shape", small), *_from_to(g, 0)),
        g.constant([3, pre.height, pre.width]),
        axis=0,
    )
    return g.node("Round", _linear(g, small, size))


def _area(g: GraphBuilder, x: str, axis: int, size: int) -> str:
    """The area average of ``x`` along an axis down to ``size`` values; fewer stay as they are."""
    length = g.dimension(x, axis)
    target = g.node("Min", length, g.constant(size))
    step = g.node("Div", _float(g, length), _float(g, target))
    one = g.constant(1)
    index = g.node("Range", g.constant(0), g.node("Add", target, one), one)
    edge = g.node("Mul", _float(g, index), step)
    # the last edge may round to beyond the image
    edge = g.node("Min", edge, _float(g, length))
    whole = g.node("Floor", edge)
    below = g.node("Cast", whole, to=TensorProto.INT64)
    above = g.node("Min", g.node("Add", below, one), length)
    pads = [0] * 8
    pads[axis] = 1  # a leading zero: entry i of the sums is then the sum of the first i values
    padded = g.node("Pad", x, g.constant(pads))
    if x == PIXELS:
        padded = _float(g, padded)
    sums = g.node("CumSum", padded, g.constant(axis))
    shape = [1] * 4
    shape[axis] = -1
    part = g.node("Reshape", g.node("Sub", edge, whole), g.constant(shape))
    low, high = (g.node("Gather", sums, i, axis=axis) for i in (below, above))
    at_edge = g.node("Add", low, g.node("Mul", part, g.node("Sub", high, low)))
    axes = g.constant([axis])
    right = g.node("Slice", at_edge, g.constant([1]), g.constant([TO_THE_END]), axes)
    left = g.node("Slice", at_edge, g.constant([0]), g.constant([-1]), axes)
    return g.node("Div", g.node("Sub", right, left), step)


def _linear(g: GraphBuilder, x: str, size: str) -> str:
    return g.node("Resize", x, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")


def _float(g: GraphBuilder, x: str) -> str:
    return g.node("Cast", x, to=TensorProto.FLOAT)


def _from_to(g: GraphBuilder, index: int) -> tuple[str, str]:
    return g.constant([index]), g.constant([index + 1])
