"""``dermseg label``: pre-labels, what to label next, and labels back into an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from dermseg.apps.cli.common import (
    InputsArgument,
    JsonOption,
    ModelOption,
    comma_list,
    listed_failures,
    new_app,
    print_json,
    say,
)
from dermseg.apps.cli.data_common import (
    OverwriteOption,
    leaks_json,
    may_write,
    progress,
    say_leaks,
    say_rejected,
    say_replaced,
)
from dermseg.apps.cli.label_simulate import simulate_
from dermseg.errors import DataError, UsageError
from dermseg.words import counted

if TYPE_CHECKING:
    from dermseg.images.sources import ImageSource
    from dermseg.labeling.rank import Look

app = new_app()


@app.callback()
def label() -> None:
    """Propose outlines, say which images to label next, and take labels back."""


@app.command("propose")
def propose_(
    inputs: InputsArgument,
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the files; default: beside the images.")
    ] = None,
    model: ModelOption = "default",
    name: Annotated[str, typer.Option("--label", help="Label of the outlines.")] = "lesion",
    lesions: Annotated[
        str,
        typer.Option("--lesions", metavar="largest|all", help="Keep the largest lesion, or each as a group."),
    ] = "largest",
    json_: JsonOption = False,
) -> None:
    """Write the model's outlines as LabelMe JSON, to be corrected.

    A file that a person has saved is kept.
    """
    from dermseg.data.labelme import check_label
    from dermseg.files import check_writable
    from dermseg.images.roles import find_photographs
    from dermseg.inference.postprocess import Lesions
    from dermseg.inference.predictor import load_model
    from dermseg.labeling.propose import propose

    shape = next((known for known in get_args(Lesions) if known == lesions), None)
    if shape is None:
        raise UsageError(f"--lesions: unknown value '{lesions}'", hint="largest or all")
    check_label(name)
    if output is not None:
        check_writable(output)
    sources, remarks = find_photographs(inputs, exclude=[] if output is None else [output])
    for remark in remarks:
        say(remark)
    loaded = load_model(model)
    with progress("proposing") as step:
        found = propose(loaded, sources, output, label=name, lesions=shape, progress=step)
    for item in found:
        if item.status != "proposed" or item.message:
            say(f"{item.status}: {item.image}: {item.message}")
    counts = {status: sum(p.status == status for p in found) for status in ("proposed", "kept", "failed")}
    say(", ".join(f"{number} {status}" for status, number in counts.items()))
    if json_:
        print_json({**counts, "files": [vars(item) for item in found]})
    if counts["failed"]:
        raise typer.Exit(1)


@app.command("rank")
def rank_(
    inputs: InputsArgument,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV table to write.")] = Path("rank.csv"),
    strategy: Annotated[
        str, typer.Option("--by", help="Order by uncertainty, disagreement, diversity, mixed or random.")
    ] = "mixed",
    number: Annotated[int | None, typer.Option("-n", "--number", min=1, help="Only the first N.")] = None,
    model: ModelOption = "default",
    labelled: Annotated[
        Path | None,
        typer.Option(
            "--labelled",
            metavar="INDEX",
            help="Labelled already: left out, and diversity keeps away from these.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of --by random.")] = 0,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Order images by how much a label would teach the model.

    What is in --labelled, or has a LabelMe file beside it that a person has saved, is left out.
    """
    import numpy as np

    from dermseg.data.index import open_image, read_index, write_table
    from dermseg.images.names import cell_name
    from dermseg.images.roles import find_photographs
    from dermseg.inference.predictor import load_model
    from dermseg.labeling.rank import SPREADING, STRATEGIES, leave_out_labelled, look_at_all, rank

    chosen = next((known for known in STRATEGIES if known == strategy), None)
    if chosen is None:
        raise UsageError(f"--by '{strategy}' is not known", hint=f"one of: {', '.join(STRATEGIES)}")
    may_write(output, overwrite, "--overwrite")
    given, remarks = find_photographs(inputs)
    for remark in remarks:
        say(remark)
    done = [row for row in read_index(labelled) if row.masks] if labelled else []
    sources, indexed, saved = leave_out_labelled(given, done)
    why = {f"in {labelled}": len(indexed), "by a LabelMe file beside them": len(saved)}
    if indexed or saved:
        how = ", ".join(f"{count} {where}" for where, count in why.items() if count)
        fewer = len(given) - len(sources)
        say(f"{fewer} of {counted(len(given), 'image')} labelled already and left out: {how}")
    if not sources:
        raise UsageError(f"all {len(given)} images are labelled already", hint="name images that are not")
    loaded = load_model(model)
    found: list[tuple[ImageSource, Look]] = []
    seen: list[tuple[ImageSource, Look]] = []
    failed: list[tuple[str, str]] = []
    interrupted = False
    if (done or saved) and chosen in SPREADING:
        there = [*(open_image(row) for row in done), *saved]
        with progress("looking at labelled images") as step:
            look_at_all(loaded, there, seen, failed, progress=step)
    with progress("looking") as step:
        try:
            look_at_all(loaded, sources, found, failed, progress=step)
        except KeyboardInterrupt:
            if not found:
                raise
            interrupted = True  # what is done is ranked all the same
    known = np.stack([look.descriptor for _, look in seen]) if seen else None
    for file, reason in failed:
        say(f"failed: {file}: {reason}")
    order = rank([look for _, look in found], chosen, known=known, seed=seed, number=number)
    table = [
        {
            "rank": place,
            "file": source.name,
            "uncertainty": round(look.uncertainty, 4),
            "disagreement": round(look.disagreement, 4),
        }
        for place, (source, look) in enumerate((found[i] for i in order), start=1)
    ]
    cells = [list({**row, "file": cell_name(str(row["file"]))}.values()) for row in table]
    write_table(output, ["rank", "file", "uncertainty", "disagreement"], cells)
    say(f"{output}: {len(table)} of {counted(len(sources), 'image')} by {chosen}")
    if json_:
        print_json(
            {
                "by": chosen,
                "images": table,
                "labelled": len(given) - len(sources),
                **listed_failures(failed),
            }
        )
    if interrupted:
        say(f"Stopped. {len(found)} of {len(sources)} images were looked at and are ranked.")
        raise KeyboardInterrupt
    if failed:
        raise typer.Exit(1)


