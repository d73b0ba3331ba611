"""A network that others exported, as a bundle.

What differs between programs is written into the graph, so that dermseg runs it like its own: channels last
and BGR become a transpose and a reordering in front; two classes become the difference of their logits, and
probabilities become logits, behind. The rest (size, normalisation, threshold) goes into the card.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import ModelError, UsageError
from dermseg.export.foreign_card import read_foreign_card
from dermseg.export.foreign_graph import Original, adapt
from dermseg.export.graph import opset_of
from dermseg.export.onnx import INPUT_NAME, OUTPUT_NAME
from dermseg.export.timing import latency
from dermseg.export.write import check_output, write_bundle
from dermseg.inference.card import ModelCard, Preprocessing, Variant
from dermseg.inference.machine import describe_machine, library_versions
from dermseg.inference.postprocess import to_probability
from dermseg.inference.session import OrtSession
from dermseg.inference.threads import available_cpus

MAX_DIFFERENCE = 1e-3


def wrap(file: Path, card_file: Path, output: Path, *, overwrite: bool = False) -> ModelCard:
    """Make a bundle of an ONNX file and a YAML card, and check that it computes what the file computes.

    Raises
    ------
    ModelError
        Not an ONNX file with one image input and one map as output, or it fails or answers differently once
        adapted.
    ConfigError
        The YAML is wrong.
    UsageError
        ``file`` cannot be read, or ``output`` exists and may not be replaced.
    """
    check_output(output, overwrite=overwrite)
    told = read_foreign_card(card_file)
    if file.exists() and not file.is_file():  # a device would be read until the memory is full
        raise UsageError("cannot be read: is not a file", file=file)
    try:
        given = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", file=file) from None
    try:
        original = Original(given, told)
        data = adapt(original)
        parity = _compare(original, data)
    except ModelError as error:
        raise ModelError(error.message, file=file, hint=error.hint) from None
    size = told.input
    card = ModelCard(
        **told.model_dump(include={"name", "version", "licence", "summary", "architecture", "intended_use"}),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        limitations=list(told.limitations),
        training=told.training,
        parameters=original.parameters,
        preprocessing=Preprocessing(
            **size.model_dump(include={"height", "width", "resize", "mean", "std"}),
            input_name=INPUT_NAME,
            output_name=OUTPUT_NAME,
        ),
        postprocessing=told.postprocessing,
        variants={
            "original": Variant(
                file="model.onnx",
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                precision="as given",
                opset=opset_of(original.model),
                parity=parity,
                latency=[
                    row
                    for threads in dict.fromkeys((1, available_cpus()))
                    for row in latency(OrtSession(data, threads), (size.height, size.width))
                ],
            )
        },
        default_variant="original",
        export={
            "source": {"file": file.name, "sha256": hashlib.sha256(given).hexdigest()},
            "machine": describe_machine(),
            "versions": library_versions(),
        },
    )
    write_bundle(output, card, {"model.onnx": data})
    return card


def _compare(original: Original, adapted: bytes) -> dict[str, Any]:
    """The adapted graph on three images at once, against the file as it came on one after the other."""
    told, images = original.told, original.images(3)
    answer = np.concatenate([original(image[None]) for image in images])
    _check_values(original, answer)
    if original.dimensions == 4:
        maps = np.moveaxis(answer, 1 if told.input.layout == "NCHW" else 3, 0)
        answer = maps[-1] - maps[0] if original.classes == 2 and told.output == "logits" else maps[-1]
    expected = to_probability(answer) if told.output == "logits" else answer
    dynamic = "export it again with a dynamic batch"
    try:
        found = to_probability(OrtSession(adapted)(images)[:, 0])
    except ModelError as error:
        raise ModelError(error.message, hint=dynamic) from None
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    if not difference <= MAX_DIFFERENCE:
        raise ModelError("several images at once give other answers than one by one", hint=dynamic)
    return {
        "reference": "the file as given, random images",
        "images": len(images),
        "max_difference": difference,
    }


def _check_values(original: Original, answer: NDArray[np.float32]) -> None:
    """Refuse an answer to random images that is not what the card says it is.

    Probabilities taken for logits would all be 0.5 or more: every pixel would be lesion.

    Raises
    ------
    ModelError
        Values that are no numbers, no probabilities, or very likely no logits.
    """
    if np.isnan(answer).any():
        raise ModelError(
            "the output for random images is not a number (NaN)",
            hint="see that mean and std in the card are those of its training, and run the file by itself",
        )
    low, high = float(answer.min()), float(answer.max())
    reach = f"the output reaches from {low:.3g} to {high:.3g}"
    inside = low >= 0 and high <= 1
    if original.told.output == "logits" and inside:
        raise ModelError(
            f"{reach}: these are probabilities", hint="write 'output: probabilities' in the card"
        )
    if original.told.output == "probabilities" and not inside:
        raise ModelError(
            f"{reach}: these are no probabilities",
            hint="write 'output: logits' in the card"
            if low < 0
            else "export the network without the last steps, or with a division by 255",
        )
