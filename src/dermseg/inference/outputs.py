"""What a batch leaves behind: the names of its files, one row per image, and ``results.csv``.

Names follow the input's relative path, so that a folder of predictions lies over the folder of images:
``masks/<relative path>/<stem>_segmentation.png``, ``overlays/.../<stem>.jpg``,
``probabilities/.../<stem>.png``, where each lesion is kept apart ``labels/.../<stem>_labels.png``, and with
``--uncertainty`` ``uncertainty/.../<stem>_mean.png`` (``_std``, ``_entropy``) and
``margins/.../<stem>_outer.png`` (``_inner``). What people correct is in ``labelme/.../<stem>.json``.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dermseg.errors import UsageError
from dermseg.files import atomic_write
from dermseg.images.names import UniqueNames, cell_name, shorten

if TYPE_CHECKING:
    from dermseg.inference.result import Result
    from dermseg.uncertainty.margins import Margins

# Made by dermseg.dicom, of DICOM inputs.
DICOM_KINDS = ("dicom-seg", "dicom-probability", "dicom-sr", "dicom-sc")
ENCODED_KINDS = ("labelme", *DICOM_KINDS)  # what an encoder makes, see ``stages.Encoder``
SAVE_KINDS = ("mask", "overlay", "probability", *ENCODED_KINDS)
# kind of output -> (folder below OUT, what follows the stem)
LAYOUT: dict[str, tuple[str, str]] = {
    "mask": ("masks", "_segmentation.png"),
    "overlay": ("overlays", ".jpg"),
    "probability": ("probabilities", ".png"),
    "labels": ("labels", "_labels.png"),
    "mean": ("uncertainty", "_mean.png"),
    "std": ("uncertainty", "_std.png"),
    "entropy": ("uncertainty", "_entropy.png"),
    "outer": ("margins", "_outer.png"),
    "inner": ("margins", "_inner.png"),
    "labelme": ("labelme", ".json"),
    "dicom-seg": ("dicom", "_seg.dcm"),
    "dicom-probability": ("dicom", "_probability.dcm"),
    "dicom-sr": ("dicom", "_sr.dcm"),
    "dicom-sc": ("dicom", "_sc.dcm"),
}
MAPS = ("mean", "std", "entropy")
MARGINS = ("outer", "inner")
RESULTS, REPORT = "results.csv", "report.html"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``results.csv``: everything that is known about one input; unknown is None.

    ``area_fraction`` and ``confidence`` are in [0, 1]; the bounding box and the centroid are in pixels
    of the upright input, x to the right and y down; ``seconds`` is the time spent on this image alone
    (its share of a network batch included). ``mask``, ``overlay``, ``probability`` and ``labels`` are
    paths relative to the output folder. The true Dice is expected between ``predicted_dice_low`` and
    ``_high`` for 9 of 10 such images; margins are distances from the outline.
    """

    file: str
    status: str
    message: str = ""
    width: int | None = None
    height: int | None = None
    area_fraction: float | None = None
    area_px: int | None = None
    bbox_x: int | None = None
    bbox_y: int | None = None
    bbox_width: int | None = None
    bbox_height: int | None = None
    centroid_x: float | None = None
    centroid_y: float | None = None
    touches_border: bool | None = None
    components_removed: int | None = None
    confidence: float | None = None
    predicted_dice: float | None = None
    verdict: str | None = None
    seconds: float | None = None
    lesions: int | None = None
    mask: str | None = None
    overlay: str | None = None
    probability: str | None = None
    labels: str | None = None
    predicted_dice_low: float | None = None
    predicted_dice_high: float | None = None
    needs_review: bool | None = None
    margin_outer_px: float | None = None
    margin_inner_px: float | None = None
    margin_outer_mm: float | None = None
    margin_inner_mm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values in the order of the columns."""
        return {name: getattr(self, name) for name in COLUMNS}  # asdict copies every value: ten times slower


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Row))


def failed_row(name: str, message: str, *, seconds: float | None = None) -> Row:
    """The row of an image that could not be done; line breaks in the reason become spaces."""
    return Row(file=name, status="failed", message=" ".join(message.split()), seconds=seconds)


def result_row(
    name: str,
    result: Result,
    *,
    files: dict[str, str],
    notes: Sequence[str] = (),
    seconds: float,
    margins: Margins | None = None,
) -> Row:
    """The row of a segmented image.

    Values are rounded to what they mean (areas exact, confidence to four digits, centroid to a
    hundredth of a pixel), so that the table, the journal and the report cannot disagree.
    """
    x, y, width, height = result.bbox or (None,) * 4
    centroid_x, centroid_y = result.centroid or (None, None)
    judged = result.judgement
    return Row(
        file=name,
        status=result.status,
        message="; ".join([*(result.verdict.reasons if result.verdict else ()), *notes]),
        width=result.width,
        height=result.height,
        area_fraction=round(result.area_fraction, 6),
        area_px=result.area_px,
        bbox_x=x,
        bbox_y=y,
        bbox_width=width,
        bbox_height=height,
        centroid_x=_rounded(centroid_x, 2),
        centroid_y=_rounded(centroid_y, 2),
        touches_border=result.touches_border,
        components_removed=result.components_removed,
        confidence=round(result.confidence, 4),
        predicted_dice=_rounded(judged.predicted_dice if judged else None, 4),
        verdict=result.verdict.level if result.verdict else None,
        seconds=round(seconds, 4),
        lesions=int(result.labels.max()) if result.labels is not None else int(result.status == "ok"),
        mask=files.get("mask"),
        overlay=files.get("overlay"),
        probability=files.get("probability"),
        labels=files.get("labels"),
        predicted_dice_low=_rounded(judged.low if judged else None, 4),
        predicted_dice_high=_rounded(judged.high if judged else None, 4),
        needs_review=judged.needs_review if judged else None,
        margin_outer_px=_rounded(margins.outer_px if margins else None, 2),
        margin_inner_px=_rounded(margins.inner_px if margins else None, 2),
        margin_outer_mm=_rounded(margins.outer_mm if margins else None, 3),
        margin_inner_mm=_rounded(margins.inner_mm if margins else None, 3),
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)


def parse_save(text: str) -> tuple[str, ...]:
    """``"mask,overlay"`` -> ("mask", "overlay"), in the order of `SAVE_KINDS`.

    A DICOM report refers to the DICOM segmentation, so it brings that along.

    Raises
    ------
    UsageError
        An unknown kind, with the list of the known ones.
    """
    asked = {part.strip().lower() for part in text.split(",") if part.strip()}
    unknown = sorted(asked - set(SAVE_KINDS))
    if unknown or not asked:
        what = f"unknown value {', '.join(unknown)}" if unknown else "no value"
        raise UsageError(f"--save: {what}", hint=f"choose from {', '.join(SAVE_KINDS)}, separated by commas")
    asked |= {"dicom-seg"} if "dicom-sr" in asked else set()
    return tuple(kind for kind in SAVE_KINDS if kind in asked)


def plan_stems(names: Sequence[str]) -> dict[str, str]:
    """Input name -> output path without suffix, unique also where upper and lower case are one.

    Inputs of one folder that share a stem keep their extension: ``a.jpg`` and ``a.png`` give
    ``a.jpg_segmentation.png`` and ``a.png_segmentation.png``. What still collides is numbered. Names that
    would be too long for the disk with what follows the stem are cut.
    """
    plain = {name: _short(_without_extension(name)) for name in names}
    shared = Counter(map(_fold, plain.values()))
    stems: dict[str, str] = {}
    unique = UniqueNames()
    # Unshared stems first, so that "a.jpg.tif" beside "a.jpg" and "a.png" changes as little as possible.
    for name in sorted(names, key=lambda name: shared[_fold(plain[name])] > 1):
        stems[name] = unique.take(plain[name] if shared[_fold(plain[name])] == 1 else _short(name))
    return stems


def _without_extension(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)  # ``with_suffix`` refuses "..jpg" in Python 3.13


def _short(path: str) -> str:
    folder, slash, last = path.rpartition("/")
    return f"{folder}{slash}{shorten(last)}"


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def output_files(
    stem: str, save: Iterable[str], *, labels: bool = False, uncertainty: bool = False, margins: bool = True
) -> dict[str, str]:
    """Kind -> path relative to OUT, for the kinds in `save`, the label map and the maps of uncertainty.

    ``margins`` come with the maps of uncertainty where the model has some.
    """
    kinds = [*save, *(["labels"] if labels else [])]
    if uncertainty:
        kinds += [*MAPS, *(MARGINS if margins else ())]
    return {kind: f"{LAYOUT[kind][0]}/{stem}{LAYOUT[kind][1]}" for kind in kinds}


def result_folders(out: Path, kinds: Iterable[str] = tuple(LAYOUT)) -> list[Path]:
    """The folders that images of these kinds are written into."""
    return [out / folder for folder in sorted({LAYOUT[kind][0] for kind in kinds})]


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write ``results.csv`` (UTF-8, RFC 4180, empty where unknown) in one move."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(value) for value in (row.as_dict() | {"file": cell_name(row.file)}).values()])
    atomic_write(path, text.getvalue().encode())


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") or "0"
    return value
