"""From a bundle without trust to one with it, and what `dermseg segment` then says."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.main import main
from dermseg.data.index import IndexRow, read_index, write_index
from dermseg.data.synthetic import synthesize
from dermseg.errors import DataError, ModelError, UsageError
from dermseg.evaluation.looks import Look, outline
from dermseg.export import fit_trust
from dermseg.export.fit_trust import fit, fit_bundle
from dermseg.export.write import add_attachment, open_folder
from dermseg.images.masks import load_mask
from dermseg.images.packed import PackedMask
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import Postprocessing
from dermseg.inference.pictures import legend_of
from dermseg.inference.predictor import load_model
from dermseg.uncertainty.maps import Uncertainty
from dermseg.uncertainty.margins import draw_margins
from dermseg.uncertainty.opinions import Ensemble, Flips, mc_graph, open_opinions
from dermseg.uncertainty.trust import ATTACHMENT, FILE, load_trust


@pytest.fixture(scope="module")
def fitted(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fitted bundle, an index and its images."""
    folder = tmp_path_factory.mktemp("trust")
    shutil.copytree(tiny_bundle, folder / "bundle")
    rows = []
    for i in range(90):
        image, mask, _ = synthesize(i, (64, 80))
        for name, pixels in ((f"{i}.png", image[..., ::-1]), (f"{i}_mask.png", 255 * mask.astype(np.uint8))):
            assert cv2.imwrite(str(folder / name), pixels)
        split = ("calib", "val", "test")[i % 3]
        rows.append(IndexRow(str(i), f"{i}.png", (f"{i}_mask.png",), "drawn", split=split, root=folder))
    # Not yet labelled: left out.
    rows += [replace(row, image_id=f"{row.image_id} bare", masks=()) for row in rows[:3]]
    write_index(rows, folder / "index.csv")
    main_ok("uncertainty", "fit", folder / "bundle", "--data", folder / "index.csv")
    return folder


def main_ok(*arguments: object) -> None:
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    assert done.value.code in (0, None)


def test_where_nothing_was_found_no_agreement_is_expected() -> None:
    """It was 0.69, as for many an outline, and not among the least sure."""
    nothing = load_model().segment(np.full((150, 200, 3), (205, 160, 140), np.uint8))
    assert nothing.status == "no_lesion" and nothing.confidence == 0.0
    assert nothing.judgement is not None and nothing.judgement.needs_review


def test_the_bundle_is_whole_and_its_outlines_are_the_same(fitted: Path, tiny_bundle: Path) -> None:
    before, after = load_model(tiny_bundle), load_model(fitted / "bundle")
    assert after.trust is not None and after.trust.fitted["images"] == {"drawn calib": 30, "drawn val": 30}
    assert after.bundle.verify() == {"fp32": "ok"}
    assert after.card.postprocessing.temperature != before.card.postprocessing.temperature
    image = synthesize(500, (120, 160))[0]
    a, b = before.segment(image), after.segment(image)
    assert (a.mask != b.mask).mean() < 0.002
    assert a.judgement is None and b.judgement is not None
    assert b.confidence == b.judgement.predicted_dice and b.judgement.low <= b.confidence <= b.judgement.high


def test_a_changed_file_is_refused(fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted / "bundle", tmp_path / "bundle")
    with (tmp_path / "bundle" / FILE).open("a") as file:
        file.write(" ")
    with pytest.raises(ModelError, match="its card says"):
        load_trust(load_bundle(tmp_path / "bundle"))


