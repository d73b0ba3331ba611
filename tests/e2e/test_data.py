"""From downloaded zips to an index that can be trained on, as a person at the command line does it."""

from __future__ import annotations

import csv
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dermseg.apps.cli import counter
from dermseg.data.download import Downloaded
from dermseg.data.index import open_mask, read_index, write_index
from dermseg.images.masks import load_mask

Run = Callable[..., tuple[int, str, str]]


def photograph(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 256, (60, 80, 3)).astype(np.float32), (0, 0), 2)
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


@pytest.fixture
def zips(tmp_path: Path) -> tuple[Path, Path]:
    """Thirty pairs in the names of ISIC 2018; number 7 is number 3 again, mirrored; number 5 has no mask."""
    images, masks = tmp_path / "images.zip", tmp_path / "masks.zip"
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 20:60] = 255
    with zipfile.ZipFile(images, "w") as a, zipfile.ZipFile(masks, "w") as b:
        for number in range(30):
            image = photograph(3)[:, ::-1] if number == 7 else photograph(number)
            a.writestr(f"ISIC_00000{number:02d}.jpg", cv2.imencode(".jpg", image)[1].tobytes())
            if number != 5:
                name = f"ISIC_00000{number:02d}_segmentation.png"
                b.writestr(name, cv2.imencode(".png", mask)[1].tobytes())
    return images, masks


