"""What every verb shares: where text goes, how errors look, how JSON is printed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from dermseg.errors import DermsegError, UsageError
from dermseg.words import counted

# Typer shows Python's type beside an argument ("INPUT <list[str]>"), whose sentence says more.
setattr(typer.core.TyperArgument, "display_type_rich", lambda self, ctx: None)  # noqa: B010
# And beside an option: "--port <int range>". What is put in stands in capitals, as in README.
_PUT_IN = {"str": "TEXT", "path": "PATH", "int": "N", "int range": "N", "float": "X", "float range": "X"}
_show_type: Any = getattr(typer.core.TyperOption, "display_type", None)


def _put_in(option: Any, ctx: Any) -> str:
    shown: str = _show_type(option, ctx).strip("<>")
    return _PUT_IN.get(shown, shown)  # or choices: "first|all"


if _show_type is not None:  # Typers before 0.29 have no such method: capitals there are click's own
    setattr(typer.core.TyperOption, "display_type", _put_in)  # noqa: B010

_INPUTS = typer.Argument(metavar="INPUT", help="Images, folders, zips or globs ('photos/*.jpg').")
InputsArgument = Annotated[list[str], _INPUTS]
OptionalInputsArgument = Annotated[list[str] | None, _INPUTS]
ModelOption = Annotated[
    str,
    typer.Option("--model", metavar="MODEL", help="Name of a bundled model, or a bundle's folder or zip."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
MANY = 1000  # images of which tables, intervals and reports take seconds
# What a terminal would obey instead of show; the name of a file may hold it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_error(error: DermsegError) -> None:
    """One or two lines on stderr: what was wrong, and what to do."""
    where = f"{error.file}: " if error.file else ""
    say(f"error: {where}{error.message}")
    if error.hint:
        say(f"  try: {error.hint}")


def log_line(event: str, **values: Any) -> None:
    """One line of ``--log-json`` on stderr: the time, what happened, and what is known of it."""
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()


def note(text: str, *, as_log: bool) -> None:
    """A remark on stderr, as a line of ``--log-json`` where that is asked for."""
    if as_log:
        log_line("note", message=text)
    else:
        say(text)


def print_json(data: Any) -> None:
    """The one machine-readable object on stdout. NaN is refused: unknown is null."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def listed_failures(failed: Iterable[tuple[str, str]], what: str = "file") -> dict[str, Any]:
    """What did not work, ``(name, reason)`` each, as every verb's ``--json`` has it: a count and a list."""
    failures = [{what: name, "message": reason} for name, reason in failed]
    return {"failed": len(failures), "failures": failures}


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout stays machine-readable."""
    sys.stderr.write(_CONTROL.sub("_", text) + "\n")


def draws_bars() -> bool:
    """Whether stderr is a terminal that can write over a line; a shell inside of Emacs cannot."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def say_intervals(images: int) -> None:
    """Say that the intervals of many images are under way: each is of thousands of resamples."""
    if images >= MANY:
        say(f"computing the intervals of {counted(images, 'image')}")


def say_left_out(split: str, without_mask: int, failures: Sequence[Mapping[str, str]]) -> None:
    """Name the images of a split that are in no figure; those that could not be scored end with exit code 1.

    Parameters
    ----------
    failures
        As ``Failure.to_dict`` gives them.
    """
    if without_mask:
        one, many = f"image of split '{split}' has", f"images of split '{split}' have"
        say(f"{counted(without_mask, one, many)} no mask, left out")
    for failure in failures:
        say(f"failed: {failure['image_id']}: {failure['reason']}")
    if failures:
        raise typer.Exit(1)


@contextmanager
def goes_on(text: str) -> Iterator[None]:
    """Ctrl-C ends the verb with a line that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Stopped. {text}")
        raise


def new_app() -> typer.Typer:
    """A Typer application with the project's settings; every verb module has one called ``app``."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,  # errors are turned into text by ``main``
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def comma_list(text: str) -> list[str]:
    """The parts of ``a,b,c``; what is empty is passed over."""
    return [part.strip() for part in text.split(",") if part.strip()]


def refuse_unused(given: Mapping[str, object], why: str, hint: str = "leave it out") -> None:
    """Refuse options that were given (their value is true) and do nothing; ``why`` follows their names.

    Raises
    ------
    UsageError
        There are some.
    """
    if unused := [option for option, value in given.items() if value]:
        raise UsageError(f"{', '.join(unused)} {why}", hint=hint)
