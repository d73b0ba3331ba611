"""Where and in which precision a run computes."""

from __future__ import annotations

import torch

from dermseg.errors import UsageError


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """``auto`` takes CUDA when there is one; the ranks on one machine take its GPUs in turn.

    Raises
    ------
    UsageError
        A GPU is asked for and absent, or the name is no device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"training.device is '{name}'", hint="use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"training.device is '{name}' and no GPU is available", hint="training.device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UsageError(
            f"training.device is '{name}' and the last GPU is cuda:{last}",
            hint=f"training.device=cuda:{last}",
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"training.device is '{name}'", hint="use auto, cpu, cuda or cuda:1")
    return device


def pick_autocast(name: str, device: torch.device) -> torch.dtype | None:
    """``auto`` is bf16 where the hardware multiplies it faster than fp32 (GPU, AMX), else off."""
    if name == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def lacks_memory(error: RuntimeError) -> bool:
    """Whether torch had no room; only the allocator of a GPU has an error of its own for that."""
    words = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")
    return any(word in str(error) for word in words)
