"""Which runtime and variant are taken, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.main import main
from dermseg.errors import ModelError, UsageError
from dermseg.inference import runtimes
from dermseg.inference.bundle import Bundle, load_bundle
from dermseg.inference.card import StoredFile
from dermseg.inference.folder import earlier_runtime
from dermseg.inference.predictor import load_model
from dermseg.inference.runtimes import (
    FEW_IMAGES,
    choose_runtime,
    known_choice,
    obstacles,
    open_session,
    select_variant,
)
from dermseg.inference.session import resolve_threads
from dermseg.inference.threads import MOST_THREADS, available_cpus

needs_openvino = pytest.mark.skipif(
    bool(obstacles()["openvino"]), reason="dermseg[openvino] is not installed"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERMSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runtimes.json"


@pytest.fixture
def several(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """A bundle that lists an OpenVINO IR and a graph from pixels to masks besides its ONNX file."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "several"))
    card = load_bundle(folder).card
    plain = card.variants["fp32"]
    stored = StoredFile(file="model.bin", sha256=plain.sha256, bytes=plain.bytes)
    variants = {
        "fp32": plain,
        "ir": plain.model_copy(update={"file": "model.xml", "format": "openvino", "weights": stored}),
        "whole": plain.model_copy(update={"file": "whole.onnx", "interface": "mask"}),
    }
    return Bundle(folder, card.model_copy(update={"variants": variants}))


def test_the_variant_follows_the_runtime_unless_one_is_named(several: Bundle) -> None:
    assert select_variant(several, None, None) == "fp32"
    assert select_variant(several, None, "openvino") == "ir"
    assert select_variant(several, "fp32", "openvino") == "fp32"
    with pytest.raises(ModelError, match="for use by other programs"):
        select_variant(several, "whole", None)
    with pytest.raises(ModelError, match="no variant 'int4'"):
        select_variant(several, "int4", None)


def test_a_runtime_that_cannot_read_a_format_is_refused(several: Bundle) -> None:
    for runtime in ("onnxruntime", "cuda", "torch"):
        with pytest.raises(UsageError, match="OpenVINO's format"):
            open_session(several, "ir", runtime)
    with pytest.raises(UsageError, match="unknown runtime 'onnx'"):
        load_model(several.path, runtime="onnx")


@pytest.mark.skipif(obstacles()["cuda"] is None, reason="there is CUDA here")
def test_cuda_is_never_replaced_in_silence(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="CUDA") as refused:
        load_model(tiny_bundle, runtime="cuda")
    assert "onnxruntime-gpu" in str(refused.value.hint)


def test_few_images_are_not_worth_a_start(several: Bundle, cache: Path) -> None:
    assert choose_runtime(several, None, FEW_IMAGES - 1) == "onnxruntime"
    assert choose_runtime(several, "ir", 1) == "openvino"
    assert not cache.exists()


@needs_openvino
def test_many_images_get_what_was_measured_once(tiny_bundle: Path, cache: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert known_choice(bundle) is None
    first = choose_runtime(bundle, None, FEW_IMAGES)
    known = known_choice(bundle)
    assert known is not None
    assert known["runtime"] == first
    times = known["milliseconds"]
    assert {"onnxruntime", "openvino"} <= set(times)
    best = min(times, key=times.__getitem__)
    assert first in (best, "onnxruntime")
    kept = json.loads(cache.read_text())
    (key,) = kept
    kept[key]["runtime"] = "openvino" if first == "onnxruntime" else "onnxruntime"
    cache.write_text(json.dumps(kept))
    assert choose_runtime(bundle, None, None) == kept[key]["runtime"]  # kept, not measured again
    # the last: kept on a machine with a GPU that shares the home
    for damaged in (
        "{",
        "[]",
        json.dumps({key: {"runtime": "rm -rf"}}),
        json.dumps({key: {"runtime": "cuda"}}),
    ):
        cache.write_text(damaged)
        assert choose_runtime(bundle) in ("onnxruntime", "openvino")


def test_a_home_is_shared_with_machines_that_have_no_gpu(
    tiny_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime with CUDA is installed on all of them; before, ``auto`` then took what could not start."""
    bundle, devices = load_bundle(tiny_bundle), 1
    monkeypatch.setattr(runtimes, "_has_cuda", lambda: True)
    monkeypatch.setattr(runtimes, "cuda_devices", lambda: devices)
    monkeypatch.setattr(runtimes, "openvino_installed", lambda: False)
    monkeypatch.setattr(runtimes, "probe", lambda bundle, variant, candidates: {"runtime": candidates[-1]})
    assert choose_runtime(bundle) == "cuda"
    devices = 0
    assert obstacles()["cuda"] is not None
    assert choose_runtime(bundle) == "onnxruntime"
    devices = 1
    assert choose_runtime(bundle) == "cuda"
    assert len(json.loads(cache.read_text())) == 1  # what was measured with the device stays


@needs_openvino
def test_a_run_is_gone_on_with_in_its_own_runtime(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is measured anew (another number of CPUs, a home that is read-only) may come out otherwise."""
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 50, 3), 200, np.uint8))
    arguments = ["segment", str(tmp_path / "*.png"), "-o", str(tmp_path / "out"), "--model", str(tiny_bundle)]
    for more in (["--runtime", "openvino"], ["--resume"]):
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--json", *more])
        summary = json.loads(capsys.readouterr().out)
        assert (end.value.code, summary["model"]["runtime"]) == (0, "openvino")
        (tmp_path / "out/masks/a_segmentation.png").unlink(missing_ok=True)
    assert summary["processed"] == 1
    journal = tmp_path / "out/journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"runtime":"openvino"', b'"runtime":"from afar"'))
    assert earlier_runtime(tmp_path / "out") is None
    assert earlier_runtime(tmp_path) is None


@needs_openvino
def test_openvino_knows_more_shapes_than_it_is_compiled_for(tiny_bundle: Path) -> None:
    """Whatever order batches of different sizes come in, an image has the map that it has alone."""
    session = load_model(str(tiny_bundle), runtime="openvino", threads=1).session
    images = np.random.default_rng(0).standard_normal((7, 3, 64, 96), np.float32)
    alone = np.concatenate([session(image[None]) for image in images])
    for n in (7, 2, 5, 3, 6, 4, 2, 7):
        np.testing.assert_allclose(session(images[:n]), alone[:n], atol=0.05)
    with ThreadPoolExecutor(4) as pool:
        for n, found in zip(
            [1, 2, 3] * 4, pool.map(lambda n: session(images[:n]), [1, 2, 3] * 4), strict=True
        ):
            np.testing.assert_allclose(found, alone[:n], atol=0.05)


@needs_openvino
def test_openvino_tells_nobody(tiny_bundle: Path) -> None:
    code = (
        "import sys\n"
        "from dermseg.inference.predictor import load_model\n"
        f"model = load_model({str(tiny_bundle)!r}, runtime='openvino')\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry')], 'telemetry is there'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_of_one_call() -> None:
    assert resolve_threads(None) == min(available_cpus(), MOST_THREADS)
    assert resolve_threads(40) == 40
    with pytest.raises(UsageError):
        resolve_threads(0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is a matter of Linux")
def test_a_process_on_one_cpu_gets_one_thread(tiny_bundle: Path) -> None:
    code = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from dermseg.inference.predictor import load_model\n"
        f"print(load_model({str(tiny_bundle)!r}).session.threads)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
