"""The ``dermseg`` program: a table of verbs, each loaded only when it is asked for.

Loading lazily keeps ``dermseg segment`` fast and lets the verbs that need torch stay unimported.
"""

from __future__ import annotations

import atexit
import difflib
import errno
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import typer

from dermseg.apps.cli.common import log_line, print_error
from dermseg.apps.cli.postpone import postpone
from dermseg.apps.cli.streams import prepare_streams
from dermseg.errors import DermsegError, MissingExtraError, UsageError
from dermseg.version import __version__

# verb -> (module that holds ``app``, one line of help), from what all use to what few do
VERBS: dict[str, tuple[str, str]] = {
    "segment": ("dermseg.apps.cli.segment", "Find the lesion in images: masks, overlays, table, report."),
    "measure": ("dermseg.apps.cli.measure", "Measure the lesions in masks."),
    "track": ("dermseg.apps.cli.track", "Follow lesions over time: change between photographs."),
    "dashboard": ("dermseg.apps.cli.dashboard", "Outline lesions in a browser on this machine."),
    "desktop": ("dermseg.apps.cli.desktop", "Draw and correct outlines in a window, with the model's help."),
    "score": ("dermseg.apps.cli.score", "Compare masks with reference masks."),
    "evaluate": ("dermseg.apps.cli.evaluate", "Run a model on a data set and score it."),
    "compare": ("dermseg.apps.cli.compare", "Compare models on the same images, paired."),
    "data": ("dermseg.apps.cli.data", "Import, split, check, download and generate data."),
    "label": ("dermseg.apps.cli.label", "Propose outlines for people to correct; say what to label next."),
    "train": ("dermseg.apps.cli.train", "Train a network from a configuration file."),
    "suite": ("dermseg.apps.cli.suite", "Train and compare many models: fractions, folds, seeds."),
    "export": ("dermseg.apps.cli.export", "Turn a training run into a model bundle."),
    "uncertainty": ("dermseg.apps.cli.uncertainty", "Fit and measure what a model says of its own outlines."),
    "explain": ("dermseg.apps.cli.explain", "Show what an outline rests on: Grad-CAM."),
    "dicom": ("dermseg.apps.cli.dicom", "DICOM: to PNG, de-identify, and segment beside a PACS."),
    "serve": ("dermseg.apps.cli.serve", "Answer over HTTP: images in, masks out, batch jobs, audit log."),
    "audit": ("dermseg.apps.cli.audit", "Check and read the log of clinical results."),
    "models": ("dermseg.apps.cli.models", "List, show and verify architectures and bundles."),
    "doctor": ("dermseg.apps.cli.doctor", "Say what is installed and whether it works."),
}
# Third-party modules a verb may miss, and the extra that brings them.
_EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "onnx": "train",
    "onnxscript": "train",
    "scipy": "stats",
    "matplotlib": "train",
    "tensorboard": "train",
    "openvino": "openvino",
    "ray": "ray",
    "pyarrow": "ray",
    "fsspec": "ray",
    "streamlit": "dashboard",
    "fastapi": "api",
    "uvicorn": "api",
    "python_multipart": "api",
    "prometheus_client": "api",
    "pydicom": "dicom",
    "highdicom": "dicom",
    "pynetdicom": "dicom",
    "dicomweb_client": "dicom",
    "PySide6": "desktop",
}

# The disk is full, also the one that stdout goes to.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_TOO_LITTLE = DermsegError("there is not enough memory", hint="end other programs, or give it more")
# What the loader of compiled modules says when the memory that a process may have (ulimit -v) is used up.
_NO_ROOM = ("failed to map segment", "cannot allocate memory", "bad_alloc")


