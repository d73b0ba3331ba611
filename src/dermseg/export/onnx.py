"""From a torch network to an ONNX file.

The graph takes ``image`` float32 ``(N, 3, H, W)``, normalised, and gives ``logits`` float32
``(N, C, H, W)``; batch, height and width are dynamic. Batch norms are folded into the convolutions
before export, so the file holds what is computed and nothing else.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dermseg.errors import ModelError, UsageError
from dermseg.export.opset import EXPORTED, OLDEST, lower_opset
from dermseg.inference.session import first_line
from dermseg.models.stored import HALF
from dermseg.models.transunet import StandardizedConv

INPUT_NAME, OUTPUT_NAME = "image", "logits"
OPSET, NEWEST = 20, 23  # what torch writes unless told otherwise, and the newest it knows


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode with every convolution-norm pair folded into one.

    Standardized filters are computed once, too.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, StandardizedConv):
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


def store_as_fp16(data: bytes, min_elements: int = 256) -> bytes:
    """The same graph with large weights kept in half precision and cast back when it is loaded.

    Halves the file; arithmetic stays fp32 (runtimes fold the casts once). Returns serialized ONNX.
    """
    proto = onnx.load_from_string(data)
    graph = proto.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < min_elements:
            continue
        half = numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}{HALF}"))
        casts.append(helper.make_node("Cast", [f"{name}{HALF}"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(proto)
    out: bytes = proto.SerializeToString()
    return out
