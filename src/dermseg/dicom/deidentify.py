"""Files in, files without identity out: DICOM photographs and ordinary images, with a report.

The report names attributes and never values, so it can go with the data. Who became whom is written to a file
of its own, and only on demand.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dermseg.dicom.burned_in import find_text
from dermseg.dicom.clean import clean
from dermseg.dicom.identity import unquoted
from dermseg.dicom.profile import OPTIONS
from dermseg.dicom.pseudonyms import Pseudonyms
from dermseg.dicom.strip import strip_jpeg, strip_png
from dermseg.dicom.write import to_bytes
from dermseg.errors import DermsegError, ImageError, UsageError
from dermseg.files import atomic_write, check_writable, write_json
from dermseg.images.dicom import SEGMENTATIONS, read_dataset
from dermseg.images.headers import sniff
from dermseg.images.load import load_image
from dermseg.images.overlay import encode_png
from dermseg.images.probe import probe
from dermseg.images.sources import ImageSource
from dermseg.version import __version__

REPORT = "deidentification.json"
_SUFFIX = {"JPEG": ".jpg", "PNG": ".png"}


@dataclass(frozen=True)
class Outcome:
    """One file: its new name, what was done to it, what to look at; or why it was left out.

    ``number`` is its place among the inputs: an old name may be a person's, so it does not stand here.
    """

    number: int
    file: str | None
    kind: str
    done: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """All outcomes, and old names and patients beside new ones (``mapping`` is secret).

    ``interrupted``: by Ctrl-C, so that there are more files than outcomes.
    """

    outcomes: list[Outcome]
    mapping: list[tuple[str, str, str, str]]
    interrupted: bool = False

    @property
    def failed(self) -> int:
        """How many files were left out."""
        return sum(outcome.error is not None for outcome in self.outcomes)


def deidentify(
    sources: Sequence[ImageSource],
    out: Path,
    pseudonyms: Pseudonyms,
    retain: frozenset[str] = frozenset(),
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Write every source without its identity into the folder `out`, and ``deidentification.json``.

    DICOM files become ``<patient>/<SOP Instance UID>.dcm`` with new values for both, JPEG and PNG files
    ``images/<16 digits>.jpg`` with the same pixels, other images the same as PNG. Nothing is overwritten: of
    files that would get one name, exact copies are written once, and others are left out. After Ctrl-C the
    report is of what was written until then.

    Parameters
    ----------
    progress
        Called with the number of files done since the last call.

    Raises
    ------
    UsageError
        `out` is there and not empty, or cannot be written.
    """
    check_writable(out)
    if out.exists() and any(out.iterdir()):
        raise UsageError("the output folder is not empty", file=out, hint="choose a new one with -o")
    outcomes: list[Outcome] = []
    mapping: list[tuple[str, str, str, str]] = []
    interrupted = False
    for number, source in enumerate(sources, start=1):
        try:
            outcome, line = _one(number, source, out, pseudonyms, retain)
            mapping.append(line)
        except KeyboardInterrupt:
            interrupted = True
            break
        except DermsegError as error:
            outcome = Outcome(number, None, "", error=unquoted(error.reason))
        except Exception as error:  # a damaged file must not end the run, nor its values reach the report
            outcome = Outcome(number, None, "", error=f"cannot be cleaned ({type(error).__name__})")
        outcomes.append(outcome)
        progress(1)
    run = Run(outcomes, mapping, interrupted)
    _write_report(run, out / REPORT, pseudonyms, retain)
    return run


