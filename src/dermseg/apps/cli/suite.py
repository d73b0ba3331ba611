"""``dermseg suite``: many runs, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch  # noqa: F401  (a missing [train] extra must show before anything else happens)
import typer

from dermseg.apps.cli.common import (
    JsonOption,
    goes_on,
    listed_failures,
    new_app,
    print_json,
    say,
    say_left_out,
)
from dermseg.errors import UsageError
from dermseg.words import counted

app = new_app()
SuiteArgument = Annotated[Path, typer.Argument(metavar="SUITE", help="YAML file of the suite.")]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", help="Folder of the suite; default runs/<name of the suite>.")
]


@app.callback()
def suite() -> None:
    """Train and compare many models: fractions, folds, seeds. Needs the extra 'train'."""


@app.command()
def run(
    suite: SuiteArgument,
    output: OutputOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress line per run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate every run of a suite that is not done.

    The same command goes on after any interruption. Runs that failed and images that could not be scored are
    listed; the exit code is then 1.
    """
    import cv2

    from dermseg.experiments.outcomes import collect, count_without_mask, not_scored
    from dermseg.experiments.report import write_report
    from dermseg.experiments.run import run_suite
    from dermseg.experiments.suite import cells, indexes, load_suite
    from dermseg.files import check_writable
    from dermseg.training.distributed import torchrun_world

    if (world := torchrun_world()).size > 1:
        if not world.main:
            raise typer.Exit(0)  # it is said once; torchrun ends the others when one fails
        raise UsageError(
            f"a suite runs in one process, and torchrun started {world.size}",
            hint="without torchrun; CUDA_VISIBLE_DEVICES chooses the GPU, and suites in folders of their own "
            "run side by side",
        )
    config = load_suite(suite)
    folder = output or Path("runs") / config.name
    check_writable(folder)
    total = sum(1 for _ in cells(config))
    cv2.setNumThreads(1)
    with goes_on("The same command goes on from there."):
        failed = run_suite(config, suite, folder, quiet=quiet, report=say)
    written = write_report(folder, config.name, indexes(config))
    say(f"{folder}: {total - len(failed)} of {counted(total, 'run')}, {written[3].name}")
    outcomes = collect(folder)
    failures, without_mask = not_scored(outcomes), count_without_mask(outcomes)
    if as_json:
        print_json(
            {
                "runs": total,
                **listed_failures(failed, "run"),
                "not_scored": failures,
                "images_without_mask": without_mask,
                "outputs": [str(path) for path in written],
            }
        )
    for test, count in without_mask.items():
        say(f"{test}: {counted(count, 'image has', 'images have')} no mask, left out")
    for failure in failures:
        say(f"failed: {failure['test']}: {failure['image_id']}: {failure['reason']}")
    if failed or failures:
        raise typer.Exit(1)


@app.command()
def report(suite: SuiteArgument, output: OutputOption = None, as_json: JsonOption = False) -> None:
    """Make tables, tests and pictures again from the run folders."""
    from dermseg.experiments.report import write_report
    from dermseg.experiments.suite import indexes, load_suite

    config = load_suite(suite)
    folder = output or Path("runs") / config.name
    if not (folder / "runs").is_dir():
        raise UsageError(
            "there are no runs of a suite here", file=folder, hint=f"dermseg suite run {suite} -o {folder}"
        )
    written = write_report(folder, config.name, indexes(config))
    say("\n".join(map(str, written)))
    if as_json:
        print_json({"outputs": [str(path) for path in written]})


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with runs anywhere below it.")],
    data: Annotated[Path, typer.Option("--data", help="Index to evaluate on.")],
    split: Annotated[str, typer.Option("--split", help="Split to evaluate on.")] = "test",
    as_json: JsonOption = False,
) -> None:
    """Evaluate the runs below a folder on another data set.

    Those that were evaluated on this data set and split already are skipped, and folds that have seen its
    images are refused. Runs that failed and images that could not be scored are listed; the exit code is then
    1.
    """
    from dermseg.data.index import read_index
    from dermseg.evaluation.evaluate import select_split
    from dermseg.evaluation.output import PER_IMAGE
    from dermseg.evaluation.table import read_per_image
    from dermseg.experiments.run import evaluate_run, find_runs, reason
    from dermseg.experiments.suite import TestConfig

    _, without_mask = select_split(read_index(data), split)  # wrong for one run is wrong for all
    test = TestConfig(name=f"{data.stem}-{split}", index=str(data.absolute()), split=split)
    done, failed = [], []
    failures: dict[tuple[str, str], dict[str, str]] = {}
    for run_folder in find_runs(folder):
        try:
            made = evaluate_run(run_folder, test)
            found = read_per_image(made / PER_IMAGE).failures
        except Exception as error:  # too little memory is an error of torch, a full disk one of the system
            failed.append((str(run_folder), reason(error)))
            say(f"failed: {run_folder}: {failed[-1][1]}")
        else:
            failures |= {(f.dataset, f.image_id): f.to_dict() for f in found}
            done.append(str(made))
            say(done[-1])
    if as_json:
        print_json(
            {
                "evaluations": done,
                **listed_failures(failed, "run"),
                "not_scored": list(failures.values()),
                "images_without_mask": without_mask,
            }
        )
    say_left_out(split, without_mask, list(failures.values()))
    if failed:
        raise typer.Exit(1)
