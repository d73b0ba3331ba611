"""An older opset on request, for runtimes that stopped there.

torch's exporter writes opset 18 at least, whatever it is asked for, and ONNX's own converter cannot go below
15 (it has no way back for ``Shape``). What differs between 18 and 13 in the graphs of convolutional networks
is little, and is rewritten here; ONNX's checker refuses what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from dermseg.errors import UsageError
from dermseg.export.graph import TO_THE_END, GraphBuilder, opset_of, set_nodes

OLDEST, EXPORTED = 13, 18
# Attributes of opset 14 to 18 whose usual value is what the older operator does anyway.
_DROPPED: dict[str, dict[str, Any]] = {
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "Reshape": {"allowzero": None},  # matters for tensors without elements only
    "Split": {"num_outputs": None},  # the older one takes equal parts of what it has outputs for
}
_AXES_AS_INPUT = {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"}
_DROPPED |= {name: {"noop_with_empty_axes": 0} for name in _AXES_AS_INPUT}
_IR_VERSION = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8}


def lower_opset(data: bytes, opset: int) -> bytes:
    """A model of opset 18 as one of ``opset`` (13 to 17), computing the same.

    Raises
    ------
    UsageError
        The graph has operators that ``opset`` does not know.
    """
    model = onnx.load_from_string(data)
    if opset_of(model) <= opset:
        return data
    made = GraphBuilder(f"opset{opset}")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    moved: set[str] = set()
    for node in model.graph.node:
        values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Shape" and values:
            first, last = (made.constant([values.get(k, d)]) for k, d in (("start", 0), ("end", TO_THE_END)))
            made.node("Slice", made.node("Shape", node.input[0]), first, last, output=node.output[0])
            continue
        dropped = _DROPPED.get(node.op_type, {})
        kept = [
            a
            for a in node.attribute
            if a.name not in dropped or dropped[a.name] not in (None, values[a.name])
        ]
        del node.attribute[:]
        node.attribute.extend(kept)
        if node.op_type in _AXES_AS_INPUT and len(node.input) == 2 and node.input[1] in constants:
            moved.add(node.input[1])
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()])
            node.attribute.append(helper.make_attribute("axes", np.atleast_1d(axes).tolist()))
        made.nodes.append(node)
    set_nodes(model.graph, made.nodes)
    # ONNX Runtime warns of each constant that nothing reads, every time the file is opened
    unread = moved - {name for node in made.nodes for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in unread]:
        model.graph.initializer.remove(tensor)
    model.graph.initializer.extend(made.constants)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = _IR_VERSION[opset]
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"this network cannot be written as opset {opset}: {reason}", hint=f"--opset {EXPORTED}"
        ) from None
    out: bytes = model.SerializeToString()
    return out