def _one(
    number: int, source: ImageSource, out: Path, pseudonyms: Pseudonyms, retain: frozenset[str]
) -> tuple[Outcome, tuple[str, str, str, str]]:
    data = source.read_bytes()
    old = patient = ""
    if sniff(data[:132]) == "DICOM":
        kind, dataset = "DICOM", read_dataset(data)
        old = str(dataset.get("PatientID") or "")
        outline = dataset.get("SOPClassUID") in SEGMENTATIONS  # no photograph in it, so no text to look for
        warnings = [] if outline else _warnings(dataset)
        done = asdict(clean(dataset, pseudonyms, retain))
        patient = str(dataset.get("PatientID") or "") or "unknown"
        name = f"{patient}/{dataset.SOPInstanceUID}.dcm"
        cleaned = to_bytes(dataset)
        warnings += [] if outline else _text_warning(cleaned)
    else:
        kind, cleaned, parts = _picture(data)
        name = f"images/{pseudonyms.file_name(data)}{_SUFFIX.get(kind, '.png')}"
        done = {"metadata_parts_removed": parts} if parts is not None else {"written_anew_as": "PNG"}
        warnings = _text_warning(cleaned)
    warnings += _write(out / name, cleaned)
    return Outcome(number, name, kind, done, tuple(warnings)), (source.label, name, old, patient)


def _write(path: Path, data: bytes) -> list[str]:
    """Write a cleaned file; a warning where it was there already.

    Raises
    ------
    ImageError
        Another file with the same new name, and so the same SOP Instance UID, was there.
    """
    if not path.exists():
        atomic_write(path, data)
        return []
    if path.read_bytes() == data:
        return ["a copy of an earlier input: written once"]
    raise ImageError("an earlier input has the same SOP Instance UID and other content: left out")


def _picture(data: bytes) -> tuple[str, bytes, int | None]:
    """An ordinary image without metadata: pixels as they were coded, or written anew as PNG."""
    header = probe(data)
    if header.format == "JPEG":
        return "JPEG", *strip_jpeg(data, orientation=header.orientation)
    if header.format == "PNG" and header.orientation == 1 and header.frames == 1:
        return "PNG", *strip_png(data)
    pixels = load_image(data).pixels
    return header.format, encode_png(pixels), None


def _warnings(dataset: Any) -> list[str]:
    found = []
    burned_in = str(dataset.get("BurnedInAnnotation") or "")
    if burned_in == "YES":
        found.append("the file says that identity is burned into its pixels")
    elif burned_in != "NO":
        found.append("the file does not say whether identity is burned into its pixels")
    if str(dataset.get("RecognizableVisualFeatures") or "") == "YES":
        found.append("the file says that the person can be recognised")
    return found


def _text_warning(cleaned: bytes) -> list[str]:
    # What cannot be decoded cannot be searched: left out.
    lines = find_text(load_image(cleaned, allow_drawn_on=True).pixels)
    where = ", ".join(f"x {x}, y {y}, {width} x {height}" for x, y, width, height in lines[:3])
    return [f"looks like text in the picture at {where}"] if lines else []


def _write_report(run: Run, path: Path, pseudonyms: Pseudonyms, retain: frozenset[str]) -> None:
    report = {
        "schema_version": 1,
        "dermseg": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "profile": "DICOM PS3.15 2026c, Basic Application Level Confidentiality Profile",
        "options": [OPTIONS[option][1] for option in sorted(retain)],
        "key": pseudonyms.fingerprint,
        "files": len(run.outcomes),
        "left_out": run.failed,
        "interrupted": run.interrupted,
        "with_warnings": sum(bool(outcome.warnings) for outcome in run.outcomes),
        "outcomes": [asdict(outcome) for outcome in run.outcomes],
    }
    write_json(path, report)


def write_mapping(run: Run, path: Path) -> None:
    """Write who became whom, readable by its owner alone.

    Raises
    ------
    UsageError
        The file is there already.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "new_file", "patient_id", "new_patient_id"))
    writer.writerows(run.mapping)
    # Names that are not UTF-8 are no reason to lose who became whom.
    with os.fdopen(_open_new(path), "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text.getvalue())


def check_mapping(path: Path) -> None:
    """See, before any work, that `write_mapping` will be able to write.

    Raises
    ------
    UsageError
        The file is there already or cannot be written.
    """
    os.close(_open_new(path))
    path.unlink()


def _open_new(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError("is there already", file=path, hint="choose another name for the mapping") from None
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", file=path) from None
