"""``dermseg audit``: is the log of clinical results as it was written, and what does it say."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dermseg.apps.cli.common import JsonOption, new_app, print_json, say
from dermseg.errors import UsageError

if TYPE_CHECKING:
    from dermseg.audit import Receipt

app = new_app()
LogArgument = Annotated[Path, typer.Argument(metavar="LOG", help="The log, such as STATE/audit.jsonl.")]
KeyOption = Annotated[
    Path | None,
    typer.Option(envvar="DERMSEG_AUDIT_KEY_FILE", help="File with the key that the log was begun with."),
]


@app.callback()
def root() -> None:
    """Check and read the append-only log of clinical results."""


@app.command()
def verify(
    log: LogArgument,
    *,
    key_file: KeyOption = None,
    expect: Annotated[
        str | None,
        typer.Option(metavar="SEQ:HASH", help="A record noted elsewhere, which the log must still hold."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that nothing was changed, put in, taken out or cut off.

    Exit code 1 if something was.
    """
    from dermseg.audit import read_key
    from dermseg.audit.verify import verify as check

    found = check(log, read_key(key_file), expect=None if expect is None else _receipt(expect))
    if as_json:
        print_json(found.as_dict())
    elif found.ok and found.last is not None:
        say(f"{log}: {found.records} records, all as they were written")
        say(f"  last          {found.last.seq}:{found.last.hash}")
    else:
        say(f"{log}: NOT as it was written: {found.problem}")
        say(f"  {found.records} records before that are right")
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def show(
    log: LogArgument,
    *,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Only results for this image (a DICOM image by its UID, too)."),
    ] = None,
) -> None:
    """Print records as JSON lines. It does not check the chain; 'dermseg audit verify' does."""
    if not log.is_file():
        raise UsageError("there is no audit log", file=log)
    wanted = None if image is None else _marks(image)
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if wanted is None or any(mark in line for mark in wanted):
                try:
                    sys.stdout.write(json.dumps(json.loads(line)) + "\n")
                except ValueError:
                    say(f"not a record: {line[:60]!r}")


def _marks(image: Path) -> list[str]:
    """What stands in the records of an image."""
    import hashlib

    from dermseg.audit import image_mark
    from dermseg.errors import ImageError
    from dermseg.images.dicom import read_dataset

    try:
        data = image.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", file=image) from None
    marks = [f'"input_sha256":"{hashlib.sha256(data).hexdigest()}"']
    if data[128:132] == b"DICM":
        with suppress(ImageError):  # damaged, or without the extra [dicom]: its bytes alone
            marks.append(f'/{image_mark(str(read_dataset(data).get("SOPInstanceUID")))}"')
    return marks


def _receipt(text: str) -> Receipt:
    from dermseg.audit import Receipt

    # A slip of the pen must not read like a forgery: any case will do, and nothing but a hash.
    seq, _, digest = text.strip().lower().partition(":")
    if not re.fullmatch("[0-9]{1,18}", seq) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise UsageError(f"--expect {text} is not SEQ:HASH", hint="dermseg audit verify prints it as 'last'")
    return Receipt(int(seq), digest)
