"""What two runs must have in common to be one run: the first line of a batch's journal."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermseg.images.sources import ImageSource
from dermseg.inference.outputs import LAYOUT

_FORMAT = 1
_MODEL = frozenset(["name", "version", "variant", "sha256", "card_sha256"])


@dataclass(frozen=True, slots=True)
class Header:
    """Version, model, options and inputs of a run."""

    version: str
    model: dict[str, Any]
    options: dict[str, Any]
    inputs: list[list[Any]]  # [name, bytes, modification time in ns] in input order

    def to_line(self) -> bytes:
        """The first line of the journal."""
        data = {
            "dermseg_journal": _FORMAT,
            "version": self.version,
            "model": self.model,
            "options": self.options,
            "inputs": self.inputs,
        }
        return json.dumps(data, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Header:
        """The reverse of `to_line`; ValueError where the line is not a header of this format.

        The folder may come from a stranger, and what a run wrote is removed by the names in it: they must not
        lead anywhere else.
        """
        data = json.loads(line)
        if not isinstance(data, dict) or data.get("dermseg_journal") != _FORMAT:
            raise ValueError("not a journal")
        try:
            version, model, options = str(data["version"]), dict(data["model"]), dict(data["options"])
            inputs = [[str(name), *stamp] for name, *stamp in data["inputs"]]
            kinds = {options["lesions"], *options["save"]}
        except (KeyError, TypeError, ValueError):
            raise ValueError("its first line is damaged") from None
        if not kinds <= {"largest", "all", *LAYOUT} or not model.keys() >= _MODEL:
            raise ValueError("its first line is damaged")
        for name, *_ in inputs:
            if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
                raise ValueError(f"'{name}' is no name that a run gives")
        return cls(version, model, options, inputs)

    def gone_or_changed(self, now: Header) -> set[str]:
        """Inputs that are no more, or that have other bytes now, or another time."""
        after = {name: stamp for name, *stamp in now.inputs}
        return {name for name, *stamp in self.inputs if after.get(name) != stamp}

    def differences(
        self, now: Header, undone: Collection[str] = (), added: Collection[str] = ()
    ) -> list[str]:
        """What keeps `now` from going on where this run stopped, in plain words; empty if nothing.

        Parameters
        ----------
        undone
            Inputs that may have changed or be gone: they are not done yet.
        added
            Inputs that may be new: those of before keep the files that they were given.
        """
        found = []
        if self.version != now.version:
            found.append(f"dermseg was {self.version}, is {now.version}")
        if self.model != now.model:
            was, new = (_name_of(m) for m in (self.model, now.model))
            found.append(f"the model was {was}, is {new}")
        found += [
            f"{key} was {_plain(self.options.get(key))}, is {_plain(now.options.get(key))}"
            for key in sorted(self.options.keys() | now.options.keys())
            if self.options.get(key) != now.options.get(key)
        ]
        before, after = ({name: None for name, *_ in header.inputs} for header in (self, now))
        apart = self.gone_or_changed(now) - set(undone)
        for label, names in (
            ("new", [name for name in after if name not in before and name not in added]),
            ("missing", [name for name in before if name in apart and name not in after]),
            ("changed", [name for name in after if name in apart]),
        ):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                found.append(f"{len(names)} {label} input{'s' if len(names) > 1 else ''} ({shown})")
        return found


def _name_of(model: dict[str, Any]) -> str:
    hashes = f"{model['sha256'][:12]}, card {model['card_sha256'][:12]}"
    return f"{model['name']} {model['version']} {model['variant']} on {model.get('runtime')} ({hashes})"


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def stamp_inputs(sources: Sequence[ImageSource]) -> list[list[Any]]:
    """Name, size and modification time of each input; a member of a zip has those of the zip.

    Content hashes would be safer and cost a second reading of everything at each resume.
    """
    seen: dict[Path, list[int]] = {}
    for source in sources:
        if source.path not in seen:
            try:
                info = source.path.stat()
                seen[source.path] = [info.st_size, info.st_mtime_ns]
            except OSError:  # gone since it was listed: the batch says so in its row
                seen[source.path] = [-1, -1]
    return [[source.name, *seen[source.path]] for source in sources]