@app.command("import")
def import_(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders with images and LabelMe files.")
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The index to write.")] = Path("index.csv"),
    labels: Annotated[
        str, typer.Option("--labels", help="a,b are two classes; a+b is one of two labels.")
    ] = "",
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the images; 'train', or what the index has.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add to the index that is there.")] = False,
    overwrite: OverwriteOption = False,
    proposals: Annotated[
        bool, typer.Option("--proposals", help="Take proposals that nobody has corrected, too.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Take LabelMe files back into an index, for training.

    What only the model has drawn is left out.
    """
    from dermseg.data.index import files_of, merge, read_index, write_index
    from dermseg.data.sources.importer import UNTOUCHED, import_dataset, write_rejected
    from dermseg.data.splits import assign_groups, find_leaks, keep_known

    may_write(output, overwrite or append, "--append or --overwrite")
    old = read_index(output) if append and output.exists() else []
    names = comma_list(labels)
    folder = output.with_name(f"{output.stem}-files")
    with progress("reading") as step:
        found = import_dataset(
            list(inputs),
            kind="labelme",
            labels=names,
            proposals=proposals,
            split="train" if split is None else split,
            folder=folder,
            keep=files_of(old),
            progress=step,
        )
    rejected = output.with_suffix(".rejected.csv")
    write_rejected(found.rejected, rejected)
    say_rejected([item for item in found.rejected if item.reason != UNTOUCHED], rejected)
    if not found.rows:
        raise DataError("no usable label of a person", file=rejected, hint="the file lists the reasons")
    rows = merge(old, keep_known(old, found.rows, splits=split is not None, masks=True))
    replaced = len(old) + len(found.rows) - len(rows)
    rows = assign_groups(rows)
    leaks = find_leaks(rows)
    write_index(rows, output)
    untouched = counted(found.proposals, "untouched proposal")
    say(f"{output}: {counted(len(found.rows), 'image')}; {untouched} left out")
    say_replaced(replaced)
    say_leaks(leaks, "'dermseg data split' makes splits that do not leak")
    if json_:
        counts = {"imported": len(found.rows), "replaced": replaced, "proposals": found.proposals}
        print_json({"index": str(output), **counts, "leaks": leaks_json(leaks)})


app.command("simulate")(simulate_)
