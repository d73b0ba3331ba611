"""A bundle on disk: written whole beside its place and moved in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dermseg.errors import UsageError
from dermseg.files import atomic_write
from dermseg.inference.card import CARD_NAME, Metric, ModelCard


def check_output(output: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that holds something else, and a bundle unless it may be replaced.

    Raises
    ------
    UsageError
        ``output`` exists and is not a bundle, or is one and ``overwrite`` is off.
    """
    if output.exists() and not (
        output.is_dir() and (not any(output.iterdir()) or (output / CARD_NAME).exists())
    ):
        raise UsageError("there is something that is not a bundle", file=output, hint="choose another -o")
    if (output / CARD_NAME).exists() and not overwrite:
        raise UsageError("there is a bundle already", file=output, hint="another -o, or --overwrite")


def write_bundle(output: Path, card: ModelCard, files: dict[str, bytes]) -> None:
    """Write a bundle folder beside its place and move it in, replacing an older one."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        (temporary / CARD_NAME).write_text(card.to_json(), encoding="utf-8")
        temporary.chmod(0o755)
        if output.exists():
            old = output.with_name(f".{output.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            output.replace(old)
            temporary.replace(output)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def add_metrics(output: Path, card: ModelCard, metrics: Sequence[Metric]) -> ModelCard:
    """The card with what the model reached, written back into its bundle."""
    updated = card.model_copy(update={"metrics": list(metrics)})
    atomic_write(output / CARD_NAME, updated.to_json().encode())
    return updated
