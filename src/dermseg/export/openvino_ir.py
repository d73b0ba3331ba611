"""OpenVINO IR from an ONNX file: an XML graph and a binary with weights in fp16."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dermseg.inference.runtimes_openvino import import_openvino


def to_openvino(data: bytes) -> tuple[bytes, bytes]:
    """The XML and the binary of an IR; weights are stored in fp16, arithmetic is the runtime's choice.

    Read by OpenVINO's core and not by its converter, which reports to a web service.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    """
    ov = import_openvino()
    model = ov.Core().read_model(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=True)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
