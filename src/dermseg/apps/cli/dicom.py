"""``dermseg dicom``: to PNG, de-identification, and the work beside a PACS."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import JsonOption, new_app, print_json, say
from dermseg.errors import UsageError

app = new_app()


@app.callback()
def dicom() -> None:
    """DICOM: to PNG, de-identify, and segment beside a PACS. Not a medical device."""


@app.command("to-png")
def to_png(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="DICOM files, folders, globs, zips.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="The folder to fill.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    json_: JsonOption = False,
) -> None:
    """Turn DICOM photographs into PNG files, without the header.

    8-bit RGB, full size. Names stay as they are. The picture of a multi-frame file is its first. Exit code 1:
    some failed.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.dicom.find import find_files, is_dicom
    from dermseg.dicom.to_png import write_pngs

    sources = [source for source in find_files(inputs, exclude=output) if is_dicom(source)]
    if not sources:
        raise UsageError(f"no DICOM file in {', '.join(inputs)}")
    with ImageCounter("converting", len(sources)) as counter:
        done = write_pngs(sources, output, overwrite=overwrite, progress=counter.advance)
    failed = [item for item in done if item.error]
    for item in failed:
        say(f"{item.file}: {item.error}")
    say(f"{len(done) - len(failed)} of {len(done)} DICOM files are PNG files in {output}")
    if json_:
        print_json({"files": [vars(item) for item in done], "failed": len(failed), "outputs": str(output)})
    if failed:
        raise typer.Exit(1)


@app.command("deidentify")
def deidentify_(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="DICOM files, images, folders, zips.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="A new folder.")],
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            help="File with the secret key, made if missing: the same key gives the same new names."
        ),
    ] = None,
    retain: Annotated[
        str,
        typer.Option(
            metavar="OPTIONS",
            help="Of uids, device, institution, patient (sex, age, size), dates or shifted-dates.",
        ),
    ] = "",
    mapping: Annotated[
        Path | None, typer.Option(help="Also write who became whom to this CSV file. Keep it secret.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Remove identity from DICOM files and other images.

    DICOM files after the basic profile of PS3.15; metadata of JPEG and PNG go, other images are written anew.
    Writes OUT/deidentification.json, which names what was removed and holds no value of it. Pixels stay as
    they are: text that is burned into a picture is warned of, not removed. Exit code 1: some were left out.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.dicom.deidentify import REPORT, check_mapping, deidentify, write_mapping
    from dermseg.dicom.find import find_files
    from dermseg.dicom.profile import parse_retain
    from dermseg.dicom.pseudonyms import Pseudonyms, open_key

    options = parse_retain(retain)
    for path in (key, mapping):
        if path is not None and path.resolve().is_relative_to(output.resolve()):
            raise UsageError("secrets do not belong into the output folder", file=path)
    if mapping is not None:
        check_mapping(mapping)
    sources = find_files(inputs, exclude=output)
    pseudonyms = Pseudonyms(open_key(key))
    with ImageCounter("cleaning", len(sources)) as counter:
        run = deidentify(sources, output, pseudonyms, options, progress=counter.advance)
    if mapping is not None:
        write_mapping(run, mapping)
    for outcome in run.outcomes:
        for text in (*outcome.warnings, *([outcome.error] if outcome.error else [])):
            say(f"{sources[outcome.number - 1].name}: {text}")
    done = len(run.outcomes) - run.failed
    say(f"{done} of {len(run.outcomes)} files without identity in {output}; report: {output / REPORT}")
    if json_:
        print_json({"files": len(run.outcomes), "left_out": run.failed, "report": str(output / REPORT)})
    if run.interrupted:
        say(f"Stopped: {len(sources) - len(run.outcomes)} more files were not looked at.")
        raise KeyboardInterrupt
    if run.failed:
        raise typer.Exit(1)


ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, see docs/clinic.md.")]


@app.command("listen")
def listen_(config: ConfigArgument) -> None:
    """Receive images (C-STORE), segment them, send results back.

    Runs until it is stopped. An image whose receipt was confirmed is worked on even if the power fails in
    between. Logs JSON lines.
    """
    from dermseg.dicom.config import load_config
    from dermseg.dicom.service import listen, until_signal

    _log_lines()
    with until_signal() as stop:
        listen(load_config(config), stop)


@app.command("watch")
def watch_(config: ConfigArgument) -> None:
    """Ask an archive (DICOMweb) for images, segment them.

    Results go back to the archive. Runs until it is stopped.
    """
    from dermseg.dicom.config import load_config
    from dermseg.dicom.service import until_signal, watch

    _log_lines()
    with until_signal() as stop:
        watch(load_config(config), stop)


@app.command("queue")
def queue_(
    config: ConfigArgument,
    *,
    retry: Annotated[bool, typer.Option("--retry", help="Put dead letters back into the queue.")] = False,
    drop: Annotated[
        list[int] | None,
        typer.Option(metavar="JOB", help="Give up a dead letter and remove its files; repeat for several."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show what waits, what is done, what failed for good.

    May be called while the service runs. Exit code 1: some failed for good (dead letters).
    """
    from dermseg.dicom.config import load_config
    from dermseg.dicom.queue import Queue

    settings = load_config(config)
    queue = Queue(settings.folder, own=False)
    try:
        for number in drop or []:
            if not queue.drop(number, keep_received=settings.listen.storage_commitment):
                raise UsageError(f"--drop {number}: there is no dead letter of that number")
        revived = queue.revive() if retry else 0
        counts, dead = queue.counts(), queue.listed("dead")
    finally:
        queue.close()
    if retry:
        say(f"{revived} dead letters are tried again")
    say(", ".join(f"{number} {state}" for state, number in counts.items()))
    letters = [
        {"job": job.id, "reason": job.reason, "file": str(queue.received_path(job.image_uid))} for job in dead
    ]
    for job, letter in zip(dead[:20], letters, strict=False):
        say(f"  job {job.id}, from {job.origin}: {job.reason}")
        say(f"    {letter['file']}")
    if json_:
        print_json({**counts, "dead_letters": letters})
    if dead:
        raise typer.Exit(1)


def _log_lines() -> None:
    """The service's log on stderr: a JSON object per line, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logger = logging.getLogger("dermseg.dicom")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return f'{{"time": "{moment}", {record.getMessage()[1:]}'