def run_verb(verb: str, args: list[str]) -> None:
    """Import the module of a verb and call its ``app``; most of what it needs is imported in the call.

    Raises
    ------
    MissingExtraError
        The verb needs an extra that is not installed.
    UsageError
        The output is an empty word.
    """
    if "--output=" in args or any(
        option in ("-o", "--output") and not value for option, value in pairwise(args)
    ):  # "$OUT" of a script that did not set it; as a path it is the folder that one is in
        raise UsageError("-o is empty", hint="name a place; '-o .' is the folder that you are in")
    try:
        app: typer.Typer = import_module(VERBS[verb][0]).app
        app(args=args, prog_name=f"dermseg {verb}")
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root in _EXTRAS:
            raise MissingExtraError(f"'dermseg {verb}' ({root})", _EXTRAS[root]) from None
        raise


def usage() -> str:
    """The text of ``dermseg --help``."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {name:<{width}}{text}" for name, (_, text) in VERBS.items())
    return (
        "Usage: dermseg VERB [OPTIONS] ...\n\n"
        "Find, measure and follow skin lesions in images. Not a medical device.\n\n"
        "To begin: dermseg segment photos/ -o out, then open out/report.html.\n\n"
        f"Verbs:\n{verbs}\n\n"
        "dermseg VERB --help explains a verb; dermseg --version prints the version.\n"
    )


def main(argv: list[str] | None = None) -> None:
    """Run a verb; turn errors into one line on stderr and an exit code."""
    args = sys.argv[1:] if argv is None else argv
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            sys.stdout.write(usage())
            sys.exit(0 if args else 2)
        if args[0] == "--version":
            sys.stdout.write(f"dermseg {__version__}\n")
            sys.exit(0)
        if args[0] not in VERBS:
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean 'dermseg {close[0]}'?" if close else "dermseg --help lists the verbs"
            raise UsageError(f"unknown verb '{args[0]}'", hint=hint)
        run_verb(args[0], args[1:])
    except DermsegError as error:
        _end(error, args)
    except MemoryError:
        _end(_TOO_LITTLE, args)
    except BrokenPipeError:  # nobody reads it any more
        sys.exit(1)
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        _end(_narrow(error), args)
    except OSError as error:
        if error.filename is None and _is_homeless():
            _end(UsageError("the folder that you are in is gone", hint="cd to another one"), args)
        if error.filename is None and error.errno not in _FULL:  # no file that the user could mend
            raise
        _end(DermsegError(error.strerror or str(error), file=error.filename), args)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            sys.exit(130)  # what compiled modules make of Ctrl-C while they are imported
        if any(words in str(error).lower() for words in _NO_ROOM):
            _end(_TOO_LITTLE, args)
        raise


def _end(error: DermsegError, args: Sequence[str]) -> NoReturn:
    """Say what was wrong, as a line of the log where that is JSON; end with the exit code of the error."""
    if "--log-json" in args:
        log_line("error", message=error.message, file=error.file, hint=error.hint)
    else:
        print_error(error)
    sys.exit(error.exit_code)


def _narrow(error: UnicodeEncodeError) -> UsageError:
    """A name from a zip or a table that this system's encoding of file names does not have."""
    letters = ascii(error.object[error.start : error.end])[1:-1]
    return UsageError(
        f"no file here can have {letters} in its name: names are {error.encoding}",
        hint="set PYTHONUTF8=1, or a locale of UTF-8 such as LC_ALL=C.UTF-8",
    )


def _is_homeless() -> bool:
    """Whether the working folder was removed, so that no relative path means anything."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def run() -> NoReturn:
    """The installed program: ``main``, then out at once.

    What is registered for the end is done; only the interpreter's taking down of every object is left out.
    It frees memory that the system frees anyway, and takes a sixth of the time of ``segment`` on one image.
    """
    # Looking for pydantic plug-ins means reading the metadata of everything that is installed; what reads
    # them, and with it Python's parser of e-mails, is needed for nothing else.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    postpone("importlib.metadata", "entry_points")
    # Imports make hundreds of thousands of objects that stay: looking through them again and again takes a
    # thirtieth of the time of ``segment`` on one image.
    gc.set_threshold(50_000)
    prepare_streams()
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        if error.errno in _FULL:  # what stdout still held was the result
            print_error(DermsegError(error.strerror or str(error)))
            code = 1
    except ValueError:
        pass
    with suppress(OSError, ValueError):  # nobody reads it any more
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    run()