def test_segment_fills_its_columns_and_writes_maps(fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main_ok("segment", fitted / "0.png", fitted / "1.png", "-o", out, "--model", fitted / "bundle",
            "--uncertainty", "--margin", "0.2", "--runtime", "onnxruntime")  # fmt: skip
    rows = list(csv.DictReader((out / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["confidence"] for row in rows] == [row["predicted_dice"] for row in rows]
    for row in rows:
        assert float(row["predicted_dice_low"]) <= float(row["predicted_dice"])
        assert row["needs_review"] in ("true", "false")
        assert row["margin_outer_mm"] == "" and float(row["margin_outer_px"]) >= 0
    masks = [
        load_mask(out / name) for name in ("margins/0_inner.png", rows[0]["mask"], "margins/0_outer.png")
    ]
    assert not (masks[0] & ~masks[1]).any() and not (masks[1] & ~masks[2]).any()
    for name in ("mean", "std", "entropy"):
        found = cv2.imread(str(out / f"uncertainty/0_{name}.png"), cv2.IMREAD_UNCHANGED)
        assert found.dtype == np.uint16 and found.shape == masks[0].shape
    assert "margins (white) of level 0.2" in (out / "report.html").read_text(encoding="utf-8")
    model = load_model(fitted / "bundle")
    result = model.segment(fitted / "0.png")
    margins = draw_margins(result.mask, load_trust(model.bundle), 0.2)
    assert legend_of(result, model, margins)[2] == "white: margins of level 0.2"


def test_segment_refuses_before_it_starts(tiny_bundle: Path, fitted: Path, tmp_path: Path) -> None:
    for model, margin in ((tiny_bundle, "0.1"), (fitted / "bundle", "0.123")):
        with pytest.raises(SystemExit) as done:
            main(["segment", str(fitted / "0.png"), "-o", str(tmp_path / "out"), "--model", str(model),
                  "--uncertainty", "--margin", margin])  # fmt: skip
        assert done.value.code == 2 or done.value.code == 1
        assert not (tmp_path / "out").exists()


def test_it_is_measured_on_the_test_split(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_ok("uncertainty", "evaluate", "--data", fitted / "index.csv", "--model", fitted / "bundle", "--json")
    told = capsys.readouterr()
    block = json.loads(told.out)["drawn"]
    assert "1 image of split 'test' has no mask, left out" in told.err
    assert block["n"] == 30 and -1 <= block["pearson"]["value"] <= 1
    assert block["band_ece"]["after"]["value"] < block["band_ece"]["before"]["value"]
    assert block["interval_coverage"]["value"] > 0.7


def test_an_index_without_calib_is_refused_before_its_images_are_looked_at(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual split, 70/15/15, has none: the images of val were looked at first, for minutes."""
    row = IndexRow("a", "a.png", ("a_mask.png",), "own", split="val", root=tmp_path)
    write_index([row], tmp_path / "index.csv")
    monkeypatch.setattr(fit_trust, "collect", lambda *_: pytest.fail("images are looked at"))
    with pytest.raises(DataError, match="0 of calib and 1 of val"):
        fit_bundle(tiny_bundle, [tmp_path / "index.csv"])


def test_patients_noted_later_are_one_draw(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups of an index that are older than its patients: folds and intervals took each image alone."""
    kept = [row for row in read_index(fitted / "index.csv") if row.masks][:18]
    rows = [replace(row, subject=f"p{i % 2}", group=f"drawn/{i}") for i, row in enumerate(kept)]
    write_index([row.rebased(tmp_path) for row in rows], tmp_path / "index.csv")
    looks: list[Look] = []

    def stop(calib: Sequence[Look], val: Sequence[Look], *_: Any, **__: Any) -> NoReturn:
        looks.extend((*calib, *val))
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_trust, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        fit_bundle(fitted / "bundle", [tmp_path / "index.csv"])
    assert len(looks) == 12 and len({look.group for look in looks}) == 2
    write_index([replace(row, subject="p").rebased(tmp_path) for row in rows], tmp_path / "index.csv")
    command = ("--data", tmp_path / "index.csv", "--model", fitted / "bundle", "--json")
    main_ok("uncertainty", "evaluate", *command)
    assert json.loads(capsys.readouterr().out)["drawn"]["dice"]["ci95"] is None, "one patient"


def test_all_of_it_is_told_for_the_level_that_was_asked_for(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every level but three was passed over, and margins, calibration and dropout were in the JSON alone."""
    command = ("uncertainty", "evaluate", "--data", fitted / "index.csv", "--model", fitted / "bundle")
    main_ok(*command, "--margin", "0.2", "--json")
    block = json.loads(capsys.readouterr().out)["drawn"]
    assert block["margins"]["alpha"] == 0.2 and block["margins"]["missed_outside"]["value"] <= 0.3
    main_ok(*command, "--margin", "0.2")
    text = capsys.readouterr().err
    for name, figure in (
        ("missed_outside", block["margins"]["missed_outside"]),
        ("outer_area", block["margins"]["outer_area"]),
        ("after", block["band_ece"]["after"]),
    ):
        assert f"    {name:<30}{figure['value']:.4f}  {figure['ci95'][0]:.4f} to" in text
    assert "  margins, level 0.2\n" in text and "missed_outside, worst" in text


def test_a_bundle_of_the_package_is_fitted_as_a_copy(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'fit default' changed the model of everybody who uses the package."""
    monkeypatch.chdir(tmp_path)
    card = load_bundle("default").card
    with pytest.raises(UsageError, match="'default' belongs to the package") as refused:
        fit_bundle(Path("default"), [fitted / "index.csv"])
    assert str(load_bundle("default").path) in str(refused.value.hint)
    assert load_bundle("default").card == card


def test_what_no_margin_can_be_promised_of_is_measured_without(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted on a dozen images there are no margins of the lower levels; that was the end, exit code 2."""
    bundle = open_folder(Path(shutil.copytree(fitted / "bundle", tmp_path / "bundle")))
    trust = load_trust(bundle)
    assert trust is not None
    outer = trust.outer.model_copy(update={"lambdas": [None] * len(trust.outer.lambdas)})
    add_attachment(bundle, ATTACHMENT, FILE, trust.model_copy(update={"outer": outer}).to_json())
    monkeypatch.setattr(fit_trust, "fit_bundle", lambda *_, **__: None)  # it has been
    main_ok("uncertainty", "fit", bundle.path, "--data", fitted / "index.csv")
    assert "No margins: the images that this model was fitted on allow none" in capsys.readouterr().err
    command = ("uncertainty", "evaluate", "--data", fitted / "index.csv", "--model", bundle.path)
    main_ok(*command, "--json")
    told = capsys.readouterr()
    block = json.loads(told.out)["drawn"]
    assert "margins" not in block and block["n"] == 30
    assert "margins are not measured: this model has no margin at level 0.1" in told.err
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command), "--margin", "0.123"])
    assert ended.value.code == 2


def test_what_the_images_do_not_say_is_unknown(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lone image without a lesion: no failure to find, no outline to draw a margin around."""
    for name, value in (("i.png", 200), ("m.png", 0)):
        assert cv2.imwrite(str(tmp_path / name), np.full((64, 80, 3)[: 3 if value else 2], value, np.uint8))
    row = IndexRow("i", "i.png", ("m.png",), "bare", split="test", root=tmp_path)
    bare = IndexRow("j", "i.png", (), "bare", split="test", root=tmp_path)
    write_index([row, bare], tmp_path / "index.csv")
    command = ("uncertainty", "evaluate", "--data", tmp_path / "index.csv", "--model", fitted / "bundle")
    main_ok(*command)
    said = capsys.readouterr().err
    assert "auroc_failure               unknown" in said and "1 image of split 'test' has no mask" in said
    main_ok(*command, "--json")
    block = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["bare"]
    assert block["dice"]["value"] == 1 and block["auroc_failure"]["value"] is None
    margins = block.get("margins")
    assert margins is None or margins["outer_area"]["value"] is None
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command), "--split", "nowhere"])
    assert ended.value.code == 2
    assert "no image has split 'nowhere'" in capsys.readouterr().err


def test_other_opinions_have_the_same_interface(fitted: Path) -> None:
    model = load_model(fitted / "bundle")
    x = model.prepare(synthesize(7, (100, 100))[0])
    several = [Flips(model)(x), Ensemble([model, model])(x), open_opinions(model)(x)]
    assert all(isinstance(found, Uncertainty) for found in several)
    assert several[1].std.max() == 0 and several[0].members.shape == (8, 64, 64)
    # a symmetric filter turns with the image: all views agree
    assert several[0].std.max() < 1e-3 and np.allclose(several[0].mean, model.infer(x[None])[0], atol=1e-3)
    with pytest.raises(ModelError, match="no Monte-Carlo dropout"):
        mc_graph(model.bundle)


def test_outlines_stay_where_a_network_is_hardly_ever_wrong() -> None:
    looks = []
    for i in range(40):
        reference = synthesize(i, (48, 48))[1]
        blurred = cv2.GaussianBlur(reference.astype(np.float32), (0, 0), 3) - 0.4
        logits = np.where(reference, np.maximum(blurred, 0.2), np.minimum(blurred, -0.2))
        row = IndexRow(str(i), "", (), "drawn", split=("calib", "val")[i % 2])
        looks.append(Look(row, (40 * logits).astype(np.float16), PackedMask.of(reference)))
    before = Postprocessing(threshold=0.35)
    after = fit(looks[::2], looks[1::2], before).postprocessing
    assert after.temperature < 0.06
    Postprocessing.model_validate(after.model_dump())  # a bundle with a threshold of 0 would not load
    for look in looks[:5]:
        assert (outline(look, before).mask == outline(look, after).mask).all()


def test_what_a_fit_holds_of_an_image_does_not_grow_with_the_photograph() -> None:
    photograph = cv2.resize(synthesize(0, (48, 48))[1].view(np.uint8), (4032, 3024)) > 0
    look = Look(IndexRow("a", "", (), "drawn"), np.zeros((48, 48), np.float16), PackedMask.of(photograph))
    outlined = outline(look, Postprocessing(threshold=0.4))
    assert outlined.mask.shape == look.reference.shape == (3024, 4032)
    assert np.array_equal(look.reference, photograph)
    assert len(pickle.dumps(outlined)) < 100_000
