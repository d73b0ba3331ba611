"""Adding nodes to an ONNX graph: constants and operators with names of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

TO_THE_END = 2**31 - 1  # of a Slice: an end beyond any axis


class GraphBuilder:
    """Collects nodes and constants, for whoever makes or changes a graph.

    Parameters
    ----------
    prefix
        Begins every name that is made, so that none meets a name of the network.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: ArrayLike, dtype: Any = np.int64) -> str:
        """The name of a new constant."""
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """The name of the output of a new node; an empty input is one that is left out."""
        name = self._name(op.lower()) if output is None else output
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{name}_node", **attributes))
        return name

    def dimension(self, tensor: str, axis: int) -> str:
        """The size of a tensor along an axis, int64 without dimensions."""
        return self.node("Gather", self.node("Shape", tensor), self.constant(axis), axis=0)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}/{kind}_{self._count}"


def set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the nodes of a graph."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def set_input(graph: onnx.GraphProto, name: str, kind: int, shape: list[str | int]) -> None:
    """Make ``name`` the only input of a graph."""
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def set_output(graph: onnx.GraphProto, name: str, kind: int, shape: list[str | int]) -> None:
    """Make ``name`` the only output of a graph."""
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, kind, shape))


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model uses."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
