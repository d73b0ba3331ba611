"""LabelMe itself, in an environment of its own, reads what is written here; what it saves is read here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dermseg.apps.cli.main import main
from dermseg.data.labelme import Annotation, draw_labels, mask_to_shapes, read_labelme, write_labelme
from dermseg.data.proposals import is_proposal
from dermseg.data.synthetic import synthesize
from dermseg.inference.predictor import load_model

LABELME = "labelme>=6,<7"  # 7 needs Python 3.12
# Reads each file with LabelMe's loader, draws its shapes with LabelMe's own function, saves it again.
SCRIPT = """
import sys
from pathlib import Path
import labelme, numpy as np
for file in sorted(Path(sys.argv[1]).glob("*.json")):
    read = labelme.LabelFile(str(file))
    size = labelme.utils.img_data_to_arr(read.image_data).shape[:2]
    drawn = np.zeros(size, bool)
    saved = []
    for shape in read.shapes:
        if shape["shape_type"] == "mask":
            (x, y), (right, bottom) = np.array(shape["points"]).astype(int)
            drawn[y : bottom + 1, x : right + 1] |= shape["mask"]
        else:
            drawn |= labelme.utils.shape_to_mask(size, shape["points"], shape["shape_type"])
        mask = shape["mask"]
        text = None if mask is None else labelme.utils.img_arr_to_b64(mask.astype(np.uint8))
        saved.append({**shape, **shape["other_data"], "mask": text})
        del saved[-1]["other_data"]
    np.save(file.with_suffix(".npy"), drawn)
    read.save(
        str(file.with_suffix(".saved")), saved, read.image_path, *size, other_data=read.other_data,
        flags=read.flags,
    )
"""


@pytest.fixture(scope="module")
def labelme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has LabelMe; DERMSEG_LABELME names one that is there."""
    if os.environ.get("DERMSEG_LABELME"):
        return Path(os.environ["DERMSEG_LABELME"])
    folder = tmp_path_factory.mktemp("labelme")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", LABELME], capture_output=True, text=True, check=False
    )
    if done.returncode:
        shutil.rmtree(folder)
        pytest.fail(f"{LABELME} cannot be installed: {done.stderr.strip()}")
    return python


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_labelme_reads_draws_and_saves_what_is_written_here(labelme: Path, tmp_path: Path) -> None:
    masks = {}
    for seed in range(8):
        image, mask, _ = synthesize(seed, (360, 480))
        Image.fromarray(image).save(tmp_path / f"drawn-{seed}.png")
        if seed == 7:  # one with holes, which goes into a file as a mask
            mask[cv2.circle(np.zeros((360, 480), np.uint8), (240, 180), 9, 1, -1) > 0] = False
        masks[f"drawn-{seed}"] = mask
        annotation = Annotation(f"drawn-{seed}.png", 480, 360, tuple(mask_to_shapes(mask, "lesion")))
        (tmp_path / f"drawn-{seed}.json").write_bytes(write_labelme(annotation))
    # as the model proposes them; the second lies on its side, which only its EXIF tag says
    image, _, _ = synthesize(20, (360, 480))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "upright.jpg")
    Image.fromarray(image).save(tmp_path / "turned.jpg", exif=exif)
    with pytest.raises(SystemExit) as end:
        main(["label", "propose", str(tmp_path / "upright.jpg"), str(tmp_path / "turned.jpg")])
    assert not end.value.code
    for name in ("upright", "turned"):
        masks[name] = load_model().segment(tmp_path / f"{name}.jpg").mask
    assert masks["turned"].shape == (480, 360)

    script = tmp_path / "read.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [labelme, script, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    )
    assert done.returncode == 0, done.stderr
    for name, mask in masks.items():
        drawn = np.load(tmp_path / f"{name}.npy")
        assert _dice(drawn, mask) >= 0.995, name
        written = read_labelme((tmp_path / f"{name}.json").read_bytes())
        saved = read_labelme((tmp_path / f"{name}.saved").read_bytes())
        assert np.array_equal(draw_labels(written, ["lesion"]), drawn), name
        assert np.array_equal(draw_labels(saved, ["lesion"]), drawn), name
        assert saved.extra.get("dermseg") == written.extra.get("dermseg")
        assert saved.extra.get("flags") == written.extra.get("flags", {})
        assert is_proposal(saved) == is_proposal(written) == (name in ("upright", "turned")), (
            "nothing was moved"
        )
        moved = replace(saved.shapes[0], points=saved.shapes[0].points + 1)
        assert not is_proposal(replace(saved, shapes=(moved, *saved.shapes[1:]))), (
            "though LabelMe keeps the flag"
        )
