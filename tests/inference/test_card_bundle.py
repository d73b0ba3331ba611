"""Cards and bundles: what is whole loads, everything else is refused with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dermseg.data.synthetic import synthesize
from dermseg.errors import ModelError, UnknownModelError
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.metrics import dice
from dermseg.inference.bundle import BUNDLED, bundled_names, find_bundle, load_bundle
from dermseg.inference.card import read_card
from dermseg.inference.predictor import load_model


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(bundle: Path, **changes: Any) -> str:
    card = json.loads((bundle / "card.json").read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        part = card
        for step in path:
            part = part[step]
        part[last] = value
    return json.dumps(card)


def test_a_card_survives_the_round_trip_and_keeps_fields_of_later_versions(bundle: Path) -> None:
    card = read_card(edit(bundle, citation={"doi": "10.1/x"}))
    assert read_card(card.to_json()) == card
    assert json.loads(card.to_json())["citation"] == {"doi": "10.1/x"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version 2"),
        ({"variants__fp32__file": "../model.onnx"}, "plain file name"),
        ({"variants__fp32__file": "C:\\model.onnx"}, "plain file name"),
        ({"variants__fp32__file": "/etc/passwd"}, "plain file name"),
        ({"variants__fp32__file": "nul.onnx"}, "plain file name"),
        ({"variants__fp32__sha256": "0" * 63}, "variants.fp32.sha256"),
        ({"default_variant": "int8"}, "default_variant"),
        ({"preprocessing__std": [0.2, 0.0, 0.2]}, "std"),
        ({"postprocessing__sharpen": True}, "postprocessing.sharpen"),
        ({"postprocessing__threshold": float("nan")}, "threshold"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wrong_field_is_named(bundle: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_card(edit(bundle, **changes), file="card.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '"\\u0000"'])
def test_what_is_not_a_card_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        read_card(text)


def test_folder_card_path_and_zip_give_the_same_model(bundle: Path, tmp_path: Path) -> None:
    flat, nested = tmp_path / "flat.zip", tmp_path / "nested.zip"
    for path, prefix in ((flat, ""), (nested, "darkness/")):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in bundle.iterdir():
                archive.write(file, prefix + file.name)
    models = {load_bundle(p).read_model() for p in (bundle, bundle / "card.json", flat, nested)}
    assert len(models) == 1


def test_one_changed_byte_does_not_load(bundle: Path) -> None:
    model = bundle / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(ModelError, match="sha256"):
        load_bundle(bundle).read_model()
    assert "sha256" in load_bundle(bundle).verify()["fp32"]


def test_longer_shorter_and_missing_files_do_not_load(bundle: Path) -> None:
    model = bundle / "model.onnx"
    data = model.read_bytes()
    for wrong in (data + b"\0", data[:-1]):
        model.write_bytes(wrong)
        with pytest.raises(ModelError, match="bytes"):
            load_bundle(bundle).read_model()
    model.unlink()
    with pytest.raises(ModelError, match=r"no 'model\.onnx' \(a file is missing"):
        load_bundle(bundle).read_model()
    model.mkdir()
    with pytest.raises(ModelError, match=r"'model\.onnx' cannot be read: "):
        load_bundle(bundle).read_model()
    (bundle / "card.json").unlink()
    with pytest.raises(ModelError, match=r"with its card\.json"):
        load_bundle(bundle)
    other = bundle / "other.onnx"
    other.write_bytes(data)
    with pytest.raises(ModelError, match=r"not a folder and not a zip .*--onnx makes one"):
        load_bundle(other)


def test_weights_in_a_file_without_a_hash_do_not_load(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    path, elsewhere = bundle / "model.onnx", bundle.parent / "elsewhere"
    elsewhere.mkdir()
    model = onnx.load(path)
    onnx.save(model, elsewhere / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    data = (elsewhere / "m.onnx").read_bytes()
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    changes = {"variants__fp32__sha256": digest, "variants__fp32__bytes": len(data)}
    (bundle / "card.json").write_text(edit(bundle, **changes))
    monkeypatch.chdir(elsewhere)  # where runtimes would find them
    with pytest.raises(ModelError, match="weights from another file"):
        load_bundle(bundle).read_model()
    assert "another file" in load_bundle(bundle).verify()["fp32"]


def test_a_zip_bomb_is_read_only_as_far_as_the_card_says(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(bundle / "card.json", "card.json")
        archive.writestr("model.onnx", bytes(50_000_000))
    with pytest.raises(ModelError, match="or more"):
        load_bundle(path).read_model()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04K\x01."])
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a zip"):
        load_bundle(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="devices are a matter of Unix")
def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    for place in ("/dev/zero", tmp_path / "pipe.zip"):
        with pytest.raises(ModelError, match="not a folder and not a file"):
            load_bundle(place)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ModelError, match="no bundle 'defualt'"):
        load_bundle("defualt")
    with pytest.raises(ModelError, match="no bundle"):
        load_bundle("../images")


def test_a_folder_called_like_a_bundle_of_the_package_does_not_take_its_place(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()  # photographs, results: anything
    (tmp_path / "fast").write_bytes(b"")
    assert find_bundle("default") == BUNDLED / "default" and find_bundle("fast") == BUNDLED / "fast"
    (tmp_path / "default" / "best.safetensors").touch()
    with pytest.raises(UnknownModelError, match="a training run") as refused:
        load_bundle("default")
    assert "./default" in str(refused.value.hint)
    shutil.copytree(bundle, tmp_path / "default", dirs_exist_ok=True)
    with pytest.raises(UnknownModelError, match="'default' is a bundle inside the package, and"):
        load_bundle()
    here = load_bundle(bundle).card
    assert load_bundle("./default").card == load_bundle(Path("default")).card == here


def test_an_unknown_variant_lists_the_known(bundle: Path) -> None:
    with pytest.raises(ModelError, match="it has fp32"):
        load_bundle(bundle).read_model("int8")


def test_what_was_fitted_by_a_later_version_says_so(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED / "fast", tmp_path / "later"))
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    fitted = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
    data = json.dumps(fitted | {"schema_version": 2, "later": 1}).encode()
    (folder / "gate.json").write_bytes(data)
    card["attachments"]["gate"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelError, match=r"gate\.json has schema_version 2, .*pip install --upgrade"):
        load_model(folder)


@pytest.mark.parametrize("name", bundled_names())
def test_every_bundle_of_the_package_is_whole_and_outlines_a_lesion(name: str) -> None:
    model = load_model(name, threads=1)
    assert {"trust", "gate", "repeatability"} <= set(model.card.attachments)
    assert ("mc_dropout" in model.card.attachments) == (model.card.variant().partner is None)
    assert {metric.dataset for metric in model.card.metrics} == {"ISIC 2018", "HAM10000", "PH2", "synthetic"}
    image, mask, _ = synthesize(7)
    result = model.segment(image)
    assert dice(count_pixels(result.mask, mask)) > 0.9
    assert result.verdict is not None and result.judgement is not None
