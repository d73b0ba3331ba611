"""The ``dermseg`` program: a table of verbs, each loaded only when it is asked for.

Loading lazily keeps ``dermseg segment`` fast and lets the verbs that need torch stay unimported.
"""

from __future__ import annotations

import atexit
import difflib
import errno
import gc
import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import typer

from dermseg.apps.cli.common import print_error
from dermseg.apps.cli.postpone import postpone
from dermseg.errors import DermsegError, MissingExtraError, UsageError
from dermseg.version import __version__

# verb -> (module that holds ``app``, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "segment": ("dermseg.apps.cli.segment", "Find the lesion in images: masks, overlays, table, report."),
    "score": ("dermseg.apps.cli.score", "Compare masks with reference masks."),
    "evaluate": ("dermseg.apps.cli.evaluate", "Run a model on a data set and score it."),
    "compare": ("dermseg.apps.cli.compare", "Compare models on the same images, paired."),
    "measure": ("dermseg.apps.cli.measure", "Measure the lesions in masks."),
    "track": ("dermseg.apps.cli.track", "Follow lesions over time: change between photographs."),
    "data": ("dermseg.apps.cli.data", "Import, split, check, download and generate data."),
    "train": ("dermseg.apps.cli.train", "Train a network from a configuration file."),
    "suite": ("dermseg.apps.cli.suite", "Train and compare many models: fractions, folds, seeds."),
    "export": ("dermseg.apps.cli.export", "Turn a training run into a model bundle."),
    "uncertainty": ("dermseg.apps.cli.uncertainty", "Fit and measure what a model says of its own outlines."),
    "explain": ("dermseg.apps.cli.explain", "Show what an outline rests on: Grad-CAM."),
    "label": ("dermseg.apps.cli.label", "Propose outlines for people to correct; say what to label next."),
    "desktop": ("dermseg.apps.cli.desktop", "Draw and correct outlines in a window, with the model's help."),
    "dicom": ("dermseg.apps.cli.dicom", "DICOM: to PNG, de-identify, and segment beside a PACS."),
    "models": ("dermseg.apps.cli.models", "List, show and verify architectures and bundles."),
    "dashboard": ("dermseg.apps.cli.dashboard", "Outline lesions in a browser on this machine."),
    "serve": ("dermseg.apps.cli.serve", "Answer over HTTP: images in, masks out, batch jobs, audit log."),
    "audit": ("dermseg.apps.cli.audit", "Check and read the log of clinical results."),
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


def run_verb(verb: str, args: list[str]) -> None:
    """Import the module of a verb and call its ``app``; most of what it needs is imported in the call.

    Raises
    ------
    MissingExtraError
        The verb needs an extra that is not installed.
    """
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
        print_error(error)
        sys.exit(error.exit_code)
    except MemoryError:
        print_error(DermsegError("there is not enough memory", hint="end other programs, or give it more"))
        sys.exit(1)
    except BrokenPipeError:  # nobody reads it any more
        sys.exit(1)
    except OSError as error:
        if error.filename is None and _is_homeless():
            print_error(UsageError("the folder that you are in is gone", hint="cd to another one"))
            sys.exit(2)
        if error.filename is None and error.errno not in _FULL:  # no file that the user could mend
            raise
        print_error(DermsegError(error.strerror or str(error), file=error.filename))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:  # what compiled modules make of Ctrl-C while they are imported
        if not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        sys.exit(130)


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
    # Without a console (pythonw, a service) there are no streams; the work is to be done all the same.
    if sys.stdout is None or sys.stderr is None:
        nowhere = Path(os.devnull).open("w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    # A file name with characters that a redirected stdout cannot encode must not cost the whole table.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
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
