"""``dermseg data``: import, split, stats, check, download, synth and export."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import JsonOption, comma_list, new_app, print_json, refuse_unused, say
from dermseg.apps.cli.data_common import (
    OverwriteOption,
    SplitColumnOption,
    WorkersOption,
    count_splits,
    leaks_json,
    may_write,
    progress,
    say_absent,
    say_leaks,
)
from dermseg.apps.cli.data_import import download_, import_
from dermseg.apps.cli.data_stats import stats_
from dermseg.errors import DataError, UsageError
from dermseg.files import check_writable
from dermseg.words import counted

app = new_app()


@app.callback()
def data() -> None:
    """Import, split, check, download and generate data."""


app.command("import")(import_)
app.command("download")(download_)


@app.command("split")
def split_(
    *,
    indexes: Annotated[list[Path], typer.Argument(metavar="INDEX", help="Indexes; several become one.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The index to write.")],
    ratios: Annotated[
        str | None, typer.Option("--ratios", help="Of train, val, test (0.70,0.15,0.15), or name=share,...")
    ] = None,
    k_folds: Annotated[
        int | None, typer.Option("--k-folds", help="Write K indexes, <output>-fold0.csv and so on.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Another seed, another split (0).")
    ] = None,
    splits: Annotated[Path | None, typer.Option("--splits", help="Use the splits of this CSV.")] = None,
    split_column: SplitColumnOption = None,
    exclude_leaks: Annotated[
        bool, typer.Option("--exclude-leaks", help="With --splits: take leaking images out of training.")
    ] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates/--no-duplicates", help="Look for near-duplicates.")
    ] = True,
    overwrite: OverwriteOption = False,
    workers: WorkersOption = 2,
    json_: JsonOption = False,
) -> None:
    """Split by patient, else lesion, else near-duplicate.

    What belongs together never parts, and the result is checked for leaks.
    """
    from dermseg.data.duplicates import find_duplicates, fingerprint_rows
    from dermseg.data.index import EXCLUDED, merge, read_index, write_index
    from dermseg.data.sources.tables import read_splits
    from dermseg.data.splits import (
        apply_splits,
        assign_groups,
        find_leaks,
        fold_groups,
        split_groups,
    )
    from dermseg.data.splits import exclude_leaks as mark_leaks

    if k_folds is not None and splits is not None:
        raise UsageError("--k-folds and --splits were given", hint="use one of them")
    if splits is None:
        refuse_unused(
            {"--exclude-leaks": exclude_leaks, "--split-column": split_column},
            "can have no effect without --splits",
        )
    else:
        refuse_unused({"--ratios": ratios, "--seed": seed is not None}, "can have no effect with --splits")
    if k_folds is not None:
        refuse_unused({"--ratios": ratios}, "can have no effect with --k-folds")
    folds = [output.with_name(f"{output.stem}-fold{i}{output.suffix}") for i in range(k_folds or 0)]
    for target in folds or [output]:
        may_write(target, overwrite, "--overwrite")
    read = [read_index(path) for path in indexes]
    rows = merge(*read)
    if not rows:
        raise DataError("the index is empty", file=indexes[0])
    if splits is None and (before := [row for row in rows if row.split not in ("", EXCLUDED)]):
        parts = ", ".join(f"{number} {name}" for name, number in count_splits(before).items())
        say(f"the splits that the index had are not kept: {parts}")
    if splits is None and (out := sum(row.split == EXCLUDED for row in rows)):
        what = counted(out, "image was excluded; it is", "images were excluded; they are")
        say(f"{what} split as all others (take the rows out if not wanted)")
    if splits is None and (alone := sum(not (row.subject or row.lesion) for row in rows)):
        say(
            f"of {alone} images no patient and no lesion is known: those of one person may come into several "
            "splits, unless they are near-duplicates ('dermseg data import --metadata' takes a table)"
        )
    if twice := sum(map(len, read)) - len(rows):
        what = counted(twice, "image is", "images are")
        say(f"{what} in several of the indexes; the last one's rows are taken")
    if splits is not None:
        given = read_splits(splits, split_column or "split")
        rows = apply_splits(rows, given)
        if not any(row.split for row in rows):
            raise DataError(
                f"names none of the {len(rows)} images, such as '{rows[0].image_id}' of '{rows[0].dataset}'",
                file=splits,
                hint="images are found by their ids, and by the column dataset where there is one",
            )
        say_absent(given.absent([row.image_id for row in rows], {row.dataset for row in rows}))
    pairs = []
    if duplicates:
        with progress("fingerprints") as step:
            prints = fingerprint_rows(rows, workers=workers, progress=step)
        with progress("near-duplicates") as step:
            pairs = find_duplicates(prints, progress=step)
    rows = assign_groups(rows, pairs)
    expected: Collection[str] = ()
    if k_folds is not None:
        tables = fold_groups(rows, k_folds, seed=seed or 0)
        expected = ("train", "val", "test")
    elif splits is None:
        expected = shares = _parse_ratios(ratios or "0.70,0.15,0.15")
        tables = [split_groups(rows, shares, seed=seed or 0)]
    else:
        tables = [mark_leaks(rows)[0] if exclude_leaks else rows]
    leaks = [leak for table in tables for leak in find_leaks(table)]
    result = []
    for target, table in zip(folds or [output], tables, strict=True):
        write_index(table, target)
        counts = count_splits(table)
        result.append({"index": str(target), "splits": counts})
        say(f"{target}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
        if empty := [name for name in expected if name not in counts]:
            few = counted(len({row.group for row in rows}), "group is", "groups are")
            say(f"{target}: no image for {' and '.join(empty)}: {few} few for such shares")
    say_leaks(leaks, "--exclude-leaks takes them out of training")
    if json_:
        print_json(
            {
                "images": len(rows),
                "groups": len({row.group for row in rows}),
                "near_duplicate_pairs": len(pairs) if duplicates else None,
                "indexes": result,
                "leaks": leaks_json(leaks),
            }
        )
    if leaks:
        raise typer.Exit(1)


app.command("stats")(stats_)


@app.command("check")
def check_(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="The index.")],
    workers: WorkersOption = 2,
    json_: JsonOption = False,
) -> None:
    """Check that files, masks and splits are as the index says.

    Exit code 1 when they are not.
    """
    from dermseg.data.check import check_rows
    from dermseg.data.index import read_index

    with progress("checking") as step:
        report = check_rows(read_index(index), workers=workers, progress=step)
    for trouble in report.troubles[:20]:
        say(f"{trouble.dataset}/{trouble.image_id}: {trouble.file}: {trouble.reason}")
    if len(report.troubles) > 20:
        say(f"... and {len(report.troubles) - 20} more (--json lists all)")
    if undrawn := report.without_mask:
        some = ", ".join(undrawn[:20]) + (", ... (--json lists all)" if len(undrawn) > 20 else "")
        what = counted(len(undrawn), "image has", "images have")
        say(f"{what} no mask, and training takes none such: {some}")
    say_leaks(report.leaks, "'dermseg data split' makes splits that do not leak")
    verdict = "as the index says" if report.ok else "NOT as the index says"
    leak = counted(len(report.leaks), "group leaks", "groups leak")
    say(f"{counted(report.images, 'image')} and {counted(report.masks, 'mask')}: {verdict}; {leak}")
    if json_:
        print_json(
            {
                "ok": report.ok,
                "images": report.images,
                "masks": report.masks,
                "without_mask": report.without_mask,
                "troubles": [vars(trouble) for trouble in report.troubles],
                "leaks": leaks_json(report.leaks),
            }
        )
    if not report.ok:
        raise typer.Exit(1)


def _parse_ratios(text: str) -> dict[str, float]:
    """``0.7,0.15,0.15`` or ``train=0.8,test=0.2``."""
    parts = [part.strip() for part in text.split(",")]
    names = ["train", "val", "test"] if len(parts) == 3 else ["train", "val"]
    try:
        if all("=" in part for part in parts):
            shares = [part.split("=", 1) for part in parts]
            ratios = {key.strip(): float(value) for key, value in shares}
            if len(ratios) < len(shares) or "" in ratios:
                raise ValueError("a split without a name, or twice")
            return ratios
        return {key: float(value) for key, value in zip(names, parts, strict=True)}
    except ValueError:
        raise UsageError(
            f"--ratios '{text}' is not understood",
            hint="0.70,0.15,0.15, or name=share,... with every name once",
        ) from None


@app.command("export")
def export_(
    *,
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="The index.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write; it must be new.")],
    format_: Annotated[str, typer.Option("--format", help="coco, webdataset or tfrecord.")],
    split: Annotated[str, typer.Option("--split", help="Only this split.")] = "",
    labels: Annotated[
        str | None, typer.Option("--labels", help="coco: the category of each mask (lesion).")
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option("--shard-size", min=1, help="webdataset, tfrecord: images in a shard (1000)."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write images and masks as COCO, WebDataset or TFRecord.

    One part for each split.
    """
    from dermseg.data.export import export_rows
    from dermseg.data.index import read_index

    unused = {"--shard-size": shard_size} if format_ == "coco" else {"--labels": labels}
    refuse_unused(unused, f"has no effect on {format_}")
    check_writable(output)
    if output.exists() and any(output.iterdir()):
        raise UsageError("the folder is not empty", file=output, hint="another -o")
    every = read_index(index)
    rows = [row for row in every if not split or row.split == split]
    if not every:
        raise DataError("the index is empty", file=index)
    if not rows:
        there = ", ".join(sorted({row.split or "(none)" for row in every}))
        raise DataError(f"no image has split '{split}'", file=index, hint=f"there are: {there}")
    names = comma_list(labels or "lesion")
    with progress("writing") as step:
        files = export_rows(rows, format_, output, labels=names, shard_size=shard_size or 1000, progress=step)
    say(f"{output}: {counted(len(rows), 'image')} in {counted(len(files), 'file')}")
    if json_:
        print_json({"images": len(rows), "files": [str(file) for file in files]})


@app.command("synth")
def synth_(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many images.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first image.")] = 0,
    size: Annotated[str, typer.Option("--size", help="WIDTHxHEIGHT in pixels.")] = "768x576",
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Draw synthetic images with exact masks, and their index."""
    from dermseg.data.sources.synthetic import write_synthetic
    from dermseg.data.synthetic import SMALLEST_SIDE

    may_write(output / "index.csv", overwrite, "--overwrite")
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= SMALLEST_SIDE):
        raise UsageError(
            f"--size '{size}' is not understood",
            hint=f"--size 768x576, at least {SMALLEST_SIDE}x{SMALLEST_SIDE}",
        )
    with progress("drawing") as step:
        rows = write_synthetic(output, number, seed=seed, size=(int(height), int(width)), progress=step)
    say(f"{output}: {counted(len(rows), 'image')} with masks, and index.csv")
    if json_:
        print_json({"images": len(rows), "index": str(output / "index.csv"), "seed": seed})
