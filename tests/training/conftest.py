"""A tiny data set of dark discs on light skin, and a configuration that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml


def write_discs(folder: Path, n: int = 12, size: int = 48) -> Path:
    """Images, masks and an index (8 train, the rest val) below ``folder``; returns the index."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    lines = ["image_id,image,masks,dataset,subject,lesion,group,split,width,height,licence,sha256"]
    for i in range(n):
        rng = np.random.default_rng(i)
        image = np.full((size, size, 3), (150, 180, 215), np.uint8)
        mask = np.zeros((size, size), np.uint8)
        centre = tuple(int(v) for v in rng.integers(16, size - 16, 2))
        radius = int(rng.integers(8, 14))
        cv2.circle(mask, centre, radius, 255, -1)
        image[mask > 0] = (40, 60, 100)
        image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"images/{i:02d}.png"), image)
        cv2.imwrite(str(folder / f"masks/{i:02d}.png"), mask)
        split = "train" if i < 8 else "val"
        lines.append(
            f"{i:02d},images/{i:02d}.png,masks/{i:02d}.png,discs,,,{i},{split},{size},{size},CC0-1.0,{i:064x}"
        )
    index = folder / "index.csv"
    index.write_text("\n".join(lines) + "\n")
    return index


@pytest.fixture
def tiny_config(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Path of a YAML configuration, and its content."""
    index = str(write_discs(tmp_path / "discs"))
    content: dict[str, Any] = {
        "name": "tiny",
        "data": {
            "train": [{"index": index}],
            "val": [{"index": index, "split": "val"}],
            "cache_dir": str(tmp_path / "cache"),
            "cache_size": 48,
            "decode_workers": 2,
        },
        "model": {"architecture": "unet", "options": {"widths": [4, 8, 16]}},
        "training": {
            "epochs": 3,
            "phases": [{"epochs": 1, "image_size": 32}],
            "image_size": 48,
            "batch_size": 2,
            "lr": 0.01,
            "device": "cpu",
            "threads": 1,
            "checkpoint_every_steps": 2,
        },
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path, content
