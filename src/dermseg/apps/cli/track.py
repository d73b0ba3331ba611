"""``dermseg track``: what has become of a lesion from one photograph to the next."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import InputsArgument, JsonOption, ModelOption, new_app, print_json, say
from dermseg.apps.cli.measure import COLUMNS as MEASURED
from dermseg.apps.cli.measure import colour_columns, parse_spacing, reading_columns, to_csv
from dermseg.errors import UsageError
from dermseg.words import counted

if TYPE_CHECKING:
    from dermseg.inference.following import Comparison, Followed, Photograph, Visit
    from dermseg.report.following import FollowingPage

app = new_app()

READINGS, CHANGES, PAGE = "readings.csv", "changes.csv", "report.html"
READING_COLUMNS = ("lesion", "taken", "file", "status", "verdict", "message", *MEASURED[4:])
CHANGE_COLUMNS = (
    "lesion",
    "first_file",
    "file",
    "first_taken",
    "taken",
    "days",
    "area_change",
    "area_change_low",
    "area_change_high",
    "exceeds",
    "diameter_change",
    "diameter_change_low",
    "diameter_change_high",
    "contrast_change",
    "contrast_change_low",
    "contrast_change_high",
    "contrast_exceeds",
    "scale_from",
    "scale",
    "scale_error",
    "landmarks",
    "skin_landmarks",
    "turn_degrees",
    "overlap",
    "message",
)


@app.command()
def track(
    inputs: InputsArgument,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=f"Folder for {CHANGES}, {READINGS} and {PAGE}.")
    ] = None,
    model: ModelOption = "default",
    spacing_mm: Annotated[
        str | None,
        typer.Option(
            metavar="ROW[,COLUMN]", help="Millimetres between pixel centres, of all photographs alike."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results in the folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow lesions over time: each photograph is measured and compared with the first of its lesion.

    INPUT is the photographs of one lesion in order of time (those of a folder by name), or one CSV table of
    many lesions with the columns image, lesion, date, spacing_mm and mask (only image has to be there; an
    index is such a table). Photographs are brought to one scale by millimetres, or by the skin around the
    lesion. Without --output and --json the changes go to stdout as CSV.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.evaluation.output import prepare_folder
    from dermseg.inference.following import follow
    from dermseg.inference.predictor import load_model
    from dermseg.report.following import FollowingPage

    lesions = list(_lesions(inputs))
    spacing = None if spacing_mm is None else parse_spacing(spacing_mm)
    if spacing is not None:
        lesions = [[replace(one, spacing_mm=one.spacing_mm or spacing) for one in group] for group in lesions]
    if output is not None:
        prepare_folder(output, overwrite=overwrite, holds=(CHANGES, READINGS, PAGE))
    loaded = load_model(model)
    page, readings, changes = FollowingPage(), list[dict[str, Any]](), list[dict[str, Any]]()
    sizes_in_pixels: set[tuple[int, int]] = set()  # of what --spacing-mm was taken for
    interrupted = False
    with ImageCounter("following", sum(map(len, lesions))) as progress:
        try:
            for group in lesions:
                found = follow(loaded, group, progress=progress.advance)
                readings += [_reading_row(visit) for visit in found.visits]
                sizes_in_pixels |= {
                    (visit.reading.width, visit.reading.height)
                    for visit in found.visits
                    if visit.reading is not None and spacing and visit.photograph.spacing_mm == spacing
                }
                changes += [_change_row(found, one) for one in found.comparisons]
                page.add(found)
        except KeyboardInterrupt:  # what is done is written all the same
            interrupted = True
    failed = sum(row["status"] == "failed" for row in readings)
    sizes, contrasts = (sum(row[name] is True for row in changes) for name in ("exceeds", "contrast_exceeds"))
    # Before any word of it: nobody may be listening on stderr.
    if output is not None and not (interrupted and not readings):
        _write(output, page, readings, changes)
    if as_json:
        print_json(
            {
                "lesions": len(lesions),
                "photographs": len(readings),
                "failed": failed,
                "readings": readings,
                "changes": changes,
            }
        )
    elif output is None:
        sys.stdout.write(to_csv(CHANGE_COLUMNS, changes))
    for row in readings:
        if row["status"] == "failed":
            say(f"failed: {row['file']}: {row['message']}")
        elif row["status"] == "no_lesion":
            say(f"not compared: {row['file']}: no lesion was found")
        elif row["verdict"] == "reject":
            say(f"not compared: {row['file']}: {row['message']}")
    if len(sizes_in_pixels) > 1:
        say(
            f"note: one spacing for photographs of {len(sizes_in_pixels)} sizes in pixels: "
            "it is right only if they have one scale"
        )
    if interrupted:
        held = (
            "What is written holds the lesions that were finished." if readings else "No lesion was finished."
        )
        say(f"Stopped. {held}")
        raise KeyboardInterrupt
    if output is not None or not changes:
        say(
            f"{len(readings) - failed} of {counted(len(readings), 'photograph')} measured, "
            f"{counted(len(changes), 'comparison')}; "
            f"more than an unchanged lesion differs: {sizes} in size, {contrasts} in contrast"
            + (f": {output}" if output else "")
        )
    raise typer.Exit(1 if failed else 0)


def _lesions(inputs: Sequence[str]) -> Iterator[list[Photograph]]:
    """The photographs of each lesion, in order of time.

    Raises
    ------
    UsageError
        A table beside other inputs, or a single photograph.
    """
    from dermseg.data.visits import read_visits

    tables = [Path(given) for given in inputs if Path(given).suffix.lower() == ".csv"]
    if tables and len(inputs) > 1:
        raise UsageError("a table names all the photographs; give nothing beside it", file=tables[0])
    if tables:
        lesions, nameless = read_visits(tables[0])
        if nameless:
            say(f"note: left out are rows that name no lesion: {nameless}")
        single = [group for group in lesions if len(group) == 1]
        if len(single) == len(lesions):
            raise UsageError(
                "no lesion has two photographs",
                file=tables[0],
                hint="the column lesion has to say which photographs show the same one",
            )
        if single:
            say(f"note: left out are lesions with a single photograph: {len(single)}")
        yield from (group for group in lesions if len(group) > 1)
        return
    photographs = list(_in_order(inputs))
    if len(photographs) < 2:
        raise UsageError(
            "following a lesion takes two photographs or more", hint="dermseg track FIRST LATER -o OUT"
        )
    yield photographs


def _in_order(inputs: Sequence[str]) -> Iterator[Photograph]:
    """Photographs as they were named, without masks that lie among them; those of a folder by name."""
    from dermseg.images.find import find_images
    from dermseg.images.names import printable_name
    from dermseg.images.roles import tell_apart
    from dermseg.inference.following import Photograph

    roles = tell_apart([source for given in inputs for source in find_images([given])])
    for remark in roles.remarks():
        say(remark)
    for source in roles.photographs:
        name = printable_name(source.label if len(inputs) > 1 else source.name)
        yield Photograph(replace(source, name=name))


def _reading_row(visit: Visit) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(READING_COLUMNS)
    if visit.reading is not None:
        row |= reading_columns(visit.reading) | colour_columns(visit.colour)
    shot = visit.photograph
    return row | {
        "lesion": shot.lesion or None,
        "taken": shot.taken and shot.taken.isoformat(),
        "file": shot.image.name,
        "status": visit.status,
        "verdict": visit.verdict,
        "message": visit.message or None,
    }


def _change_row(followed: Followed, found: Comparison) -> dict[str, Any]:
    first, second = (followed.visits[n].photograph for n in (found.first, found.second))
    change, alignment = found.change, found.alignment
    row: dict[str, Any] = {
        "lesion": followed.lesion or None,
        "first_file": first.image.name,
        "file": second.image.name,
        "first_taken": first.taken and first.taken.isoformat(),
        "taken": second.taken and second.taken.isoformat(),
        "days": (second.taken - first.taken).days if first.taken and second.taken else None,
        "area_change": change.area,
        "exceeds": change.exceeds,
        "diameter_change": change.diameter,
        "scale_from": change.scale_from,
        "scale": change.scale,
        "overlap": found.overlap,
        "message": "; ".join(change.notes) or None,
    }
    if found.contrast is not None:
        row |= {"contrast_change": found.contrast.change, "contrast_exceeds": found.contrast.exceeds}
        row["contrast_change_low"], row["contrast_change_high"] = found.contrast.range or (None, None)
    row["area_change_low"], row["area_change_high"] = change.area_range or (None, None)
    row["diameter_change_low"], row["diameter_change_high"] = change.diameter_range or (None, None)
    if alignment is not None:
        row |= {
            "scale_error": alignment.scale_error,
            "landmarks": alignment.matches,
            "skin_landmarks": alignment.skin_matches,
            "turn_degrees": alignment.turn,
        }
    return {name: _rounded(row.get(name)) for name in CHANGE_COLUMNS}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _write(
    folder: Path,
    page: FollowingPage,
    readings: Sequence[Mapping[str, Any]],
    changes: Sequence[Mapping[str, Any]],
) -> None:
    """The tables first: a disk that has no room for the pictures is no reason to lose the figures."""
    from dermseg.files import atomic_write

    for name in (PAGE, CHANGES, READINGS):  # nothing of an earlier run beside it
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    atomic_write(folder / CHANGES, to_csv(CHANGE_COLUMNS, changes).encode())
    atomic_write(folder / READINGS, to_csv(READING_COLUMNS, readings).encode())
    atomic_write(folder / PAGE, page.render().encode())
