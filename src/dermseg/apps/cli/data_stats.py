"""``dermseg data stats``: what is in an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dermseg.apps.cli.common import JsonOption, print_json, say
from dermseg.apps.cli.data_common import WorkersOption, progress
from dermseg.words import counted

_COUNTED = {
    "images": "image",
    "masks": "mask",
    "groups": "group",
    "subjects": "known patient",
    "lesions": "known lesion",
}


def stats_(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="The index.")],
    areas: Annotated[
        bool, typer.Option("--areas/--no-areas", help="Read the masks, for the areas of lesions.")
    ] = True,
    workers: WorkersOption = 2,
    json_: JsonOption = False,
) -> None:
    """Show what is in an index: counts, sizes, lesion areas, licences."""
    from dermseg.data.index import read_index
    from dermseg.data.stats import describe

    with progress("reading masks") as step:
        figures = describe(read_index(index), areas=areas, workers=workers, progress=step)
    if json_:
        print_json(figures)
    else:
        _show_stats(figures)


def _show_stats(figures: dict[str, Any]) -> None:
    lines = _align(
        [
            ("data set", "split", "images", "groups"),
            *(
                (dataset or "-", split, str(counts["images"]), str(counts["groups"]))
                for dataset, splits in figures["datasets"].items()
                for split, counts in splits.items()
            ),
        ]
    )
    measured = {"width (px)": figures["width"], "height (px)": figures["height"]}
    measured |= {f"lesion share, {name}": value for name, value in (figures["area_fraction"] or {}).items()}
    spread: list[tuple[str, ...]] = [("", "mean", "min", "5 %", "25 %", "median", "75 %", "95 %", "max")]
    spread += [
        (title, *(f"{value:.4g}" for value in values.values()))
        for title, values in measured.items()
        if values
    ]
    lines += [
        "",
        ", ".join(counted(figures[name], one) for name, one in _COUNTED.items()),
        "",
        *_align(spread),
        "",
        *(f"{counted(number, 'image')}: {licence}" for licence, number in figures["licences"].items()),
    ]
    typer.echo("\n".join(lines))
    if figures["unreadable"]:
        say(f"{counted(figures['unreadable'], 'mask')} could not be read; 'dermseg data check' says why")


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of equal width; words to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if rows[-1][i][:1].isdigit() else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
