"""``dermseg measure``: area, perimeter, diameters and circularity of the lesions in masks."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import new_app, print_json, say
from dermseg.errors import DermsegError, UsageError

if TYPE_CHECKING:
    from dermseg.images.sources import ImageSource
    from dermseg.measure.geometry import Reading

app = new_app()

# Columns of the table; bbox and centroid become one column per number.
COLUMNS = (
    "file",
    "lesion",
    "status",
    "message",
    "width",
    "height",
    "area_px",
    "area_fraction",
    "perimeter_px",
    "feret_max_px",
    "feret_min_px",
    "equivalent_diameter_px",
    "circularity",
    "bbox_x",
    "bbox_y",
    "bbox_width",
    "bbox_height",
    "centroid_x",
    "centroid_y",
    "touches_border",
    "components",
    "spacing_row_mm",
    "spacing_column_mm",
    "area_mm2",
    "perimeter_mm",
    "feret_max_mm",
    "feret_min_mm",
    "equivalent_diameter_mm",
)


@app.command()
def measure(
    masks: Annotated[
        list[str],
        typer.Argument(
            metavar="MASKS",
            help="Masks or label maps: files, folders (or OUT of dermseg segment), globs, zips.",
        ),
    ],
    spacing_mm: Annotated[
        str | None,
        typer.Option(
            metavar="ROW[,COLUMN]",
            help="Millimetres between pixel centres, of all masks: one number, or row and column spacing as "
            "in DICOM.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the table to this CSV file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Measure the lesion in each mask, or each lesion of label maps (named *_labels).

    Of OUT of 'dermseg segment --lesions all' each lesion is measured, a row for each; of OUT/masks all that
    is in one image together. Millimetres appear only where the spacing is given, or known from DICOM.
    Without --output and --json the table goes to stdout as CSV.
    """
    from dermseg.files import atomic_write, check_writable
    from dermseg.images.find import find_images
    from dermseg.images.roles import label_root, mask_root

    spacing = None if spacing_mm is None else parse_spacing(spacing_mm)
    if output is not None:
        check_writable(output.parent)
    rows: list[dict[str, Any]] = []
    sources = find_images([label_root(given) or mask_root(given) for given in masks])
    for source in sources:
        blank: dict[str, Any] = dict.fromkeys(COLUMNS) | {"file": source.name}
        try:
            found, notes = _readings(source, spacing)
        except DermsegError as error:
            rows.append(blank | {"status": "failed", "message": error.reason})
            say(f"{source.name}: {error.reason}")
        else:
            blank["message"] = "; ".join(notes) or None
            rows += [blank | {"lesion": number} | reading_columns(one) for number, one in found.items()]
    failed = sum(row["status"] == "failed" for row in rows)
    sizes = {f"{row['width']} x {row['height']}" for row in rows if row["width"]}
    if spacing and len(sizes) > 1:
        say(f"note: one spacing for images of {len(sizes)} sizes: it is right only if they have one scale")
    table = to_csv(COLUMNS, rows)
    if output is not None:
        atomic_write(output, table.encode())
    if as_json:
        print_json({"masks": len(sources), "failed": failed, "readings": rows})
    elif output is None:
        sys.stdout.write(table)
    else:
        say(f"{len(sources) - failed} of {len(sources)} masks measured: {output}")
    raise typer.Exit(1 if failed else 0)


def _readings(
    source: ImageSource, spacing: tuple[float, float] | None
) -> tuple[dict[int | None, Reading], tuple[str, ...]]:
    """Readings of a file by their lesions' numbers (None: all that is in a mask), and remarks."""
    from dermseg.images.labels import is_label_map, load_labels
    from dermseg.images.masks import read_mask
    from dermseg.measure.geometry import measure_lesions, measure_mask

    if not is_label_map(source):
        loaded = read_mask(source)
        return {None: measure_mask(loaded.mask, spacing or loaded.spacing_mm)}, loaded.notes
    labels = load_labels(source)
    if not labels.any():
        return {None: measure_mask(labels > 0, spacing)}, ()
    return dict(measure_lesions(labels, spacing).items()), ()


def parse_spacing(text: str) -> tuple[float, float]:
    """``"0.02"`` or ``"0.02,0.03"`` as (row, column) millimetres.

    Raises
    ------
    UsageError
        Not one or two positive numbers.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) not in (1, 2) or not all(0 < number < float("inf") for number in numbers):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--spacing-mm {text} is not one or two numbers above 0", hint="such as --spacing-mm 0.025"
        ) from None
    return numbers[0], numbers[-1]


def reading_columns(reading: Reading) -> dict[str, Any]:
    """A reading as values of the table's columns; unknown is None."""
    flat: dict[str, Any] = reading.as_dict()
    box = flat.pop("bbox") or (None,) * 4
    center = flat.pop("centroid") or (None, None)
    spacing = flat.pop("spacing_mm") or (None, None)
    flat |= dict(zip(("bbox_x", "bbox_y", "bbox_width", "bbox_height"), box, strict=True))
    flat |= {"centroid_x": center[0], "centroid_y": center[1]}
    flat |= {"spacing_row_mm": spacing[0], "spacing_column_mm": spacing[1]}
    flat["status"] = "ok" if reading.area_px else "no_lesion"
    return flat


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV text; unknown is an empty cell, truth is ``true`` or ``false``."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()})
    return buffer.getvalue()
