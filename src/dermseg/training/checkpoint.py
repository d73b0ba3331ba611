"""Checkpoints: whole or not at all, and without pickle on the way in.

``last.pt`` holds everything that an exact continuation needs and is read with ``weights_only=True``;
``best.safetensors`` holds the weights of the best validation, ``start.safetensors`` those that a run began
with where they came from a bundle.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from dermseg.errors import ModelError, TrainingError
from dermseg.files import atomic_write
from dermseg.training.config import RunConfig

CONFIG, LAST, BEST = "config.yaml", "last.pt", "best.safetensors"
START = "start.safetensors"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a run under a temporary name and move it into place."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a run.

    Raises
    ------
    TrainingError
        The file is missing or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError("the checkpoint is gone", file=path) from None
    except Exception as error:
        raise TrainingError(  # torch's own words are advice to programmers, and bad advice here
            f"the checkpoint is damaged: torch cannot read its {path.stat().st_size:,} bytes "
            f"({type(error).__name__})",
            file=path,
            hint="copy it back (from --mirror), or begin a new run with the best weights so far: "
            f"dermseg train --from {path.parent} -o ANOTHER",
        ) from None
    return state


def best_image_size(run: Path, config: RunConfig) -> int:
    """The size that the run asks for, else that at which its best weights were validated.

    Raises
    ------
    TrainingError
        The run has phases of other sizes, and its checkpoint, which says in which it was best, is gone.
    """
    t = config.training
    if t.inference_size:
        return t.inference_size
    sizes = sorted({t.at_epoch(epoch)[0] for epoch in range(t.epochs)})
    if len(sizes) == 1:
        return sizes[0]
    try:
        progress: dict[str, Any] = json.loads(load_state(run / LAST)["progress"])
    except TrainingError as error:
        raise TrainingError(
            f"the image size at which the run was best is not known: {error.message}",
            file=error.file,
            hint=f"copy it back (from --mirror), or say training.inference_size in {CONFIG}, one of "
            + ", ".join(map(str, sizes)),
        ) from None
    return t.at_epoch(progress["best_epoch"])[0]


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights of a network as safetensors."""
    # copies: safetensors refuses memory that two names share, as where a network holds a layer twice
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    atomic_write(path, save_tensors(tensors))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file (of a run folder, its best).

    Raises
    ------
    ModelError
        The file is missing or damaged.
    """
    if path.is_dir():
        path = path / BEST
    try:
        tensors: dict[str, Tensor] = load_tensors(path.read_bytes())
    except OSError as error:
        hint = None
        if path.name == BEST and (path.parent / CONFIG).exists():
            hint = f"a run has it after its first validation: dermseg train --resume {path.parent} goes on"
        raise ModelError(f"weights cannot be read: {error.strerror}", file=path, hint=hint) from None
    except Exception as error:
        raise ModelError(f"is no safetensors file: {str(error).splitlines()[0]}", file=path) from None
    return tensors


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill ``model`` from a safetensors file.

    Raises
    ------
    ModelError
        The file is missing, damaged, or of another network.
    """
    tensors = read_weights(path)
    try:
        model.load_state_dict(tensors)
    except Exception as error:
        raise ModelError(f"weights do not fit: {str(error).splitlines()[0]}", file=path) from None
