"""`dermseg score` against `isic-challenge-scoring`, the official scorer of the ISIC challenges."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.evaluation.score import score_folders

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies' own
    pytest.importorskip("isic_challenge_scoring")
    from isic_challenge_scoring import task2
    from isic_challenge_scoring.segmentation import SegmentationScore
    from isic_challenge_scoring.types import ScoreError

Folders = tuple[Path, Path]
OFFICIAL = ("accuracy", "sensitivity", "specificity", "jaccard", "threshold_jaccard", "dice")


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), min(height, width) / 8)
    return (noise > np.quantile(noise, rng.uniform(0.3, 0.95))).astype(np.uint8) * 255


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Thirty random pairs from poor to perfect, and every odd one: empty, full, one pixel, soft, 1 bit."""
    rng = np.random.default_rng(7)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(30):
        height, width = (int(side) for side in rng.integers(20, 90, 2))
        reference = blob(rng, height, width)
        flips = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 2)
        prediction = np.where(flips > np.quantile(flips, rng.uniform(0.5, 1)), 255 - reference, reference)
        pairs.append((prediction.astype(np.uint8), reference))
    lesion, empty, full = blob(rng, 40, 50), np.zeros((40, 50), np.uint8), np.full((40, 50), 255, np.uint8)
    one = empty.copy()
    one[3, 4] = 255
    soft = rng.integers(0, 256, (40, 50), dtype=np.uint8)
    odd = (empty, full, one, lesion, soft)
    pairs += [(a, b) for a in odd for b in (empty, full, one, lesion)]
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    predictions.mkdir()
    references.mkdir()
    for i, (prediction, reference) in enumerate(pairs):
        bilevel = (
            [cv2.IMWRITE_PNG_BILEVEL, 1] if i % 5 == 0 and set(np.unique(prediction)) <= {0, 255} else []
        )
        assert cv2.imwrite(str(predictions / f"ISIC_{i:07}.png"), prediction, bilevel)
        assert cv2.imwrite(str(references / f"ISIC_{i:07}_segmentation.png"), reference)
    return predictions, references


def official(predictions: Path, references: Path) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was written for an older pandas
        score = SegmentationScore.from_dir(references, predictions)
    return {name: float(score.macro_average[name]) for name in OFFICIAL}


def ours(predictions: Path, references: Path) -> dict[str, float]:
    evaluation = score_folders(predictions, references)
    assert not evaluation.failures
    return {name: evaluation.mean(name).mean for name in OFFICIAL}


def test_six_metrics_agree(folders: Folders) -> None:
    assert ours(*folders) == pytest.approx(official(*folders), abs=1e-12, rel=0)


def test_each_image_agrees(folders: Folders, tmp_path: Path) -> None:
    """One by one, so that no two differences can cancel in the mean."""
    predictions, references = folders
    for reference in sorted(references.iterdir()):
        prediction = predictions / reference.name.replace("_segmentation", "")
        single = tmp_path / reference.stem
        for name, file in (("p", prediction), ("r", reference)):
            (single / name).mkdir(parents=True)
            (single / name / file.name).write_bytes(file.read_bytes())
        expected = official(single / "p", single / "r")
        assert ours(single / "p", single / "r") == pytest.approx(expected, abs=1e-12, rel=0), reference.name


def test_the_command_agrees_on_zips(folders: Folders, tmp_path: Path) -> None:
    zips = []
    for folder in folders:
        zips.append(tmp_path / f"{folder.name}.zip")
        with zipfile.ZipFile(zips[-1], "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"{folder.name}/{file.name}")
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "score", *map(str, zips), "--json"]
    printed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    expected = official(*folders)
    assert {name: printed[name]["mean"] for name in OFFICIAL} == pytest.approx(expected, abs=1e-12, rel=0)


def test_both_refuse_a_missing_prediction_and_another_size(folders: Folders) -> None:
    predictions, references = folders
    assert cv2.imwrite(str(predictions / "ISIC_0000003.png"), np.zeros((7, 7), np.uint8))
    with pytest.raises(ScoreError, match="dimensions"):
        official(predictions, references)
    failures = score_folders(predictions, references).failures
    assert [failure.image_id for failure in failures] == ["ISIC_0000003"]
    (predictions / "ISIC_0000003.png").unlink()
    with pytest.raises(ScoreError, match="No matching submission"):
        official(predictions, references)
    with pytest.raises(Exception, match="have no prediction: ISIC_0000003"):
        score_folders(predictions, references)


def test_attributes_agree(tmp_path: Path) -> None:
    """ISIC 2018 Task 2: one figure over the pixels of all images and attributes, some of which are rare."""
    torch = pytest.importorskip("torch")
    from dermseg.data.cache import Cache
    from dermseg.training.validation import Validation

    rng = np.random.default_rng(1)
    found, reference = (rng.random((2, 6, 16, 16, 3)) < (0.5, 0.2, 0.02)).astype(np.uint8) * 255
    for name, masks in (("p", found), ("r", reference)):
        (tmp_path / name).mkdir()
        for i, attribute in np.ndindex(6, 3):
            file = f"ISIC_{i:07}_attribute_{('globules', 'streaks', 'network')[attribute]}.png"
            assert cv2.imwrite(str(tmp_path / name / file), masks[i, ..., attribute])
    expected = task2.score(tmp_path / "r", tmp_path / "p")["overall"]
    cache = Cache(found, reference, tuple("abcdef"))  # the image is the prediction
    validation = Validation("micro_jaccard", lambda x: x.float() - 128, softmax=False)
    assert validation.scores(torch.nn.Identity(), cache, 16)[0] == pytest.approx(expected, abs=1e-12)
