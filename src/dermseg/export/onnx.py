"""From a torch network to an ONNX file.

The graph takes ``image`` float32 ``(N, 3, H, W)``, normalised, and gives ``logits`` float32
``(N, C, H, W)``; batch, height and width are dynamic. Batch norms are folded into the convolutions
before export, so the file holds what is computed and nothing else.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dermseg.errors import ModelError, UsageError
from dermseg.export.opset import EXPORTED, OLDEST, lower_opset
from dermseg.inference.session import first_line
from dermseg.models.stored import BYTES, HALF, SCALE, TRANSPOSED
from dermseg.models.tiny_vit import Attention
from dermseg.models.transunet import StandardizedConv

INPUT_NAME, OUTPUT_NAME = "image", "logits"
Weight = NDArray[np.float32]
_LARGE = 256  # weights of a tensor, from which half precision saves something
OPSET, NEWEST = 20, 23  # what torch writes unless told otherwise, and the newest it knows


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode with every convolution-norm pair folded into one.

    Standardized filters and biases of attention are computed once, too.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, StandardizedConv | Attention):
            module.fold_()
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            conv, norm = module[i], module[i + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[i] = fuse_conv_bn_eval(conv, norm)
                module[i + 1] = nn.Identity()
    return model


def to_onnx(model: nn.Module, size: int = 256, opset: int = OPSET) -> bytes:
    """Export ``model`` as fp32 ONNX with dynamic batch, height and width.

    Parameters
    ----------
    model
        Network that maps ``(N, 3, H, W)`` to ``(N, C, H, W)``.
    size
        Side of the example image; any size works afterwards.
    opset
        13 to 23; below 18 the graph is rewritten, see ``opset``.

    Raises
    ------
    UsageError
        The network cannot be written in this opset.
    ModelError
        torch cannot export it.
    """
    if not OLDEST <= opset <= NEWEST:
        raise UsageError(f"opset {opset} cannot be written", hint=f"{OLDEST} to {NEWEST}")
    folded = fold_batch_norm(model).cpu()
    for module in folded.modules():
        if isinstance(module, nn.ReLU | nn.Hardtanh):  # ReLU6 is one of the latter
            module.inplace = False  # a graph gains nothing by it, and torch takes twice as long to write it
    example = torch.zeros(2, 3, size, size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    shapes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations are not the user's business
        try:
            program: Any = torch.onnx.export(
                folded,
                (example,),
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=max(opset, EXPORTED),  # what is asked for below that, it ignores
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                verbose=False,
            )
        except Exception as error:  # of networks of one's own; torch has many kinds
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ModelError(
                f"torch cannot write the network as ONNX: {type(cause).__name__}: {first_line(cause)}",
                hint="steps that depend on the values of an image (if, float(), .item()) need torch.where",
            ) from error
    buffer = io.BytesIO()
    program.save(buffer)
    proto = onnx.load_from_string(buffer.getvalue())
    _strip_metadata(proto)
    _name_transposed(proto, folded)
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString()
    return data if opset >= EXPORTED else lower_opset(data, opset)


def _strip_metadata(proto: onnx.ModelProto) -> None:
    """Remove stack traces and file paths of the exporting machine; they are half of the graph's size."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    for item in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    del proto.graph.value_info[:]


def _name_transposed(proto: onnx.ModelProto, network: nn.Module) -> None:
    """Name the weights of linear layers again, which the exporter transposes and numbers."""
    names = {
        hashlib.sha256(weight.detach().T.contiguous().numpy().tobytes()).digest(): name
        for name, weight in network.named_parameters()
        if weight.ndim == 2
    }
    renamed = {}
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT:
            values = np.ascontiguousarray(numpy_helper.to_array(tensor))
            name = names.get(hashlib.sha256(values.tobytes()).digest())
            if name and name != tensor.name:
                renamed[tensor.name] = tensor.name = f"{name}{TRANSPOSED}"
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


def store_as_fp16(data: bytes) -> bytes:
    """The same graph with large weights kept in half precision and cast back when it is loaded.

    Halves the file; arithmetic stays fp32 (runtimes fold the casts once). Returns serialized ONNX.
    """
    return _store(data, lambda name, weight: _half(name, weight) if weight.size >= _LARGE else None)


def store_as_bytes(data: bytes, min_elements: int = 1024) -> bytes:
    """The same graph with large weights kept in 8 bits, a scale per output channel; smaller ones in fp16.

    A quarter of the file; arithmetic stays fp32 (runtimes multiply once). Returns serialized ONNX.
    """

    def form(name: str, weight: Weight) -> _Stored | None:
        if weight.ndim < 2 or weight.size < min_elements:
            return _half(name, weight) if weight.size >= _LARGE else None
        output = weight.ndim - 1 if name.endswith(TRANSPOSED) else 0
        others = tuple(axis for axis in range(weight.ndim) if axis != output)
        largest = np.abs(weight).max(axis=others, keepdims=True)
        scale = (np.maximum(largest, np.finfo(np.float32).tiny) / 127).astype(np.float32)
        whole, wide = f"{name}{BYTES}", f"{name}_wide"
        return _Stored(
            {whole: np.rint(weight / scale).astype(np.int8), f"{name}{SCALE}": scale},
            [
                helper.make_node("Cast", [whole], [wide], to=TensorProto.FLOAT),
                helper.make_node("Mul", [wide, f"{name}{SCALE}"], [name]),
            ],
        )

    return _store(data, form)


@dataclass(frozen=True)
class _Stored:
    """What a weight is made of when a graph is loaded: tensors and the nodes that make it of them."""

    tensors: dict[str, NDArray[Any]]
    nodes: list[onnx.NodeProto]


def _half(name: str, weight: Weight) -> _Stored:
    half = f"{name}{HALF}"
    cast = helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)
    return _Stored({half: weight.astype(np.float16)}, [cast])


def _store(data: bytes, form: Callable[[str, Weight], _Stored | None]) -> bytes:
    """The graph with each weight in the form that ``form`` gives; where it gives none, as it is."""
    proto = onnx.load_from_string(data)
    graph = proto.graph
    tensors, made = [], []
    for tensor in graph.initializer:
        found = None
        if tensor.data_type == TensorProto.FLOAT:
            found = form(tensor.name, numpy_helper.to_array(tensor))
        if found is None:
            tensors.append(tensor)
        else:
            tensors += [numpy_helper.from_array(values, name) for name, values in found.tensors.items()]
            made += found.nodes
    nodes = [*made, *graph.node]
    for field, content in ((graph.initializer, tensors), (graph.node, nodes)):
        kept = list(content)
        del field[:]
        field.extend(kept)
    onnx.checker.check_model(proto)
    out: bytes = proto.SerializeToString()
    return out
