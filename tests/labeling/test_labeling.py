import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.main import main
from dermseg.data.index import open_mask, read_index
from dermseg.data.labelme import draw_labels, read_labelme
from dermseg.data.proposals import is_proposal
from dermseg.data.synthetic import synthesize
from dermseg.images.masks import load_mask
from dermseg.inference.predictor import load_model
from dermseg.labeling.rank import STRATEGIES, Look, look_at, rank


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(["a.png", "b.png", "sub/a.png"]):
        image, _, _ = synthesize(seed, (120, 160))
        cv2.imwrite(str(folder / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


def _run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def test_propose_correct_and_import(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("label", "propose", photographs, "--label", "lesion_hole") == 2  # which is read as a hole
    assert _run("label", "propose", photographs) == 0
    file = photographs / "sub" / "a.json"
    annotation = read_labelme(file.read_bytes())
    mask = load_model().segment(photographs / "sub" / "a.png").mask
    drawn = draw_labels(annotation, ["lesion"])
    assert annotation.image == "a.png"
    assert 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()) > 0.995
    # nobody has corrected anything yet
    assert _run("label", "import", photographs, "-o", tmp_path / "index.csv") == 2
    assert _run("data", "import", "labelme", photographs, "-o", tmp_path / "data.csv") == 2
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps({**content, "shapes": [{**s, "other": 1} for s in content["shapes"]]}))
    assert is_proposal(read_labelme(file.read_bytes())), "saved again, and nothing was moved"
    # LabelMe keeps the flag when it saves what a person has corrected
    assert content["flags"] == {"proposed": True}
    content["shapes"] = [{"label": "lesion", "points": [[10, 10], [60, 10], [60, 50], [10, 50]]}]
    file.write_text(json.dumps(content))
    assert _run("label", "propose", photographs) == 0, "a person's file is kept"
    assert json.loads(file.read_bytes()) == content
    other = photographs / "b.json"
    proposed = other.read_text()
    other.write_text(json.dumps({**json.loads(proposed), "shapes": [], "flags": {"approved": True}}))
    foreign = [photographs / f"facts-{number}.json" for number in range(6)]
    for path in foreign:
        path.write_text("{}")
    capsys.readouterr()
    assert _run("label", "import", photographs, "-o", tmp_path / "index.csv") == 0
    said = capsys.readouterr().err
    assert said.count("left out: ") == 5 and "... and 2 more, all in" in said and "1 untouched" in said
    assert f"{other},it has no outline in the image" in (tmp_path / "index.rejected.csv").read_text()
    other.write_text(proposed)
    for path in foreign:
        path.unlink()
    (row,) = read_index(tmp_path / "index.csv")
    assert row.image_id == "sub_a" and row.split == "train"
    assert load_mask(open_mask(row)).sum() == 51 * 41
    capsys.readouterr()
    assert _run("data", "import", "labelme", photographs, "-o", tmp_path / "data.csv", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["proposals"] == 2 and "2 outlines are a model's proposals" in said.err
    assert [row.image_id for row in read_index(tmp_path / "data.csv")] == ["sub_a"]
    assert (tmp_path / "data.rejected.csv").read_text().count("flags.proposed") == 2
    # what is labelled is not recommended for labelling: by its file, its bytes elsewhere, or the index
    copy = tmp_path / "copy" / "c.png"
    copy.parent.mkdir()
    copy.write_bytes((photographs / "sub" / "a.png").read_bytes())
    rank = ("label", "rank", photographs, copy, "-o", tmp_path / "rank.csv", "--json")
    for words, left in ((("--labelled", tmp_path / "index.csv"), 2), (("--by", "random"), 3)):
        assert _run(*rank, *words, "--overwrite") == 0
        said = capsys.readouterr()
        images = json.loads(said.out)["images"]
        assert len(images) == left and "sub/a.png" not in {image["file"] for image in images}
        assert "labelled already" in said.err
    (copy.parent / "torn.png").write_bytes(b"\x89PNG")
    assert _run(*rank[:3], copy.parent / "torn.png", *rank[4:], "--overwrite") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failed"] == 1 and set(report["failures"][0]) == {"file", "message"}


def test_segment_saves_outlines_that_people_can_correct(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _run("segment", photographs, "-o", out, "--save", "mask,labelme", "--lesions", "all") == 0
    file = out / "labelme" / "sub" / "a.json"
    annotation = read_labelme(file.read_bytes())
    assert (file.parent / annotation.image).resolve() == (photographs / "sub" / "a.png").resolve()
    assert is_proposal(annotation) and annotation.labels == ("lesion",)
    mask = load_mask(out / "masks" / "sub" / "a_segmentation.png")
    drawn = draw_labels(annotation, ["lesion"])
    assert 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()) > 0.995
    again, written = ("segment", photographs, "-o", out, "--save", "mask", "--overwrite"), file.read_bytes()
    file.write_bytes(written.replace(b'"proposed": true', b'"approved": true'))
    assert _run(*again) == 2 and file.exists(), "a person's work does not"
    assert f"corrected: 1, such as {Path('sub', 'a.json')}" in capsys.readouterr().err
    file.write_bytes(written)
    assert _run(*again) == 0
    assert not file.exists(), "what belongs to the run goes with it"


def test_rank_writes_every_image_once(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photographs / "broken.png").write_bytes(b"no image")
    assert _run("label", "rank", photographs, "-o", tmp_path / "rank.csv", "--by", "uncertainty") == 1
    lines = (tmp_path / "rank.csv").read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == ["a.png", "b.png", "sub/a.png"]
    scores = [float(line.split(",")[2]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)
    # Ctrl-C: what was looked at is ranked
    (photographs / "broken.png").unlink()
    looks = iter([Look(0.2, 0.0, np.zeros(1, np.float32)), Look(0.9, 0.0, np.ones(1, np.float32))])

    def stopped(*_: object) -> Look:
        if (look := next(looks, None)) is None:
            raise KeyboardInterrupt
        return look

    monkeypatch.setattr("dermseg.labeling.rank.look_at", stopped)
    rank = ("label", "rank", photographs, "-o", tmp_path / "rank.csv", "--overwrite")
    assert _run(*rank) == 130 and "2 of 3 images were looked at" in capsys.readouterr().err
    written = (tmp_path / "rank.csv").read_text()
    assert [line.split(",")[1] for line in written.splitlines()[1:]] == ["b.png", "a.png"]
    assert _run(*rank) == 130 and (tmp_path / "rank.csv").read_text() == written, "nothing was looked at"


def test_two_images_of_one_stem_do_not_share_a_proposal(
    photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _, _ = synthesize(7, (120, 160))
    cv2.imwrite(str(photographs / "a.jpg"), image)
    assert _run("label", "propose", photographs) == 1
    assert "a.png: a.json is the file of a.jpg already (rename one of them)" in capsys.readouterr().err
    assert read_labelme((photographs / "a.json").read_bytes()).image == "a.jpg"
    (photographs / "a.json").unlink()
    (photographs / "a.jpg").write_bytes(b"no image")  # what cannot be read takes no other's file
    assert _run("label", "propose", photographs, "--json") == 1
    files = json.loads(capsys.readouterr().out)["files"]
    assert {item["image"]: item["status"] for item in files}["a.png"] == "proposed"
    assert read_labelme((photographs / "a.json").read_bytes()).image == "a.png"
    assert all(item["confidence"] in (None, round(item["confidence"] or 0, 4)) for item in files)


def test_one_folder_for_two_visits_does_not_lose_the_first_ones_proposals(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    visit2 = tmp_path / "visit2"
    visit2.mkdir()
    cv2.imwrite(str(visit2 / "a.png"), synthesize(8, (120, 160))[0])
    out = tmp_path / "out"
    assert _run("label", "propose", photographs, "-o", out) == 0
    before = (out / "a.json").read_bytes()
    capsys.readouterr()
    assert _run("label", "propose", visit2, "-o", out) == 1
    said = capsys.readouterr().err
    assert "a.png: a.json is the file of ../photos/a.png already" in said and "-o" in said
    assert (out / "a.json").read_bytes() == before
    assert _run("label", "propose", photographs, "-o", out) == 0, "one's own are made again"


def test_one_file_that_cannot_be_written_is_no_end_for_the_others(
    photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photographs / "a.json").mkdir()
    (photographs / "b.png").rename(photographs / f"{'b' * 251}.png")  # too long with ".json"
    assert _run("label", "propose", photographs) == 1
    said = capsys.readouterr().err
    assert "failed: a.png: its LabelMe file" in said and "1 proposed, 0 kept, 2 failed" in said
    assert _run("label", "rank", photographs, "-o", photographs / "rank.csv") == 0


def test_an_image_without_contrast_is_less_certain_than_a_clear_lesion() -> None:
    model = load_model()
    clear, _, _ = synthesize(1, (192, 192))
    dull = np.full((192, 192, 3), 170, np.uint8) + np.random.default_rng(0).integers(
        0, 9, (192, 192, 3), np.uint8
    )
    assert look_at(model, dull).uncertainty > look_at(model, clear).uncertainty


def test_diversity_takes_one_of_each_cluster_first() -> None:
    centres = np.array([[0, 0], [100, 0], [0, 100]], np.float32)
    points = np.repeat(centres, 4, axis=0) + np.random.default_rng(0).normal(0, 1, (12, 2)).astype(np.float32)
    looks = [Look(0.1 * i, 0.0, point) for i, point in enumerate(points)]
    first = rank(looks, "diversity", number=3)
    assert len(first) == 3 and first == rank(looks, "diversity")[:3]
    assert all(rank(looks, s, number=7) == rank(looks, s)[:7] for s in STRATEGIES)
    assert {i // 4 for i in first} == {0, 1, 2}
    known = rank(looks, "diversity", known=points[:4])
    assert {i // 4 for i in known[:2]} == {1, 2}
    assert sorted(rank(looks, "mixed")) == list(range(12)) and min(rank(looks, "mixed")[:6]) >= 6
    assert rank(looks, "random", seed=1) != rank(looks, "random", seed=2)
