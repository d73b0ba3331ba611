"""The forms in which a network is stored, each measured against the network that was trained.

| name | what it is |
|---|---|
| fp16 | ONNX, weights stored in half precision, float32 arithmetic: half the file |
| fp32 | ONNX as it was trained |
| int8-weights | ONNX, weights stored in 8 bits, float32 arithmetic: a quarter of the file |
| int8 | ONNX, 8-bit weights and activations (``quantize``) |
| openvino | OpenVINO IR, weights stored in half precision |
| end-to-end | ONNX from pixels to mask (``end_to_end``), for other programs |

A form that costs more than ``MAX_DICE_LOSS`` on the validation images is refused; the others are stored.
One that is made for speed (int8, openvino) and is slower than float32 in ONNX Runtime on this machine is left
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

from dermseg.data.index import IndexRow, open_image
from dermseg.errors import ModelError, UsageError
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.metrics import dice
from dermseg.export.end_to_end import NOTES, PIXELS, add_ends
from dermseg.export.graph import opset_of
from dermseg.export.onnx import store_as_bytes, store_as_fp16
from dermseg.export.openvino_ir import to_openvino
from dermseg.export.parity import Floats, compare, lesion_probability, run_session
from dermseg.export.quantize import quantize
from dermseg.export.timing import latency, speedup
from dermseg.export.tune import PLAIN, Labelled, score
from dermseg.images.load import load_image
from dermseg.images.packed import PackedMask
from dermseg.inference.card import Postprocessing, Preprocessing, StoredFile, Variant
from dermseg.inference.postprocess import clean, upsample_mask
from dermseg.inference.preprocess import to_input
from dermseg.inference.runtimes_openvino import OpenVinoSession, openvino_installed
from dermseg.inference.session import OrtSession, Session
from dermseg.inference.threads import available_cpus

PLAIN_FORMS = ("fp16", "fp32", "int8-weights")  # float32 arithmetic, read by every runtime
VARIANTS = (*PLAIN_FORMS, "int8", "openvino")
END_TO_END = "end-to-end"
MAX_DICE_LOSS = 0.003  # 0.3 Dice points
_FOR_SPEED = ("int8", "openvino")
_END_TO_END_IMAGES = 32


@dataclass(frozen=True)
class Original:
    """The trained network and what its stored forms are compared on.

    Parameters
    ----------
    graph
        float32 ONNX, images to logits.
    inputs, probability
        ``float32 (N, 3, h, w)`` validation images as the network sees them, and ``float32 (N, h, w)``: what
        torch makes of them.
    rows, references
        Their rows in the index, and masks.
    calibration
        Gives training images ``float32 (M, 3, h, w)``.
    """

    graph: bytes
    preprocessing: Preprocessing
    postprocessing: Postprocessing
    inputs: Floats
    probability: Floats
    rows: Sequence[IndexRow]
    references: Sequence[PackedMask]
    calibration: Callable[[], Floats]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.preprocessing.height, self.preprocessing.width

    def dice(self, probability: Floats) -> float:
        """Mean Dice of these maps after post-processing, at the masks' own size; data sets count the same."""
        items = [
            Labelled(row.dataset, p, reference)
            for row, p, reference in zip(self.rows, probability, self.references, strict=True)
        ]
        return score(items, self.postprocessing)["dice"]


@dataclass(frozen=True)
class Built:
    """Files of one variant, and what the card says about them."""

    files: dict[str, bytes]
    precision: str
    format: Literal["onnx", "openvino"] = "onnx"
    interface: Literal["logits", "mask"] = "logits"
    notes: str = ""


