"""What the verbs of ``dermseg data`` share: options, progress bars, and how leaks are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import say
from dermseg.errors import UsageError
from dermseg.files import check_table
from dermseg.words import counted

if TYPE_CHECKING:
    from dermseg.data.index import IndexRow
    from dermseg.data.sources.importer import Rejected
    from dermseg.data.splits import Leak

WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Threads that decode.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]

SplitColumnOption = Annotated[
    str | None, typer.Option("--split-column", help="With --splits: its column with the split; 'split'.")
]


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """How many of how many images are done, on stderr: a bar on a terminal, lines elsewhere."""
    from dermseg.apps.cli.counter import ImageCounter

    with ImageCounter(text, 0) as counter:
        yield counter.reach


@contextmanager
def bytes_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar per file on stderr; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def update(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield update


def may_write(path: Path, allowed: bool, option: str) -> None:
    if path.exists() and not allowed:
        raise UsageError("there is a file already", file=path, hint=f"{option}, or another -o")
    if path.suffix.lower() != ".csv":
        raise UsageError(f"an index is a .csv file, not '{path.name}'", hint=f"-o {path.stem or 'index'}.csv")
    check_table(path)


def count_splits(rows: Sequence[IndexRow]) -> dict[str, int]:
    return dict(sorted(Counter(row.split or "unassigned" for row in rows).items()))


def say_rejected(rejected: Sequence[Rejected], table: Path) -> None:
    """Say what an import left out; ``table`` lists all of it."""
    for item in rejected[:5]:
        say(f"left out: {item.file}: {item.reason}")
    if len(rejected) > 5:
        say(f"... and {len(rejected) - 5} more, all in {table}")


def say_replaced(number: int) -> None:
    """Say of how many images the index had rows already."""
    if number:
        say(
            f"{number} of them were in the index already; their rows were replaced, but for masks, "
            "split, patient, lesion and licence where nothing new was given"
        )


def say_absent(names: Sequence[str]) -> None:
    """Say which names of a split file are no image's: one that is misspelt leaves its image in no split."""
    if names:
        some = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
        what = counted(len(names), "image of the split file is", "images of the split file are")
        say(f"{what} not in the index: {some}")


def leaks_json(leaks: Sequence[Leak]) -> list[dict[str, Any]]:
    return [{"group": x.group, "splits": list(x.splits), "images": list(x.images)} for x in leaks]


def say_leaks(leaks: Sequence[Leak], hint: str) -> None:
    for leak in leaks[:10]:
        say(f"leak: group {leak.group} lies in {' and '.join(leak.splits)}: {', '.join(leak.images)}")
    if leaks:
        say(f"{counted(len(leaks), 'group lies', 'groups lie')} in several splits; {hint}")
