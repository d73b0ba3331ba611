"""A researcher evaluates a model on a split and gets figures, a table and a picture.

The model is a real bundle whose network is one convolution: dark is lesion.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

CONTRAST = -20.0  # logit per unit of brightness


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("bundle")
    weights = numpy_helper.from_array(np.full((1, 3, 1, 1), CONTRAST / 3, np.float32), "w")
    bias = numpy_helper.from_array(np.array([-CONTRAST / 2], np.float32), "b")
    sides = ["n", 3, "h", "w_"], ["n", 1, "h", "w_"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w", "b"], ["logits"])],
        "dark",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, sides[0])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, sides[1])],
        [weights, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    card = {
        "schema_version": 1,
        "name": "dark",
        "version": "1",
        "created": "2026-01-01",
        "architecture": "convolution",
        "parameters": 4,
        "licence": "CC0-1.0",
        "preprocessing": {"height": 128, "width": 128, "mean": [0, 0, 0], "std": [1, 1, 1]},
        "variants": {"fp32": {"file": "model.onnx", "sha256": sha256, "bytes": len(data)}},
        "default_variant": "fp32",
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Six dark ellipses on light skin; 3 has a second, larger reference, 4 a reference of another size."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["image_id,image,masks,dataset,subject,lesion,group,split,width,height,licence,sha256"]
    for i in range(6):
        mask = np.zeros((150, 200), np.uint8)
        cv2.ellipse(mask, (100, 75), (30 + 8 * i, 20 + 6 * i), 15 * i, 0, 360, 255, -1)
        image = np.where(mask[..., None] > 0, (60, 70, 110), (170, 190, 220)).astype(np.uint8)
        masks = f"{i}_m.png"
        if i == 3:
            larger = cv2.dilate(mask, np.ones((25, 25), np.uint8))
            assert cv2.imwrite(str(folder / "3_n.png"), larger)
            masks += ";3_n.png"
        if i == 4:
            mask = mask[:100]
        assert cv2.imwrite(str(folder / f"{i}.png"), image)
        assert cv2.imwrite(str(folder / f"{i}_m.png"), mask)
        lines.append(
            f"img{i},{i}.png,{masks},ellipses,,,g{i},{'train' if i == 5 else 'test'},200,150,CC0-1.0,"
        )
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder / "index.csv"


def evaluate(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "evaluate", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_figures_table_picture_and_log(bundle: Path, index: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log.csv"
    words = ("--data", index, "--model", bundle, "--json", "--log-test", log)
    done = evaluate(*words, "-o", out)
    assert done.returncode == 1, done.stderr  # img4 could not be scored
    printed = json.loads(done.stdout)
    assert printed["n"] == 4
    assert printed["dice"]["mean"] > 0.95
    assert printed["dice"]["ci95"][0] < printed["dice"]["mean"] < printed["dice"]["ci95"][1]
    assert printed["failed_below_065"] == 0.0
    (failure,) = printed["failures"]
    assert failure["image_id"] == "img4"
    assert "the mask has 200 x 100 pixels, its image 200 x 150" in failure["reason"]
    sha256 = json.loads((bundle / "card.json").read_text())["variants"]["fp32"]["sha256"]
    assert (printed["model"]["name"], printed["model"]["sha256"]) == ("dark", sha256)
    expected = "4 images of ellipses, split test, first mask of each, at the mask's own size, threshold 0.5"
    assert printed["protocol"]["text"].startswith(expected)

    rows = table(out / "per_image.csv")
    assert [row["image_id"] for row in rows] == ["img0", "img1", "img2", "img3", "img4"]
    first = rows[0]
    assert sum(int(first[name]) for name in ("tp", "fp", "fn", "tn")) == 150 * 200
    assert (first["dataset"], first["group"], first["found"]) == ("ellipses", "g0", "ok")
    assert 0 < float(first["confidence"]) <= 1
    assert json.loads((out / "metrics.json").read_text()) == printed
    assert cv2.imread(str(out / "examples.png")) is not None

    log.write_text(log.read_text().rstrip("\n"))  # as an editor may leave it
    (out / "robustness.csv").write_text("of another model\n")
    assert evaluate(*words, "-o", out, "--overwrite").returncode == 1
    assert not (out / "robustness.csv").exists()
    logged = table(log)
    assert len(logged) == 2
    assert (logged[0]["n"], logged[0]["split"], logged[0]["model_sha256"]) == ("4", "test", sha256)
    assert logged[0]["index"] == "data/index.csv"
    assert str(tmp_path) not in log.read_text()


@pytest.mark.skipif(os.name == "nt", reason="no limits on files there")
def test_a_disk_without_room_for_pictures_keeps_the_table(bundle: Path, index: Path, tmp_path: Path) -> None:
    """The work of hours is in it; 'compare' reads it. There is no summary: the folder is not complete."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
    program = f"{limited} from dermseg.apps.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "evaluate", "--data", index, "--model", bundle]
    done = subprocess.run(
        [*command, "-o", tmp_path / "out"], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 1 and "examples.png: cannot be written" in done.stderr, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["per_image.csv"]
    assert len(table(tmp_path / "out/per_image.csv")) == 5


def test_all_references_count_an_image_once(bundle: Path, index: Path, tmp_path: Path) -> None:
    done = evaluate("--data", index, "--model", bundle, "--reference", "all", "--json", "-o", tmp_path / "o")
    printed = json.loads(done.stdout)
    rows = table(tmp_path / "o" / "per_image.csv")
    both = [float(row["dice"]) for row in rows if row["image_id"] == "img3"]
    assert (printed["n"], len(both)) == (4, 2)
    assert both[1] < both[0]
    others = sum(float(row["dice"]) for row in rows if row["image_id"] in ("img0", "img1", "img2"))
    assert printed["dice"]["mean"] == pytest.approx((others + sum(both) / 2) / 4)


def test_threshold_moves_the_boundary(bundle: Path, index: Path) -> None:
    def sensitivity(threshold: str) -> float:
        words = ("--data", index, "--model", bundle, "--threshold", threshold, "--json")
        return float(json.loads(evaluate(*words).stdout)["sensitivity"]["mean"])

    assert sensitivity("0.01") > sensitivity("0.99")


def test_wrong_use_says_what_to_do(bundle: Path, index: Path, tmp_path: Path) -> None:
    unknown = evaluate("--data", index, "--model", bundle, "--split", "tset")
    assert (unknown.returncode, "splits in this index: test, train" in unknown.stderr) == (2, True)
    missing = evaluate("--data", tmp_path / "none.csv", "--model", bundle)
    assert (missing.returncode, "dermseg data import" in missing.stderr) == (2, True)
    foreign = tmp_path / "other.csv"
    foreign.write_text("a,b\n")
    refused = evaluate("--data", index, "--model", bundle, "--log-test", foreign)
    assert (refused.returncode, "not a log" in refused.stderr) == (2, True)
    assert foreign.read_text() == "a,b\n"


def test_a_runtime_can_be_chosen_and_is_said(index: Path) -> None:
    done = evaluate("--data", index, "--runtime", "torch", "--json")
    found = json.loads(done.stdout)
    assert found["model"]["runtime"] == "torch" and ", torch, means" in found["protocol"]["text"]
    usual = json.loads(evaluate("--data", index, "--json").stdout)
    assert usual["model"]["runtime"] == "onnxruntime" and "onnxruntime" not in usual["protocol"]["text"]
    assert found["dice"]["mean"] == pytest.approx(usual["dice"]["mean"], abs=1e-3)
    refused = evaluate("--data", index, "--runtime", "abacus")
    assert refused.returncode == 2 and "openvino" in refused.stderr


def test_a_variant_can_be_chosen(index: Path) -> None:
    done = evaluate("--data", index, "--variant", "int8", "--json")
    assert json.loads(done.stdout)["model"]["variant"] == "int8"
    done = evaluate("--data", index, "--variant", "int7")
    assert done.returncode != 0
    assert "int7" in done.stderr and "int8" in done.stderr  # what there is