@dataclass
class Stored:
    """What goes into a bundle, and what was asked for and does not: name and reason.

    ``refused`` cost too much, ``left_out`` were not worth it.
    """

    variants: dict[str, Variant] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of variants in order, led by one that every runtime reads.

    Raises
    ------
    UsageError
        A name is unknown.
    """
    for name in names:
        if name not in VARIANTS:
            raise UsageError(f"unknown variant '{name}'", hint=f"of {', '.join(VARIANTS)}")
    plain = [name for name in names if name in PLAIN_FORMS] or ["fp16"]
    return tuple(dict.fromkeys([*plain, *names]))


def store_variants(
    original: Original,
    names: Sequence[str],
    *,
    end_to_end: bool = False,
    force: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Stored:
    """Make, compare and time each variant; the first becomes ``model.onnx``.

    Raises
    ------
    ModelError
        The first variant, which is the default, loses more than 0.3 Dice points; ``force`` keeps it.
    MissingExtraError
        ``openvino`` is asked for and not installed.
    """
    stored = Stored()
    reference_dice = original.dice(original.probability)
    fp32 = OrtSession(original.graph, 1)
    for name in check_names(names):
        report(f"variant {name}")
        built = _build(name, original, "model" if not stored.files else f"model-{name}", reference_dice)
        session = _open(built, None)
        probability = lesion_probability(
            run_session(session, original.inputs), original.postprocessing.temperature
        )
        parity = {
            "reference": "torch fp32",
            **compare(original.probability, probability, original.postprocessing.threshold),
            "dice_reference": reference_dice,
            "dice": original.dice(probability),
        }
        if not force and (loss := _too_much(parity)):
            if not stored.variants:
                raise ModelError(f"variant '{name}' {loss}", hint="another one, or --force")
            stored.refused[name] = loss
            report(f"variant {name} is refused: it {loss} (--force keeps it)")
            continue
        ratio = speedup(fp32, _open(built, 1), original.size)
        if name in _FOR_SPEED and ratio < 1 and not force:
            stored.left_out[name] = f"{ratio:.2f} times as fast as fp32 in ONNX Runtime on this machine"
            report(f"variant {name} is left out: {stored.left_out[name]} (--force keeps it)")
            continue
        if isinstance(session, OpenVinoSession):
            built = Built(**{**vars(built), "precision": f"{built.precision} ({session.precision} here)"})
        stored.variants[name] = _entry(built, parity, _latencies(built, original.size), round(ratio, 3))
        stored.files |= built.files
    if end_to_end:
        report(f"variant {END_TO_END}")
        main = next(iter(stored.files.values()))
        built = Built(
            {f"model-{END_TO_END}.onnx": add_ends(main, original.preprocessing, original.postprocessing)},
            next(iter(stored.variants.values())).precision,
            interface="mask",
            notes=NOTES,
        )
        parity = _compare_masks(next(iter(built.files.values())), original, fp32)
        if not force and (loss := _too_much(parity)):
            stored.refused[END_TO_END] = loss
            report(f"variant {END_TO_END} is refused: it {loss} (--force keeps it)")
        else:
            stored.variants[END_TO_END] = _entry(built, parity, [], None)
            stored.files |= built.files
    return stored


def _build(name: str, original: Original, stem: str, reference_dice: float) -> Built:
    if name == "fp32":
        return Built({f"{stem}.onnx": original.graph}, "fp32")
    if name == "fp16":
        return Built({f"{stem}.onnx": store_as_fp16(original.graph)}, "fp32, weights stored as fp16")
    if name == "int8-weights":
        return Built({f"{stem}.onnx": store_as_bytes(original.graph)}, "fp32, weights stored as int8")
    if name == "openvino":
        graph, weights = to_openvino(original.graph)
        files = {f"{stem}.xml": graph, f"{stem}.bin": weights}
        return Built(files, "OpenVINO's choice, weights stored as fp16", format="openvino")

    def loss(candidate: bytes) -> float:
        logits = run_session(OrtSession(candidate), original.inputs)
        return reference_dice - original.dice(lesion_probability(logits, original.postprocessing.temperature))

    data, kept = quantize(original.graph, original.calibration(), loss)
    return Built({f"{stem}.onnx": data}, f"int8, {kept} in fp32")


def _open(built: Built, threads: int | None) -> Session:
    graph, *weights = built.files.values()
    if built.format == "openvino":
        return OpenVinoSession(graph, threads, weights=weights[0])
    return OrtSession(graph, threads)


def _latencies(built: Built, size: tuple[int, int]) -> list[Any]:
    """On one thread and on all, in every runtime that is installed and reads the format."""
    rows = []
    for threads in dict.fromkeys((1, available_cpus())):
        rows += latency(_open(built, threads), size)
        if built.format == "onnx" and openvino_installed():
            rows += latency(OpenVinoSession(next(iter(built.files.values())), threads), size)
    return rows


def _entry(built: Built, parity: dict[str, Any], rows: list[Any], ratio: float | None) -> Variant:
    main, *rest = (
        StoredFile(file=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in built.files.items()
    )
    graph = next(iter(built.files.values()))
    return Variant(
        **main.model_dump(),
        precision=built.precision,
        format=built.format,
        interface=built.interface,
        opset=opset_of(onnx.load_from_string(graph)) if built.format == "onnx" else None,
        weights=rest[0] if rest else None,
        parity=parity,
        latency=rows,
        speedup=ratio,
        notes=built.notes,
    )


def _too_much(parity: dict[str, Any]) -> str:
    """What a variant loses, in words, where that is too much; else nothing."""
    before, after = parity["dice_reference"], parity["dice"]
    if before - after <= MAX_DICE_LOSS:
        return ""
    return (
        f"loses {100 * (before - after):.2f} Dice points on {parity['images']} validation images "
        f"({before:.4f} to {after:.4f}); {100 * MAX_DICE_LOSS:.1f} are allowed"
    )


def _compare_masks(data: bytes, original: Original, network: Session) -> dict[str, Any]:
    """The end-to-end graph against dermseg's own steps on the same pixels, without its cleaning."""
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    post = PLAIN.model_copy(update=original.postprocessing.model_dump(include={"threshold", "temperature"}))
    flipped, before, after = [], [], []
    step = -(-len(original.rows) // _END_TO_END_IMAGES)
    for row, packed in list(zip(original.rows, original.references, strict=True))[::step]:
        reference = packed.unpack()
        pixels = load_image(open_image(row)).pixels
        logits = network(to_input(pixels, original.preprocessing)[None])
        probability = lesion_probability(logits, post.temperature)[0]
        expected = upsample_mask(clean(probability, post), reference.shape)
        (found,) = session.run(None, {PIXELS: pixels[None]})
        mask = found[0] > 127
        flipped.append(float((mask != expected).mean()))
        before.append(dice(count_pixels(expected, reference)))
        after.append(dice(count_pixels(mask, reference)))
    return {
        "reference": "dermseg with the same pixels, threshold only",
        "images": len(flipped),
        "flipped_pixels": float(np.mean(flipped)),
        "dice_reference": float(np.mean(before)),
        "dice": float(np.mean(after)),
    }
