"""``dermseg measure``: size and shape of the lesions in masks, and with photographs their colours."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import JsonOption, new_app, print_json, say
from dermseg.errors import DermsegError, UsageError
from dermseg.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dermseg.apps.cli.photographs import Photographs
    from dermseg.images.sources import ImageSource
    from dermseg.measure.colour import Colour
    from dermseg.measure.geometry import Reading

    Mask = NDArray[np.bool_]

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
    "solidity",
    "asymmetry",
    "asymmetry_across",
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
    "lesion_l",
    "lesion_a",
    "lesion_b",
    "skin_l",
    "skin_a",
    "skin_b",
    "contrast",
    "colour_spread",
    "colour_asymmetry",
    "border_contrast",
    "border_contrast_least",
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
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="PHOTOS",
            help="The photographs of the masks (a.jpg of a.png or a_mask.png), for colours: a file, folder, "
            "glob or zip; may be given again.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the table to this CSV file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the lesion in each mask, or each lesion of label maps (named *_labels).

    'dermseg measure out -o readings.csv' measures what 'dermseg segment photos/ -o out' has found; after
    'segment --lesions all' there is a row for each lesion ('out/masks': all of an image in one row).
    Millimetres appear only where the spacing is given, or known from DICOM, colours only with --images.
    Without --output and --json the table goes to stdout as CSV.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.files import atomic_write, check_table
    from dermseg.images.find import find_images
    from dermseg.images.roles import label_root, mask_root

    spacing = None if spacing_mm is None else parse_spacing(spacing_mm)
    if output is not None:
        check_table(output)
    sources = find_images([label_root(given) or mask_root(given) for given in masks])
    photographs = None
    if images:
        from dermseg.apps.cli.photographs import Photographs

        photographs = Photographs(images, sources)
    rows: list[dict[str, Any]] = []
    colourless, interrupted = 0, False
    with ImageCounter("measuring", len(sources)) as progress:
        try:
            for source in progress.count(sources):
                found, without_colours = _measure(source, spacing, photographs)
                rows += found
                colourless += without_colours
        except KeyboardInterrupt:  # what is done is written all the same
            interrupted = True
    failed = sum(row["status"] == "failed" for row in rows)
    sizes = {f"{row['width']} x {row['height']}" for row in rows if row["width"]}
    if spacing and len(sizes) > 1:
        say(f"note: one spacing for images of {len(sizes)} sizes: it is right only if they have one scale")
    table = to_csv(COLUMNS, rows)
    if output is not None and not (interrupted and not rows):
        atomic_write(output, table.encode())
    if as_json:
        print_json({"masks": len(sources), "failed": failed, "readings": rows})
    elif output is None:
        sys.stdout.write(table)
    if interrupted:
        say(f"Stopped. What is written holds the first {progress.done} of {counted(len(sources), 'mask')}.")
        raise KeyboardInterrupt
    if output is not None and not as_json:
        without = f", {colourless} of them without colours" if colourless else ""
        say(f"{len(sources) - failed} of {counted(len(sources), 'mask')} measured{without}: {output}")
    raise typer.Exit(1 if failed or colourless else 0)


def _measure(
    source: ImageSource, spacing: tuple[float, float] | None, photographs: Photographs | None
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a mask, remarks said; whether colours were asked for and could not be had."""
    blank: dict[str, Any] = dict.fromkeys(COLUMNS) | {"file": source.name}
    try:
        lesion, labels, own_spacing, notes = _read(source)
    except DermsegError as error:
        say(f"{source.name}: {error.reason}")
        return [blank | {"status": "failed", "message": error.reason}], False
    if spacing and own_spacing and not all(map(_same, spacing, own_spacing)):
        own = " and ".join(f"{value:g}" for value in own_spacing)
        notes = (*notes, f"--spacing-mm was taken, the file says {own} mm (row and column)")
        say(f"{source.name}: {notes[-1]}")
    pixels, colourless = None, False
    if photographs is not None and lesion.any():
        try:
            pixels = photographs.pixels(source, lesion.shape)
        except DermsegError as error:
            colourless = True
            notes = (*notes, f"no colours: {error.reason}")
            say(f"{source.name}: {notes[-1]}")
    blank["message"] = "; ".join(notes) or None
    rows = _lesion_rows(lesion, labels, spacing or own_spacing, pixels)
    return [blank | row for row in rows], colourless


def _same(spacing: float, other: float) -> bool:
    """Whether two spacings are one, in the digits that people type."""
    return abs(spacing / other - 1) < 0.001


def _read(
    source: ImageSource,
) -> tuple[Mask, NDArray[np.uint8] | None, tuple[float, float] | None, tuple[str, ...]]:
    """What is lesion; the label map, where it is one with lesions; the file's own spacing, and remarks."""
    from dermseg.images.labels import is_label_map, load_labels
    from dermseg.images.masks import read_mask

    if not is_label_map(source):
        loaded = read_mask(source)
        return loaded.mask, None, loaded.spacing_mm, loaded.notes
    labels = load_labels(source)
    lesion = labels > 0
    return lesion, labels if lesion.any() else None, None, ()


def _lesion_rows(
    lesion: Mask,
    labels: NDArray[np.uint8] | None,
    spacing: tuple[float, float] | None,
    pixels: NDArray[np.uint8] | None,
) -> Iterator[dict[str, Any]]:
    """Columns of each lesion of a label map; of a mask as one, without a number."""
    from dermseg.measure.colour import describe_colour
    from dermseg.measure.geometry import lesion_masks, measure_mask

    parts = [(None, lesion)] if labels is None else lesion_masks(labels)
    for number, mask in parts:
        row = {"lesion": number, **reading_columns(measure_mask(mask, spacing))}
        if pixels is not None:
            others = None if labels is None else lesion & ~mask
            row |= colour_columns(describe_colour(pixels, mask, others))
        yield row


def parse_spacing(text: str) -> tuple[float, float]:
    """``"0.02"`` or ``"0.02,0.03"`` as (row, column) millimetres.

    Raises
    ------
    UsageError
        Not one or two numbers that a spacing can be.
    """
    from dermseg.measure.geometry import is_spacing, spacing_words

    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) not in (1, 2) or not all(map(is_spacing, numbers)):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--spacing-mm {text} is not one or two numbers {spacing_words()}",
            hint="such as --spacing-mm 0.025",
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


def colour_columns(colour: Colour | None) -> dict[str, float | None]:
    """Colours as values of the table's columns; none where they are not known."""
    return {} if colour is None else colour.as_dict()


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV text; unknown is an empty cell, truth is ``true`` or ``false``."""
    from dermseg.images.names import cell_name

    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        cells = {k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()}
        cells |= {k: cell_name(cells[k]) for k in ("first_file", "file") if cells.get(k)}
        writer.writerow(cells)
    return buffer.getvalue()