def test_import_split_stats_check(
    tmp_path: Path, zips: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, split = tmp_path / "index.csv", tmp_path / "split.csv"
    arguments = ("import", "isic2018", "--images", zips[0], "--masks", zips[1], "-o", index)
    code, out, _ = run("data", *arguments, "--json")
    summary = json.loads(out)
    assert (code, summary["imported"], summary["rejected"], summary["groups"]) == (0, 29, 1, 28)
    with (tmp_path / "index.rejected.csv").open() as stream:
        (left_out,) = csv.DictReader(stream)
    assert (left_out["image_id"], left_out["reason"]) == ("ISIC_0000005", "no mask for this image")

    code, _, err = run("data", *arguments)
    assert code == 2
    assert "--append or --overwrite" in err

    code, out, err = run("data", "split", index, "-o", split, "--seed", 1, "--json")
    assert "of 29 images no patient and no lesion is known" in err
    result = json.loads(out)
    assert (code, result["leaks"], result["near_duplicate_pairs"]) == (0, [], 1)
    assert result["indexes"][0]["splits"] == {"test": 4, "train": 20, "val": 5}
    splits = {row.image_id: row.split for row in read_index(split)}
    assert splits["ISIC_0000003"] == splits["ISIC_0000007"]

    code, out, _ = run("data", "stats", split, "--json")
    assert code == 0
    assert json.loads(out)["datasets"]["isic2018"]["test"]["images"] == 4
    code, out, _ = run("data", "stats", split)
    assert "isic2018" in out

    monkeypatch.setattr(counter, "_LINE_EVERY_S", 0.0)  # where there is no terminal, too
    code, _, err = run("data", "check", split)
    assert code == 0 and "checking: 28 of 29 images" in err
    text = split.read_text()
    twin = next(line for line in text.splitlines() if line.startswith("ISIC_0000007"))
    split.write_text(text.replace(twin, twin.replace(f",{splits['ISIC_0000007']},", ",elsewhere,")))
    code, out, err = run("data", "check", split, "--json")
    assert (code, len(json.loads(out)["leaks"])) == (1, 1)
    assert "leak" in err


def test_who_is_known_is_not_said_to_be_unknown(tmp_path: Path, zips: tuple[Path, Path], run: Run) -> None:
    table = tmp_path / "people.csv"
    table.write_text("image,patient\n" + "".join(f"ISIC_00000{n:02d},P{n // 2}\n" for n in range(28)))
    index = tmp_path / "index.csv"
    given = ("--images", zips[0], "--masks", zips[1], "--metadata", table)
    assert run("data", "import", "isic2018", *given, "-o", index)[0] == 0
    code, _, err = run("data", "split", index, "-o", index, "--overwrite")
    assert (code, "of 2 images no patient and no lesion is known" in err) == (0, True)


def test_what_a_table_said_stays_where_none_is_given(
    tmp_path: Path, zips: tuple[Path, Path], run: Run
) -> None:
    """An image's own licence became that of the data set, which is assumed where nothing is known."""
    table, index = tmp_path / "people.csv", tmp_path / "index.csv"
    table.write_text("image,patient,license\nISIC_0000001,P1,CC-0\n")
    given = ("import", "isic2018", "--images", zips[0], "--masks", zips[1], "-o", index)
    assert run("data", *given, "--metadata", table)[0] == 0
    for more, licence in (((), "CC-0"), (("--licence", "mine"), "mine"), ((), "mine")):
        assert run("data", *given, "--append", *more)[0] == 0
        row = read_index(index)[1]
        assert (row.image_id, row.subject, row.licence) == ("ISIC_0000001", "P1", licence)


def test_an_image_that_is_gone_says_how_to_go_on(tmp_path: Path, run: Run) -> None:
    assert run("data", "synth", "-n", 4, "--size", "160x120", "-o", tmp_path)[0] == 0
    index = tmp_path / "index.csv"
    (tmp_path / "images" / "synthetic_000000.png").unlink()
    for words in (("split", index, "--overwrite"), ("import", tmp_path, "--name", "synthetic", "--append")):
        code, _, err = run("data", *words, "-o", index)
        assert (code, "synthetic_000000.png: does not exist" in err) == (1, True)
        assert "take their rows out of the index, or give --no-duplicates" in err


def test_columns_that_people_add_stay(tmp_path: Path, zips: tuple[Path, Path], run: Run) -> None:
    """The documentation splits an index in place: what was noted in a spreadsheet beside it was gone."""
    index = tmp_path / "index.csv"
    arguments = ("import", "isic2018", "--images", zips[0], "--masks", zips[1], "-o", index)
    assert run("data", *arguments)[0] == 0
    header, *lines = index.read_text().splitlines()
    noted = [f'{line},"naevus, {number}"' for number, line in enumerate(lines)]
    index.write_text("\n".join([f"{header},diagnosis", *noted]) + "\n")
    assert run("data", "split", index, "-o", index, "--overwrite")[0] == 0
    assert run("data", *arguments, "--append")[0] == 0
    assert run("data", *arguments, "--append", "--name", "again")[0] == 0
    assert run("data", "split", index, "-o", index, "--k-folds", 3)[0] == 0
    for path in (index, tmp_path / "index-fold2.csv"):
        with path.open() as stream:
            rows = {(row["dataset"], row["image_id"]): row["diagnosis"] for row in csv.DictReader(stream)}
        assert (len(rows), rows["isic2018", "ISIC_0000029"]) == (58, "naevus, 28")
        assert rows["again", "ISIC_0000029"] == ""


def test_given_splits_are_honoured_and_their_leak_is_told(
    tmp_path: Path, zips: tuple[Path, Path], run: Run
) -> None:
    given = tmp_path / "splits.csv"
    lines = [f"ISIC_00000{n:02d},{'test' if n == 7 else 'train'}" for n in range(30)]
    given.write_text("\n".join(["image_id,split", *lines]))
    arguments = ("import", "isic2018", "--images", zips[0], "--masks", zips[1], "--splits", given, "--json")
    code, out, err = run("data", *arguments, "-o", tmp_path / "as-given.csv")
    assert code == 0
    assert json.loads(out)["splits"] == {"test": 1, "train": 28}
    assert "leak: group ISIC_0000003 lies in test and train" in err
    code, out, _ = run("data", *arguments, "-o", tmp_path / "clean.csv", "--exclude-leaks")
    assert json.loads(out)["splits"] == {"excluded": 1, "test": 1, "train": 27}
    assert json.loads(out)["leaks"] == []
    given.write_text("image_id,split\nISIC_0000001,test\nISIC_000002,test\nIsic_0000003.jpg,test\n")
    missing = "2 images of the split file are not in the index: 'ISIC_000002', 'Isic_0000003'"
    for words in (arguments, ("split", tmp_path / "clean.csv", "--splits", given)):
        code, _, err = run("data", *words, "-o", tmp_path / "typing-mistakes.csv", "--overwrite")
        assert code == 0 and missing in err
    given.write_text("image_id,split\nother,train\n")
    words = ("split", tmp_path / "clean.csv", "-o", tmp_path / "x.csv", "--splits", given)
    code, _, err = run("data", *words)
    assert (code, "names none of the 29 images" in err, (tmp_path / "x.csv").exists()) == (2, True, False)
    code, _, err = run("data", "split", tmp_path / "clean.csv", "-o", tmp_path / "new.csv")
    assert code == 0 and "1 image was excluded; it is split as all others" in err
    assert "the splits that the index had are not kept: 1 test, 27 train" in err


def test_two_data_sets_in_one_index_and_folds(tmp_path: Path, zips: tuple[Path, Path], run: Run) -> None:
    """The same pictures under another name are the same group: they never face each other in a split."""
    index = tmp_path / "index.csv"
    arguments = ("import", "--images", zips[0], "--masks", zips[1], "-o", index)
    assert run("data", *arguments, "--name", "one")[0] == 0
    code, out, _ = run("data", *arguments, "--name", "two", "--append", "--json")
    assert (code, json.loads(out)["images"], json.loads(out)["groups"]) == (0, 58, 28)
    code, out, _ = run("data", "split", index, "-o", tmp_path / "k.csv", "--k-folds", 4, "--json")
    assert (code, json.loads(out)["leaks"]) == (0, [])
    tested = [
        row.key for i in range(4) for row in read_index(tmp_path / f"k-fold{i}.csv") if row.split == "test"
    ]
    assert len(tested) == len(set(tested)) == 58


def outlined(folder: Path, seed: int) -> Path:
    """Two photographs with LabelMe files; the outline is a square of another size for every seed."""
    folder.mkdir(parents=True)
    for name in ("1", "2"):
        cv2.imwrite(str(folder / f"{name}.png"), photograph(10 * seed + int(name)))
        square = [[10, 10], [20 + seed, 10], [20 + seed, 30], [10, 30]]
        shapes = [{"label": "lesion", "points": square, "shape_type": "polygon"}]
        content = {"shapes": shapes, "imagePath": f"{name}.png", "imageWidth": 80, "imageHeight": 60}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("verb", ["data", "label"])
def test_appended_outlines_replace_none_of_another_folder(tmp_path: Path, run: Run, verb: str) -> None:
    index, where = tmp_path / "index.csv", ("-o", tmp_path / "index.csv")
    words = ("data", "import", "labelme") if verb == "data" else ("label", "import")
    anna, bert = (outlined(tmp_path / who / "photos", n) for n, who in enumerate(("anna", "bert"), 1))
    assert run(*words, anna, *where)[0] == 0
    before = index.read_text(), {path: path.read_bytes() for path in tmp_path.rglob("masks/*.png")}
    code, _, err = run(*words, bert, *where, "--append")
    assert (code, "'1' of data set 'photos' is two different images" in err) == (2, True)
    assert index.read_text() == before[0]
    if verb == "data":
        assert run(*words, bert, *where, "--append", "--name", "bert")[0] == 0
        rows = read_index(index)
        assert [row.dataset for row in rows] == ["photos", "photos", "bert", "bert"]
        assert len({open_mask(row).path.read_bytes() for row in rows}) == 2
    assert {path: path.read_bytes() for path in before[1]} == before[1]
    text = (anna / "1.json").read_text().replace("30]", "40]")
    (anna / "1.json").write_text(text)
    rows = read_index(index)
    write_index([replace(rows[0], split="test", subject="Anna"), *rows[1:]], index)
    code, out, err = run(*words, anna, *where, "--append", "--json")  # corrected, and taken in again
    assert (code, json.loads(out)["replaced"]) == (0, 2)
    assert "2 of them were in the index already" in err
    first, second = read_index(index)[:2]
    assert load_mask(open_mask(first)).sum() > load_mask(open_mask(second)).sum()
    assert (first.split, first.subject) == ("test", "Anna"), "no test image becomes one to train on"
    assert run(*words, anna, *where, "--append", "--split", "val")[0] == 0
    assert [row.split for row in read_index(index)[:2]] == ["val", "val"]

    copy = tmp_path / "copy.csv"  # as 'data split' makes one
    write_index(read_index(index)[:2], copy)
    outlines = [open_mask(row).path.read_bytes() for row in read_index(copy)]
    assert run(*words, bert, *where, "--overwrite")[0] == 0
    assert [open_mask(row).path.read_bytes() for row in read_index(copy)] == outlines


def test_labels_of_test_images_are_not_trained_on(tmp_path: Path, run: Run) -> None:
    """LabelMe files have ids with their folders (``sub_1``): the same images were in the index once more."""
    index, photos = tmp_path / "index.csv", outlined(tmp_path / "photos" / "sub", 1).parent
    assert run("data", "import", "folder", photos, "-o", index, "--allow-unmasked")[0] == 0
    rows = read_index(index)
    write_index([replace(row, split="test" if row.image_id == "1" else "") for row in rows], index)
    for more, split, leaks in (((), "test", 0), (("--split", "train"), "train", 1)):
        code, out, err = run("label", "import", photos, "-o", index, "--append", "--json", *more)
        assert (code, len(json.loads(out)["leaks"]), "photos/sub_1" in err) == (0, leaks, bool(leaks))
        found = {row.image_id: row.split for row in read_index(index)}
        assert (found["1"], found["sub_1"], found["sub_2"]) == ("test", split, "train")


def test_photographs_that_come_again_keep_their_outlines(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New photographs lie beside labelled ones, and the folder is imported to be labelled."""
    index, photos = tmp_path / "data" / "index.csv", outlined(tmp_path / "photos", 1)
    assert run("label", "import", photos, "-o", index)[0] == 0
    before = read_index(index)
    cv2.imwrite(str(photos / "new.png"), photograph(9))
    monkeypatch.chdir(tmp_path)
    assert run("data", "import", "folder", "photos", "-o", index, "--append", "--allow-unmasked")[0] == 0
    code, out, err = run("data", "check", index, "--json")  # to which training sends who would train on it
    assert (code, json.loads(out)["without_mask"]) == (0, ["photos/new"])
    assert "1 image has no mask, and training takes none such: photos/new" in err
    rows = read_index(index)
    assert [row.masks for row in rows] == [*(row.masks for row in before), ()] and rows[0].masks
    drawn = (photos / "2.json").rename(tmp_path / "2.json")  # with the files of LabelMe that are there
    assert run("data", "import", "labelme", "photos", "-o", index, "--append", "--allow-unmasked")[0] == 0
    assert [bool(row.masks) for row in read_index(index)] == [True, True, False]
    drawn.rename(photos / "2.json")
    cv2.imwrite(str(photos / "1.png"), photograph(8))  # another photograph now
    assert run("data", "import", "folder", "photos", "-o", index, "--append", "--allow-unmasked")[0] == 0
    assert [bool(row.masks) for row in read_index(index)] == [False, True, False]


def test_indexes_that_name_two_images_alike_are_not_merged(tmp_path: Path, run: Run) -> None:
    tables = []
    for n, who in enumerate(("a", "b")):
        for kind in ("images", "masks"):
            (tmp_path / who / kind).mkdir(parents=True)
        mask = np.zeros((60, 80), np.uint8)
        mask[20:40, 20:60] = 255
        for name in range(4):
            cv2.imwrite(str(tmp_path / who / "images" / f"{name}.png"), photograph(10 * n + name))
            cv2.imwrite(str(tmp_path / who / "masks" / f"{name}.png"), mask)
        tables.append(tmp_path / f"{who}.csv")
        given = ("--images", tmp_path / who / "images", "--masks", tmp_path / who / "masks")
        assert run("data", "import", *given, "-o", tables[-1])[0] == 0
    code, _, err = run("data", "import", *given, "-o", tables[0], "--append")
    assert (code, "--name NAME" in err, len(read_index(tables[0]))) == (2, True, 4)
    both = tmp_path / "both.csv"
    code, _, err = run("data", "split", *tables, "-o", both)
    assert (code, "is two different images" in err, both.exists()) == (2, True, False)
    code, _, err = run("data", "split", tables[0], tables[0], "-o", both)
    assert (code, "4 images are in several of the indexes" in err) == (0, True)
    assert "no image for test: 4 groups are few for such shares" in err


def test_a_download_names_the_table_of_its_lesions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    names = ["HAM10000_images_part_1.zip", "HAM10000_metadata.tab"]
    files = [Downloaded(name, tmp_path / name, 1, "", True) for name in names]
    monkeypatch.setattr("dermseg.data.download.download", lambda *_, **__: files)
    code, _, err = run("data", "download", "ham10000", "-o", tmp_path)
    assert code == 0
    words = f"dermseg data import ham10000 {tmp_path} --metadata {tmp_path / names[1]}"
    assert err.rstrip().endswith(words)


def test_several_masks_of_an_image_are_told(tmp_path: Path, run: Run) -> None:
    """Masks of two lesions: the second one was skin in training, without a word."""
    (tmp_path / "two").mkdir()
    assert cv2.imwrite(str(tmp_path / "two" / "1.png"), photograph(1))
    for i, column in enumerate((5, 50), 1):
        mask = np.zeros((60, 80), np.uint8)
        mask[20:40, column : column + 20] = 255
        assert cv2.imwrite(str(tmp_path / "two" / f"1_mask{i}.png"), mask)
    code, _, err = run("data", "import", "folder", tmp_path / "two", "-o", tmp_path / "two.csv")
    assert code == 0 and "1 image has several masks: they count as drawings of one lesion" in err


def test_folders_of_other_names_are_named(tmp_path: Path, run: Run) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 20:60] = 255
    for folder, picture in (("JPEGImages", photograph(1)), ("SegmentationClass", mask)):
        (tmp_path / "voc" / folder).mkdir(parents=True)
        assert cv2.imwrite(str(tmp_path / "voc" / folder / "1.png"), picture)
    target = ("-o", tmp_path / "voc.csv")
    code, _, err = run("data", "import", "folder", tmp_path / "voc", *target)
    assert code == 2 and "--images FOLDER --masks FOLDER say which are which" in err
    images, masks = (tmp_path / "voc" / name for name in ("JPEGImages", "SegmentationClass"))
    named = ("data", "import", "folder", "--images", images, "--masks", masks, *target)
    (masks / "1.png").rename(masks / "mask_1.png")  # and then nothing more was said
    code, _, err = run(*named)
    assert code == 2 and "a mask is called like its image (a.jpg and a_mask.png" in err
    assert "say which are which" not in err
    (masks / "mask_1.png").rename(masks / "1.png")
    assert run(*named)[0] == 0


@pytest.mark.parametrize("black", [False, True])
def test_masks_with_the_lesion_in_black_are_noticed(tmp_path: Path, run: Run, black: bool) -> None:
    """As ImageJ writes them; the import went well, and everything after it learnt the skin."""
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 20:60] = 255
    full = np.full((60, 80), 255, np.uint8)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, drawn in (("1", mask), ("2", mask), ("3", full)):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), photograph(int(name)))
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), ~drawn if black and name < "3" else drawn)
    code, _, err = run("data", "import", "folder", tmp_path, "-o", tmp_path / "index.csv")
    assert (code, "2 of 3 masks say that all the edge" in err, "invert" in err) == (0, black, black)


def test_synthetic_images_are_a_data_set(tmp_path: Path, run: Run) -> None:
    arguments = ("synth", "-n", 2, "--seed", 4, "--size", "160x120", "-o")
    assert run("data", *arguments, tmp_path / "a")[0] == 0
    assert run("data", *arguments, tmp_path / "b")[0] == 0
    assert run("data", "check", tmp_path / "a" / "index.csv")[0] == 0
    rows = read_index(tmp_path / "a" / "index.csv")
    assert [(r.width, r.height) for r in rows] == [(160, 120)] * 2
    assert [r.sha256 for r in rows] == [r.sha256 for r in read_index(tmp_path / "b" / "index.csv")]
    wanted = (
        "export",
        tmp_path / "a" / "index.csv",
        "--format",
        "coco",
        "--split",
        "test",
        "-o",
        tmp_path / "x",
    )
    code, _, err = run("data", *wanted)
    assert (code, "no image has split 'test'" in err, "there are: (none)" in err) == (2, True, True)
    code, _, err = run("data", "synth", "--size", "big", "-o", tmp_path / "c")
    assert (code, "--size 'big'" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import",), "nothing to import"),
        (("import", "nowhere"), "no such file"),
        (("split", "nowhere.csv", "-o", "x.csv"), "no such index"),
        (("split", "i.csv", "-o", "x.csv", "--exclude-leaks"), "--exclude-leaks can have no effect without"),
        (
            ("split", "i.csv", "-o", "x.csv", "--splits", "s.csv", "--ratios", "0.5,0.5"),
            "no effect with --splits",
        ),
        (("import", "x", "--split-column", "fold"), "--split-column can have no effect without --splits"),
        (("check", "nowhere.csv"), "dermseg data import"),
        (("export", "i.csv", "--format", "coco", "-o", "x", "--shard-size", "9"), "has no effect on coco"),
        (("download", "isic2099", "-o", "x"), "one of: isic-archive, isic2016"),
        (("download", "ham10000", "-o", "x", "--limit", "9"), "--limit is for isic-archive alone"),
        (
            ("download", "isic-archive", "-o", "x", "--retries", "0"),
            "--retries has no effect on isic-archive",
        ),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("data", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_called_like_a_kind_of_data_is_named_as_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """As 'data download isic2018 -o isic2018/' leaves it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "isic2018").mkdir()
    code, _, err = run("data", "import", "isic2018")
    assert code == 2 and "give ./isic2018 for the folder" in err


@pytest.mark.data
def test_real_counts(data_dir: Path, tmp_path: Path, run: Run) -> None:
    """2,326 ISIC, 9,536 HAM10000 and 20 PH2 pairs in one index, in which no group is shared.

    The split file names ISIC_0013594 (calib) as the twin of ISIC_0012290 and yet puts that into train:
    one image more than its own 25 is excluded.
    """
    index = tmp_path / "index.csv"
    for kind, number, metadata in (
        ("isic2018", 2326, "isic2018_metadata.csv"),
        ("ham10000", 9536, "HAM10000_metadata.csv"),
        ("ph2", 20, None),
    ):
        options = ["--metadata", data_dir / metadata] if metadata else ["--split", "test"]
        code, out, _ = run(
            *("data", "import", kind, data_dir, *options, "--splits", data_dir / "splits.csv"),
            *("-o", index, "--append", "--no-duplicates", "--exclude-leaks", "--json"),
        )
        summary = json.loads(out)
        assert (code, summary["imported"], summary["rejected"], summary["leaks"]) == (0, number, 0, [])
    rows = read_index(index)
    assert len(rows) == 11882
    splits = Counter((row.dataset, row.split) for row in rows)
    assert [splits[kind, "test"] for kind in ("isic2018", "ham10000", "ph2")] == [161, 535, 20]
    assert splits["isic2018", "excluded"] == 26
