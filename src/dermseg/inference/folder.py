"""The output folder of a batch: who owns it, what may be removed from it, what is already done in it.

Only a folder with a journal holds a run of ours. What such a run wrote follows from its journal, so
``--overwrite`` removes exactly that; a file that no run of ours can have written is never replaced and
never removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from dermseg.errors import DermsegError, UsageError
from dermseg.files import check_writable
from dermseg.images.roles import JOURNAL, RUN
from dermseg.inference.header import Header
from dermseg.inference.journal import Journal, read_header
from dermseg.inference.outputs import LAYOUT, REPORT, RESULTS, output_files, plan_stems
from dermseg.inference.runtimes import obstacles

TABLES = (RESULTS, REPORT, RUN)
# A file that was being written when the run was killed: ".NAME.xxxxxxxxxxxx.tmp" of `atomic_write`, which
# cuts NAME to 40 characters, or ".NAME.tmp" of the journal.
_TEMPORARY = re.compile(r"\.(.{1,40}?)(?:\.[0-9a-f]{12})?\.tmp", re.DOTALL)
_NAME_CUT = 40


def plan_files(header: Header) -> dict[str, dict[str, str]]:
    """Input name -> kind -> path relative to OUT, as the header's inputs and options have it."""
    names = [name for name, *_ in header.inputs]
    options = header.options
    return {
        name: output_files(
            stem,
            options["save"],
            labels=options["lesions"] == "all",
            uncertainty=options.get("uncertainty", False),
            margins=options.get("margin") is not None,
        )
        for name, stem in plan_stems(names).items()
    }


def earlier_runtime(out: Path) -> str | None:
    """What ran the network of the run in `out`; None where there is no run, or this machine does not have it.

    Raises
    ------
    UsageError
        The journal cannot be read.
    """
    if not (out / JOURNAL).is_file():
        return None
    runtime = str(read_header(out / JOURNAL).model.get("runtime"))
    return runtime if obstacles().get(runtime, "unknown") is None else None


def claim_folder(out: Path, header: Header, *, resume: bool, overwrite: bool) -> Journal:
    """Make `out` the folder of this run and return its journal, locked.

    Parameters
    ----------
    resume
        Go on with the run in `out`; where there is none, start one.
    overwrite
        Remove the run in `out` first.

    Raises
    ------
    UsageError
        `out` holds another run, one that differs in model, options or inputs, or foreign files that this
        run would replace.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", hint="leave one out")
    path = out / JOURNAL
    check_writable(out)
    if path.is_file():
        if resume:
            return _resume(path, header)
        if not overwrite:
            raise UsageError(
                "the output folder holds an earlier run",
                file=out,
                hint="go on with it (--resume), replace it (--overwrite), or choose another folder with -o",
            )
        _remove_run(path, plan_files(header))
    _refuse_foreign(out, plan_files(header))
    try:
        out.mkdir(parents=True, exist_ok=True)
        return Journal.create(path, header)
    except UsageError:  # the lock is another run's
        raise
    except (OSError, DermsegError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, FileExistsError) and path.exists():
            raise UsageError(
                "another dermseg has just begun to write into this folder",
                file=out,
                hint="choose another folder with -o",
            ) from None
        reason = getattr(cause, "strerror", None) or error
        raise UsageError(
            f"cannot be written: {reason}", file=out, hint="choose another one with -o"
        ) from cause


def _resume(path: Path, header: Header) -> Journal:
    journal = Journal.open(path)
    apart = journal.header.gone_or_changed(header)
    undone = apart - done_names(journal, path.parent) if apart else apart
    before, plan = plan_files(journal.header), plan_files(header)
    added = {name: files for name, files in plan.items() if name not in before}
    if any(before.get(name, files) != files for name, files in plan.items()):
        # "a.png" is gone or new, and "a.jpg" would have other files than it was given
        undone &= plan.keys()
        added = {}
    try:
        if differences := journal.header.differences(header, undone, added):
            raise UsageError(
                f"the earlier run cannot be resumed: {'; '.join(differences)}",
                file=path.parent,
                hint="run it as before, or start again with --overwrite or another folder",
            )
        _refuse_foreign(path.parent, added, own=TABLES)
    except UsageError:
        journal.close()
        raise
    journal.cut_tail()
    _remove_leftovers(path.parent, before)
    if journal.header.inputs != header.inputs:
        journal.header = header
        journal.sort([name for name, *_ in header.inputs])
    return journal


def done_names(journal: Journal, out: Path) -> set[str]:
    """Inputs that need nothing more: recorded, not failed, and all their files are there.

    Failed ones are tried again: the reason may have been a full memory or a drive that was away, or a damaged
    file that is whole now.
    """
    done = set()
    for entry in journal.entries([name for name, *_ in journal.header.inputs]):
        if entry.row.status != "failed" and all(_whole(out / file) for file in entry.files):
            done.add(entry.row.file)
    return done


def _whole(file: Path) -> bool:
    """Whether there is something in a file; one that lost its content (a crash, a failed copy) is none."""
    return file.is_file() and file.stat().st_size > 0


def _remove_run(path: Path, following: Mapping[str, Mapping[str, str]]) -> None:
    """Remove what the run of this journal wrote, and the folders that are empty then.

    Nothing of it where the run that follows could not write its files after all.
    """
    journal = Journal.open(path)  # takes the lock: a run that is still writing is not pulled away
    try:
        out, plan = path.parent, plan_files(journal.header)
        _refuse_foreign(
            out, following, own={*TABLES, *(file for files in plan.values() for file in files.values())}
        )
        _remove_leftovers(out, plan)
        for files in plan.values():
            for file in files.values():
                (out / file).unlink(missing_ok=True)
        for name in TABLES:
            (out / name).unlink(missing_ok=True)
        folders = {parent for files in plan.values() for file in files.values() for parent in _parents(file)}
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            with suppress(OSError):  # not empty: something foreign is in it
                (out / folder).rmdir()
        if os.name == "nt":  # where a file that is open cannot be removed
            journal.close()
        path.unlink()
    finally:
        journal.close()


def _parents(file: str) -> Iterable[PurePosixPath]:
    return (parent for parent in PurePosixPath(file).parents if parent.parts)


def _remove_leftovers(out: Path, plan: Mapping[str, Mapping[str, str]]) -> None:
    """Remove the temporary files that a killed run left beside the files it was about to write."""
    targets: dict[Path, set[str]] = {out: {name[:_NAME_CUT] for name in (*TABLES, JOURNAL)}}
    for files in plan.values():
        for file in files.values():
            path = out / file
            targets.setdefault(path.parent, set()).add(path.name[:_NAME_CUT])
    for folder, names in targets.items():
        if folder.is_dir():
            for path in list(folder.glob(".*.tmp")):
                match = _TEMPORARY.fullmatch(path.name)
                if match and match[1] in names:
                    path.unlink(missing_ok=True)


def _refuse_foreign(
    out: Path, plan: Mapping[str, Mapping[str, str]], own: Collection[str] = frozenset()
) -> None:
    """Refuse to replace files that are there and not our `own`."""
    if not out.is_dir():
        return
    wanted = list(TABLES)
    if any((out / folder).exists() for folder, _ in LAYOUT.values()):
        wanted += [file for files in plan.values() for file in files.values()]
    found = [file for file in wanted if file not in own and (out / file).exists()]
    if found:
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise UsageError(
            f"the output folder holds files that no run recorded there: {shown}",
            file=out,
            hint="choose another folder with -o, or move them away",
        )
