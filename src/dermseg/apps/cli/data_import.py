"""``dermseg data import`` and ``dermseg data download``: how data come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dermseg.apps.cli.common import JsonOption, comma_list, goes_on, print_json, refuse_unused, say
from dermseg.apps.cli.data_common import (
    OverwriteOption,
    SplitColumnOption,
    WorkersOption,
    bytes_progress,
    count_splits,
    leaks_json,
    may_write,
    progress,
    say_absent,
    say_leaks,
    say_rejected,
    say_replaced,
)
from dermseg.errors import DataError, UsageError
from dermseg.words import counted


def import_(
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND] INPUT",
            help="Folders and zips; a first word says what they hold: auto, isic2016, isic2017, isic2018, "
            "isic2018-task2, ham10000, ph2, labelme, coco, shards (WebDataset, TFRecord), dicom or folder.",
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", metavar="PATH", help="Folder or zip of images, repeatable."),
    ] = None,
    masks: Annotated[
        list[Path] | None, typer.Option("--masks", metavar="PATH", help="Folder or zip of masks, repeatable.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The index to write.")] = Path("index.csv"),
    name: Annotated[str | None, typer.Option("--name", help="Data set name in the index.")] = None,
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help="CSV with patient, lesion and licence per image.")
    ] = None,
    splits: Annotated[Path | None, typer.Option("--splits", help="CSV with the split per image.")] = None,
    split_column: SplitColumnOption = None,
    split: Annotated[str, typer.Option("--split", help="One split for all images, e.g. test.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Licence where the metadata name none.")] = "",
    append: Annotated[bool, typer.Option("--append", help="Add to the index that is there.")] = False,
    overwrite: OverwriteOption = False,
    exclude_leaks: Annotated[
        bool,
        typer.Option("--exclude-leaks", help="Mark as excluded what shares a group with test, val or calib."),
    ] = False,
    allow_unmasked: Annotated[
        bool, typer.Option("--allow-unmasked", help="Keep images that have no mask yet.")
    ] = False,
    labels: Annotated[
        str, typer.Option("--labels", help="labelme, coco: a,b are two classes; a+b is one of two labels.")
    ] = "",
    duplicates: Annotated[
        bool, typer.Option("--duplicates/--no-duplicates", help="Look for near-duplicates.")
    ] = True,
    workers: WorkersOption = 2,
    json_: JsonOption = False,
) -> None:
    """Make an index of the image-mask pairs of a data set.

    Images that are files stay where they are; outlines (LabelMe, COCO) and shards become files in the folder
    <index>-files. Every pair is opened and checked. What is left out is listed in <index>.rejected.csv.
    """
    from dermseg.data.duplicates import Pair, find_duplicates, fingerprint_rows
    from dermseg.data.index import files_of, merge, read_index, write_index
    from dermseg.data.sources import FOLDER, KINDS, LAYOUTS
    from dermseg.data.sources.converted import CONVERTERS, LABELME
    from dermseg.data.sources.importer import import_dataset, write_rejected
    from dermseg.data.sources.opened import NO_MASK
    from dermseg.data.sources.pairing import NO_IMAGE
    from dermseg.data.sources.tables import read_metadata, read_splits
    from dermseg.data.splits import assign_groups, find_leaks, keep_known
    from dermseg.data.splits import exclude_leaks as mark_leaks

    given = list(inputs or [])
    kind = given.pop(0) if given and given[0] in ("auto", *KINDS) else "auto"
    paths = [*map(Path, given), *(images or [])]
    if not paths:
        hint = "name folders or zips, or give --images and --masks"
        if inputs and Path(kind).exists():  # as 'data download' may have filled it
            hint = f"'{kind}' says what the data are; give ./{kind} for the folder of that name"
        raise UsageError("nothing to import", hint=hint)
    if given and images and masks:
        raise UsageError("inputs and --images with --masks were given", hint="use one way or the other")
    if splits is None:
        refuse_unused({"--split-column": split_column}, "can have no effect without --splits")
    may_write(output, overwrite or append, "--append or --overwrite")
    old = read_index(output) if append and output.exists() else []
    with progress("checking pairs") as step:
        imported = import_dataset(
            paths,
            kind=kind,
            masks=masks or (),
            name=name,
            metadata=read_metadata(metadata) if metadata else None,
            splits=read_splits(splits, split_column or "split") if splits else None,
            split=split,
            licence=licence,
            allow_unmasked=allow_unmasked,
            labels=comma_list(labels),
            folder=output.with_name(f"{output.stem}-files"),
            keep=files_of(old),
            workers=workers,
            progress=step,
        )
    rejected_path = output.with_suffix(".rejected.csv")
    write_rejected(imported.rejected, rejected_path)
    say_rejected(imported.rejected, rejected_path)
    if not imported.rows:
        hint = "the file lists the reasons"
        if imported.kind == FOLDER and any(r.reason in (NO_IMAGE, NO_MASK) for r in imported.rejected):
            hint += "; a mask is called like its image (a.jpg and a_mask.png, or masks/a.png)"
            hint += "" if masks else "; --images FOLDER --masks FOLDER say which are which"
        raise DataError("no usable image-mask pair", file=rejected_path, hint=hint)
    told = imported.kind in CONVERTERS and imported.kind != LABELME  # which images have no mask
    layout = None if metadata or licence else LAYOUTS.get(imported.kind)
    kept = keep_known(
        old,
        imported.rows,
        splits=bool(split or splits),
        masks=told,
        assumed=layout.licence if layout else "",
    )
    rows = merge(old, kept)
    replaced = len(old) + len(imported.rows) - len(rows)
    pairs: list[Pair] = []
    if duplicates:
        fresh = {row.key: item for row, item in zip(imported.rows, imported.fingerprints, strict=True)}
        missing = [row for row in rows if row.key not in fresh]
        with progress("fingerprints") as step:
            found = fingerprint_rows(missing, workers=workers, progress=step)
        fresh.update((row.key, item) for row, item in zip(missing, found, strict=True))
        pairs = find_duplicates([fresh[row.key] for row in rows])
    rows = assign_groups(rows, pairs)
    excluded = 0
    if exclude_leaks:
        rows, changed = mark_leaks(rows)
        excluded = len(changed)
    leaks = find_leaks(rows)
    write_index(rows, output)
    summary: dict[str, Any] = {
        "index": str(output),
        "kind": imported.kind,
        "imported": len(imported.rows),
        "rejected": len(imported.rejected),
        "rejected_list": str(rejected_path),
        "images": len(rows),
        "replaced": replaced,
        "groups": len({row.group for row in rows}),
        "excluded_leaks": excluded,
        "leaks": leaks_json(leaks),
        "not_in_data": len(imported.not_in_data),
        "without_split": imported.without_split,
        "without_metadata": imported.without_metadata,
        "proposals": imported.proposals,
        "splits": count_splits(rows),
    }
    say(
        f"{output}: {counted(len(imported.rows), 'pair')} of '{imported.kind}' imported, "
        f"{len(imported.rejected)} left out; "
        f"{counted(summary['images'], 'image')} in {counted(summary['groups'], 'group')}"
    )
    say_replaced(replaced)
    if imported.proposals:
        say(
            f"{imported.proposals} outlines are a model's proposals that nobody has worked on, and were left "
            "out ('dermseg label import --proposals' takes them)"
        )
    if 2 * imported.frames > len(imported.rows):
        say(
            f"{imported.frames} of {len(imported.rows)} masks say that all the edge of the image is lesion, "
            "and not all inside: if the lesion is black in them, invert them (the higher value is lesion)"
        )
    if imported.kind not in LAYOUTS and not (split or splits) and any(row.split for row in imported.rows):
        parts = ", ".join(f"{number} {name}" for name, number in count_splits(imported.rows).items())
        say(f"splits as folders or files are called: {parts}")
    drawings = sum(len(row.masks) > 1 for row in imported.rows)
    if drawings and imported.kind == FOLDER:
        say(
            f"{counted(drawings, 'image has', 'images have')} several masks: they count as drawings of one "
            "lesion, of which the first is taken; several lesions of an image belong into one mask"
        )
    if imported.without_split:
        say(f"{counted(imported.without_split, 'image is', 'images are')} not in the split file: in no split")
    say_absent(imported.not_in_data)
    if imported.without_metadata:
        say(f"{counted(imported.without_metadata, 'image is', 'images are')} not in the metadata")
    say_leaks(leaks, "--exclude-leaks takes them out of training")
    if json_:
        print_json(summary)


def download_(
    *,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="isic2016, isic2017, isic2018, ham10000, or isic-archive.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to fill.")],
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="PART", help="Only training, validation, test or metadata; repeatable."
        ),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option("--mirror", help="Address of a folder with the same files.")
    ] = None,
    search: Annotated[str, typer.Option("--search", help="isic-archive: its query language.")] = "",
    collections: Annotated[str, typer.Option("--collections", help="isic-archive: collection ids.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="isic-archive: at most so many; 0: all.")] = 0,
    retries: Annotated[
        int | None, typer.Option("--retries", min=0, help="Failures in a row to bear (8).")
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0.001, max=86_400, help="Seconds without a byte (30).")
    ] = None,
    backoff_s: Annotated[
        float | None,
        typer.Option("--backoff", min=0, max=86_400, help="Seconds before the second try (1)."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Download a data set, with its licence.

    After an interruption the same command goes on.
    """
    from dermseg.data.download import download, download_archive
    from dermseg.data.sources.addresses import COLLECTIONS

    of_files = {
        "--part": part or None,
        "--mirror": mirror,
        "--retries": retries,
        "--timeout": timeout_s,
        "--backoff": backoff_s,
    }
    if source == "isic-archive":
        refuse_unused(
            {name: value is not None for name, value in of_files.items()}, f"has no effect on {source}"
        )
        report = download_archive(output, search=search, collections=collections, limit=limit)
        say(f"{output}: {counted(report['images'], 'image')}, {report['bytes'] / 1e6:.0f} MB")
        if json_:
            print_json(report)
        return
    refuse_unused(
        {"--search": search, "--collections": collections, "--limit": limit}, "is for isic-archive alone"
    )
    with goes_on("The same command goes on from there."), bytes_progress() as step:
        files = download(
            source,
            output,
            parts=part or (),
            mirror=mirror,
            retries=8 if retries is None else retries,
            timeout_s=30.0 if timeout_s is None else timeout_s,
            backoff_s=1.0 if backoff_s is None else backoff_s,
            progress=step,
        )
    tables = {file.name for file in COLLECTIONS[source].files if file.part == "metadata"}
    for file in files:
        say(f"{file.path}: {file.size:,} bytes, {'fetched' if file.fetched else 'already there'}")
    then = f"dermseg data import {source} {output}"
    for file in files:
        if file.path.name in tables:  # without it the images of one lesion are not kept together
            then += f" --metadata {file.path}"
    say(f"licence and citation: {output / 'LICENCE.txt'}; then: {then}")
    if json_:
        print_json({"files": [{**vars(file), "path": str(file.path)} for file in files]})
