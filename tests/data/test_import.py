"""Official layouts, folders and zips become rows; what is wrong is left out with its reason."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dermseg.data.check import check_rows
from dermseg.data.index import IndexRow, open_image, open_mask, read_index, write_index
from dermseg.data.labelme import Annotation, mask_to_shapes, write_labelme
from dermseg.data.sources import detect
from dermseg.data.sources.base import list_entries
from dermseg.data.sources.importer import Imported, import_dataset
from dermseg.data.sources.tables import Facts, read_metadata, read_splits
from dermseg.data.splits import apply_splits, assign_groups
from dermseg.data.stats import describe
from dermseg.errors import DataError
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask

SIZE = (24, 32)  # height, width


def picture(seed: int, extension: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8)
    return cv2.imencode(extension, pixels)[1].tobytes()


def outline(size: tuple[int, int] = SIZE, extension: str = ".png", value: int = 255) -> bytes:
    mask = np.zeros(size, np.uint8)
    mask[6:18, 8:24] = value
    return cv2.imencode(extension, mask)[1].tobytes()


def fill(target: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder, or into a zip when the name says so."""
    if target.suffix == ".zip":
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
    return target


ISIC = {
    "isic2016": ("ISBI2016_ISIC_Part1_{}_Data", "ISBI2016_ISIC_Part1_{}_GroundTruth", "_Segmentation.png", "Test"),  # noqa: E501
    "isic2017": ("ISIC-2017_{}_Data", "ISIC-2017_{}_Part1_GroundTruth", "_segmentation.png", "Test_v2"),
    "isic2018": ("ISIC2018_Task1-2_{}_Input", "ISIC2018_Task1_{}_GroundTruth", "_segmentation.png", "Test"),
}  # fmt: skip


@pytest.mark.parametrize("form", ["{}", "{}.zip", "flat"])
@pytest.mark.parametrize("kind", ISIC)
def test_isic_challenges(tmp_path: Path, kind: str, form: str) -> None:
    """As folders, as zips with the folder inside, and as zips without it; the superpixels are not images."""
    images, masks, suffix, test = ISIC[kind]
    for number, part in enumerate(["Training", test]):
        for name, files in (
            (
                images,
                {f"ISIC_000000{number}.jpg": picture(number), f"ISIC_000000{number}_superpixels.png": b"x"},
            ),
            (masks, {f"ISIC_000000{number}{suffix}": outline()}),
        ):
            folder = name.format(part)
            if form == "flat":
                fill(tmp_path / f"{folder}.zip", files)
            elif form == "{}":
                fill(tmp_path / folder, files)
            else:
                fill(tmp_path / f"{folder}.zip", {f"{folder}/{file}": data for file, data in files.items()})
    assert detect(list_entries([tmp_path])) == kind
    result = import_dataset([tmp_path])
    assert (result.kind, result.rejected) == (kind, [])
    assert [(r.image_id, r.split, r.width, r.height) for r in result.rows] == [
        ("ISIC_0000000", "train", 32, 24),
        ("ISIC_0000001", "test", 32, 24),
    ]
    assert {r.licence for r in result.rows} == {"CC-BY-NC-4.0" if kind == "isic2018" else "CC-0"}


def test_attributes_are_masks_in_the_order_of_their_names_and_all_are_there(tmp_path: Path) -> None:
    classes = ("globules", "milia_like_cyst", "negative_network", "pigment_network", "streaks")
    images = {f"ISIC_000000{number}.jpg": picture(number) for number in range(2)}
    masks = {
        f"ISIC_0000000_attribute_{name}.png": outline(value=255 * (name == "streaks")) for name in classes
    }
    masks |= {f"ISIC_0000001_attribute_{name}.png": outline() for name in classes[1:]}
    fill(tmp_path / "ISIC2018_Task1-2_Training_Input", images)
    fill(tmp_path / "ISIC2018_Task2_Training_GroundTruth_v3", masks)
    result = import_dataset([tmp_path])
    assert [(row.image_id, row.split) for row in result.rows] == [("ISIC_0000000", "train")]
    found = [load_mask(open_mask(result.rows[0], number)).any() for number in range(5)]
    assert (result.kind, found) == ("isic2018-task2", [False] * 4 + [True])
    assert [(r.image_id, r.reason) for r in result.rejected] == [("ISIC_0000001", "4 masks instead of 5")]


def test_ham10000_with_metadata_and_given_splits(tmp_path: Path) -> None:
    """The Dataverse serves the images as two flat zips."""
    images = [
        fill(tmp_path / f"HAM10000_images_part_{n}.zip", {f"ISIC_002430{n}.jpg": picture(n)}) for n in (1, 2)
    ]
    masks = fill(
        tmp_path / "HAM10000_segmentations_lesion_tschandl.zip",
        {
            f"HAM10000_segmentations_lesion_tschandl/ISIC_002430{n}_segmentation.png": outline()
            for n in (1, 2)
        },
    )
    metadata, splits = tmp_path / "HAM10000_metadata.tab", tmp_path / "splits.csv"
    metadata.write_text("lesion_id\timage_id\tdx\nHAM_0000001\tISIC_0024301\tnv\n")
    splits.write_text("dataset,image_id,split\nham10000,ISIC_0024301,val\nham10000,ISIC_0099999,val\n")
    result = import_dataset([*images, masks], metadata=read_metadata(metadata), splits=read_splits(splits))
    rows = assign_groups(result.rows)
    assert [(r.lesion, r.group, r.split) for r in rows] == [
        ("HAM_0000001", "HAM_0000001", "val"),
        ("", "ISIC_0024302", ""),  # not in the split file: in no split
    ]
    assert (result.without_split, result.not_in_data) == (1, ["ISIC_0099999"])


def test_ph2(tmp_path: Path) -> None:
    base = "PH2Dataset/PH2 Dataset images/IMD013/IMD013"
    fill(
        tmp_path / "PH2Dataset.zip",
        {
            f"{base}_Dermoscopic_Image/IMD013.bmp": picture(1, ".bmp"),
            f"{base}_lesion/IMD013_lesion.bmp": outline(extension=".bmp"),
            f"{base}_lesion/IMD013_lesion.jpg": outline(extension=".jpg"),
            f"{base}_roi/IMD013_R1_Label4.bmp": outline(extension=".bmp"),
        },
    )
    result = import_dataset([tmp_path / "PH2Dataset.zip"], split="test")
    (row,) = result.rows
    assert (result.kind, row.dataset, row.image_id, row.split) == ("ph2", "ph2", "IMD013", "test")
    assert row.masks[0].endswith("IMD013_lesion.bmp")


@pytest.mark.skipif(os.name == "nt", reason="folders are closed in another way there")
def test_a_folder_that_may_not_be_looked_into_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``lost+found`` of a disk, or a colleague's: no end of the import, and not passed over in silence."""
    data = fill(tmp_path / "data", {"images/a.jpg": picture(1), "masks/a.png": outline()})
    closed = [data / "images" / "listed only", data / "closed"]
    for folder, mode in zip(closed, (0o400, 0), strict=True):
        fill(folder, {"b.jpg": picture(2)})
        folder.chmod(mode)
    access = os.access  # root may do everything
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in closed and access(path, mode))
    try:
        result = import_dataset([data], allow_unmasked=os.getuid() == 0)
    finally:
        for folder in closed:
            folder.chmod(0o700)
    assert "a" in [row.image_id for row in result.rows]
    assert {item.file for item in result.rejected if "looked into" in item.reason} == set(map(str, closed))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_linked_folders_are_named(tmp_path: Path) -> None:
    """A data set on another disk, linked: there was nothing, and no word why."""
    disk = fill(tmp_path / "disk", {"images/a.jpg": picture(1), "masks/a.png": outline()})
    data = tmp_path / "data"
    data.mkdir()
    (data / "isic").symlink_to(disk)
    with pytest.raises(
        DataError, match="isic: there is no file to import; this is a linked folder, which is not"
    ):
        import_dataset([data])
    assert [row.image_id for row in import_dataset([data / "isic"]).rows] == ["a"]
    fill(data, {"b.jpg": picture(2), "b_mask.png": outline()})
    result = import_dataset([data])
    assert [row.image_id for row in result.rows] == ["b"]
    assert [(Path(item.file).name, "linked" in item.reason) for item in result.rejected] == [("isic", True)]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.jpg", "masks/a.png"),
        ("images/sub/a.jpg", "masks/sub/a_segmentation.png"),
        ("train/images/a.jpg", "train/labels/a-mask.png"),
        ("a.jpg", "a_mask.png"),
        ("photos/a.jpg", "gt/a.png"),
        ("imagesTr/a_0000.png", "labelsTr/a.png"),  # nnU-Net
        ("Images/SUB/a.JPG", "masks/sub/A_Mask.PNG"),  # Windows
        ("bilder/a.jpg", "masks/A.png"),
    ],
)
@pytest.mark.parametrize("form", ["data", "data.zip"])
def test_any_folder(tmp_path: Path, image: str, mask: str, form: str) -> None:
    result = import_dataset([fill(tmp_path / form, {image: picture(1), mask: outline(), "notes.txt": b"x"})])
    assert result.rejected == []
    (row,) = result.rows
    assert (result.kind, row.dataset, row.image_id, len(row.masks)) == ("folder", "data", "a", 1)


def test_names_that_meet_in_several_folders(tmp_path: Path) -> None:
    files = {f"{visit}/images/1.jpg": picture(n) for n, visit in enumerate("ab")}
    files |= {f"{visit}/masks/1.png": outline() for visit in "ab"}
    assert [r.image_id for r in import_dataset([fill(tmp_path / "d", files)]).rows] == ["a/1", "b/1"]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Train/images", "valid/images", "test/images"), ["train", "val", "test"]),
        (("images/training", "images/testing"), ["train", "test"]),
        (("imagesTr", "imagesTs"), ["train", "test"]),
        (("test/anna/images", "test/bert/images"), ["", ""]),  # a word alone is no split
    ],
)
def test_splits_of_folders_are_kept(tmp_path: Path, folders: tuple[str, ...], splits: list[str]) -> None:
    """They were lost, and 'data split' mixed what was to be tested on into training."""
    files = {f"{folder}/{n}.jpg": picture(n) for n, folder in enumerate(folders)}
    files |= {f"{folder.replace('images', 'labels')}/{n}.png": outline() for n, folder in enumerate(folders)}
    result = import_dataset([fill(tmp_path / "d", files)])
    assert [row.split for row in result.rows] == splits and not result.rejected
    assert {row.split for row in import_dataset([tmp_path / "d"], split="val").rows} == {"val"}


def test_masks_of_kinds_that_are_not_read_are_listed(tmp_path: Path) -> None:
    files = {"images/a.jpg": picture(1), "masks/a.npy": b"", "masks/a.txt": b"", "b.npy": b""}
    for masks in ((), (tmp_path / "d" / "masks",)):
        result = import_dataset([fill(tmp_path / "d", files)], masks=masks)
        reasons = {Path(item.file).name: item.reason for item in result.rejected}
        assert reasons.keys() == {"a.npy", "a.jpg"} and "save it as PNG" in reasons["a.npy"]


def test_names_in_one_case_are_two_where_both_are_there(tmp_path: Path) -> None:
    files = {"images/a.jpg": picture(1), "images/B.jpg": picture(2), "images/b.jpg": picture(3)}
    result = import_dataset(
        [fill(tmp_path / "d.zip", {**files, "masks/A.png": outline(), "masks/b.png": outline()})]
    )
    assert [row.image_id for row in result.rows] == ["a", "b"]
    assert [item.image_id for item in result.rejected] == ["B"]


def test_several_masks_of_one_image(tmp_path: Path) -> None:
    files = {"images/1.jpg": picture(1)} | {f"masks/1_segmentation_{n}.png": outline() for n in (1, 2)}
    (row,) = import_dataset([fill(tmp_path / "d.zip", files)]).rows
    assert [mask.rpartition("/")[2] for mask in row.masks] == ["1_segmentation_1.png", "1_segmentation_2.png"]


def test_images_and_masks_given_apart_under_any_name(tmp_path: Path) -> None:
    images = fill(tmp_path / "x.zip", {"ISIC_0000001.jpg": picture(1), "ISIC_0000002.jpg": picture(2)})
    masks = fill(tmp_path / "y", {"ISIC_0000001_segmentation.png": outline()})
    result = import_dataset([images], kind="isic2018", masks=[masks])
    assert [r.image_id for r in result.rows] == ["ISIC_0000001"]
    assert [r.reason for r in result.rejected] == ["no mask for this image"]
    kept = import_dataset([images], kind="isic2018", masks=[masks], allow_unmasked=True)
    assert [len(r.masks) for r in kept.rows] == [1, 0]


def test_a_mask_called_like_the_image_beside_it_says_what_to_do(tmp_path: Path) -> None:
    data = fill(tmp_path / "d", {"1.jpg": picture(1), "1.png": outline(), "2.jpg": picture(2)})
    reasons = {Path(item.file).name: item.reason for item in import_dataset([data]).rejected}
    assert "call it '1_mask.png' or move it into a folder 'masks'" in reasons["1.png"]
    (data / "1.png").rename(data / "1_mask.png")
    assert [row.image_id for row in import_dataset([data]).rows] == ["1"]


def test_no_file_is_an_image_and_a_mask(tmp_path: Path) -> None:
    """Masks became images whose masks they were themselves, where one folder was named as both."""
    both = fill(tmp_path / "all", {"1.jpg": picture(1), "1_mask.png": outline()})
    with pytest.raises(DataError, match=r"2 files were given as images and as masks .*its name alone"):
        import_dataset([both], masks=[both])
    (row,) = import_dataset([both]).rows
    assert Path(row.image).name == "1.jpg"
    files = {"1.jpg": picture(1), "masks/1.png": outline()}
    for images, masks in ((".", "masks"), ("photos", ".")):  # one lies in the other
        data = fill(tmp_path / "d", files)
        (data / "photos").mkdir(exist_ok=True)
        if images == "photos":
            (data / "1.jpg").rename(data / "photos" / "1.jpg")
        result = import_dataset([data / images], masks=[data / masks])
        assert [(Path(row.image).name, len(row.masks)) for row in result.rows] == [("1.jpg", 1)]
        assert result.rejected == []


@pytest.mark.parametrize("apart", [False, True])
def test_photographs_called_lesion_are_no_masks(tmp_path: Path, apart: bool) -> None:
    names = [f"anna_lesion_{n}" for n in (1, 2)]
    images = fill(tmp_path / "d/images", {f"{name}.jpg": picture(n) for n, name in enumerate(names)})
    masks = fill(tmp_path / "d/masks", {f"{name}.png": outline() for name in names})
    result = import_dataset([images] if apart else [tmp_path / "d"], masks=[masks] if apart else ())
    assert [row.image_id for row in result.rows] == names and not result.rejected
    assert [Path(row.masks[0]).stem for row in result.rows] == names


@pytest.mark.parametrize("apart", [False, True])
def test_masks_of_one_name_are_not_laid_on_another_photograph(tmp_path: Path, apart: bool) -> None:
    for n, who in enumerate(("anna", "bert")):
        fill(tmp_path / who, {"images/1.jpg": picture(n), "masks/1.png": outline(value=254 + n)})
    fill(tmp_path / "anna", {"images/2.jpg": picture(2), "masks/2.png": outline()})
    folders = [tmp_path / who for who in ("anna", "bert")]
    images, masks = ([who / kind for who in folders] for kind in ("images", "masks"))
    result = import_dataset(images, masks=masks) if apart else import_dataset(folders)
    assert [(row.image_id, len(row.masks)) for row in result.rows] == [("2", 1)]
    assert len(result.rejected) == 4
    assert all("images of several folders are called so" in item.reason for item in result.rejected)
    (folders[1] / "images" / "1.jpg").rename(folders[1] / "images" / "9.jpg")
    if not apart:  # the mask that is left there alone is not another folder's
        result = import_dataset(folders)
        assert [(row.image_id, len(row.masks)) for row in result.rows] == [("1", 1), ("2", 1)]
    two = import_dataset([folders[0] / "images"], masks=masks)  # two people's masks of one image
    assert [(row.image_id, len(row.masks)) for row in two.rows] == [("1", 2), ("2", 1)]


@pytest.mark.parametrize("kind", ["folder", "isic2018"])
def test_an_archive_beside_what_was_unpacked_from_it(tmp_path: Path, kind: str) -> None:
    image = {"ISIC2018_Task1-2_Training_Input/ISIC_0000001.jpg": picture(1)}
    mask = {"ISIC2018_Task1_Training_GroundTruth/ISIC_0000001_segmentation.png": outline()}
    both = fill(tmp_path / "d", {**image, **mask})
    fill(both / "ISIC2018_Task1-2_Training_Input.zip", image)
    fill(both / "ISIC2018_Task1_Training_GroundTruth.zip", mask)
    if kind == "folder":
        files = {"images/a.jpg": picture(1), "masks/a.png": outline()}
        both, _ = fill(tmp_path / "e", files), fill(tmp_path / "e" / "e.zip", files)
    result = import_dataset([both])
    assert (result.kind, [len(row.masks) for row in result.rows]) == (kind, [1])
    assert sorted(item.reason for item in result.rejected) == [
        "the same image id was found before",
        "the same mask was found before",
    ]


def test_ids_with_dots_find_their_patient_and_split(tmp_path: Path) -> None:
    ids = [f"1.2.840.{n}" for n in range(4)]
    data = fill(tmp_path / "d", {f"images/{name}.png": picture(n, ".png") for n, name in enumerate(ids)})
    fill(data, {f"masks/{name}.png": outline() for name in ids})
    table = tmp_path / "table.csv"
    lines = [f"{name}{'.png' if n == 3 else ''},P{n // 2},test" for n, name in enumerate(ids)]
    table.write_text("\n".join(["image_id,patient_id,split", *lines, "9.9.9,P9,test"]) + "\n")
    result = import_dataset([data], metadata=read_metadata(table), splits=read_splits(table))
    assert [(row.subject, row.split) for row in result.rows] == [(f"P{n // 2}", "test") for n in range(4)]
    assert (result.not_in_data, result.without_split, result.without_metadata) == (["9.9.9"], 0, 0)
    assert import_dataset([data], metadata={}).without_metadata == 4


def test_ids_with_folders_find_their_patient_and_split(tmp_path: Path) -> None:
    who = ("anna", "bert")
    files = {f"images/{name}/1.jpg": picture(n) for n, name in enumerate(who)}
    files |= {f"images/{name}/{name}.jpg": picture(n + 2) for n, name in enumerate(who)}
    files |= {path.replace("images", "masks").replace("jpg", "png"): outline() for path in files}
    data, table = fill(tmp_path / "d", files), tmp_path / "table.csv"
    lines = [f"photos/{name}/{stem}.jpg,{name},{name}" for name in who for stem in ("1", name)]
    table.write_text("\n".join(["image,Patient ID,split", *lines, "9.jpg,carl,x"]) + "\n")
    result = import_dataset([data], metadata=read_metadata(table), splits=read_splits(table))
    ids = ["anna", "anna/1", "bert", "bert/1"]
    assert [(row.image_id, row.subject) for row in result.rows] == [(id_, id_[:4]) for id_ in ids]
    assert [row.split for row in result.rows] == [id_[:4] for id_ in ids]
    assert (result.not_in_data, result.without_split, result.without_metadata) == (["9"], 0, 0)
    write_index(result.rows, tmp_path / "index.csv")  # an index is a table of its own splits
    back = apply_splits(result.rows, read_splits(tmp_path / "index.csv"))
    assert [row.split for row in back] == [row.split for row in result.rows]
    one = fill(tmp_path / "e", {"images/1.jpg": picture(1), "masks/1.png": outline()})
    assert import_dataset([one], metadata=read_metadata(table)).without_metadata == 1  # anna's or bert's
    with pytest.raises(DataError, match="image '1' is in the file in several folders"):
        import_dataset([one], splits=read_splits(table))


def test_ids_of_outlines_find_their_patient_and_split(tmp_path: Path) -> None:
    """Those of LabelMe files in folders are ``anna_1``, and tables name files."""
    shapes = tuple(
        mask_to_shapes(np.pad(np.ones((9, 9), np.bool_), ((9, SIZE[0] - 18), (9, SIZE[1] - 18))), "a")
    )
    label = write_labelme(Annotation("1.jpg", SIZE[1], SIZE[0], shapes))
    files = {f"{who}/1.jpg": picture(n) for n, who in enumerate(("anna", "bert"))}
    data = fill(tmp_path / "d", files | {f"{who}/1.json": label for who in ("anna", "bert")})
    table = tmp_path / "table.csv"
    table.write_text("file,patient,split\nphotos/anna/1.jpg,A,train\nphotos/bert/1.jpg,B,test\n")
    result = import_dataset(
        [data], metadata=read_metadata(table), splits=read_splits(table), folder=tmp_path / "f"
    )
    found = [(row.image_id, row.subject, row.split) for row in result.rows]
    assert found == [("anna_1", "A", "train"), ("bert_1", "B", "test")]
    assert (result.not_in_data, result.without_split, result.without_metadata) == ([], 0, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,Patient\n1.jpg,A\n", ("A", "", "")),
        ("Image ID;Patient ID;Lesion ID\n1;A;L\n", ("A", "L", "")),
        ("image,patient_id,dx\n1,A,nv\n1.jpg,A,mel\n", ("A", "", "")),
        ("image,patient,lesion,license\n1,NA,unknown,nan\n", ("", "", "")),  # as R and pandas write it
        ("image,patient,lesion,license\n1,#N/A,-,?\n", ("", "", "")),  # as Excel and people do
        ("image,person\n1,A\n", "no column with patient, lesion or licence"),
        ("image,patient\n1,A\n1.jpg,B\n", "image '1' is in the file twice, with different values"),
    ],
)
def test_metadata_say_who_it_is_or_are_refused(
    tmp_path: Path, text: str, says: tuple[str, str, str] | str
) -> None:
    table = tmp_path / "meta.csv"
    table.write_text(text)
    if isinstance(says, str):
        with pytest.raises(DataError, match=says):
            read_metadata(table)
    else:
        assert read_metadata(table) == {"1": Facts(*says)}


def bad_pairs(tmp_path: Path) -> Imported:
    grey = np.linspace(0, 255, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8)
    images = {f"images/{n}.jpg": picture(n) for n in range(1, 7)}
    images["images/2.jpg"] = images["images/2.jpg"][:200]
    return import_dataset(
        [
            fill(
                tmp_path / "bad.zip",
                images
                | {
                    "masks/1.png": outline(),
                    "masks/2.png": outline(),
                    "masks/3.png": outline(value=0),
                    "masks/4.png": outline((32, 32)),
                    "masks/5.png": cv2.imencode(".png", grey)[1].tobytes(),
                    "masks/6.png": b"not a picture",
                    "masks/7.png": outline(),
                },
            )
        ]
    )


def test_every_reason_is_listed(tmp_path: Path) -> None:
    result = bad_pairs(tmp_path)
    assert [r.image_id for r in result.rows] == ["1"]
    assert sorted(r.image_id for r in result.rejected) == ["2", "3", "4", "5", "6", "7"]
    reasons = {r.image_id: r.reason for r in result.rejected}
    assert "empty" in reasons["3"]
    assert "without an image" in reasons["7"]
    files = {r.image_id: r.file.rpartition("!")[2] for r in result.rejected}
    assert files["2"] == "images/2.jpg"
    assert {files[n] for n in "34567"} == {f"masks/{n}.png" for n in range(3, 8)}


def test_a_mask_of_a_photograph_that_was_not_turned_says_so(tmp_path: Path) -> None:
    """Many programs draw on the pixels as they are stored, whatever the EXIF orientation of a telephone."""
    stored, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(stored, "JPEG", exif=exif)
    files = {"images/1.jpg": stored.getvalue(), "masks/1.png": outline()}
    (left_out,) = import_dataset([fill(tmp_path / "d", files)]).rejected
    assert left_out.reason.startswith("the mask has 32 x 24 pixels, its image 24 x 32 (one of the two lies")
    assert "EXIF orientation" in left_out.reason


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        import_dataset([tmp_path / "gone"])
    with pytest.raises(DataError, match="no image"):
        import_dataset([fill(tmp_path / "d", {"readme.txt": b"x"})])
    with pytest.raises(DataError, match="unknown kind"):
        import_dataset([tmp_path], kind="isic2099")
    (tmp_path / "broken.zip").write_bytes(b"PK not really")
    with pytest.raises(DataError, match=r"broken\.zip"):
        import_dataset([tmp_path / "broken.zip"])


def test_names_in_a_zip_lead_nowhere(tmp_path: Path) -> None:
    """A stored path with .. or backslashes is read in place and never becomes a path on disk."""
    files = {"..\\..\\images\\a.jpg": picture(1), "../../masks/a.png": outline()}
    archive = fill(tmp_path / "evil.zip", files)
    (row,) = assign_groups(import_dataset([archive]).rows)
    assert (row.image_id, open_image(row).name) == ("a", "evil/a.jpg")
    assert load_mask(open_mask(row), size=SIZE).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.zip"]


def test_names_that_the_index_cannot_hold_are_left_out(tmp_path: Path) -> None:
    names = ("trail", "trail ", " lead", "x.zip!y", "bang!")
    files = {f" d/images/{name}.jpg": picture(n) for n, name in enumerate(names)}
    files |= {f" d/masks/{name}.png": outline() for name in names}
    result = import_dataset([fill(tmp_path / "e", files)])
    write_index(result.rows, tmp_path / "e" / "index.csv")
    back = read_index(tmp_path / "e" / "index.csv")
    assert [row.image_id for row in back] == ["bang!", "trail"] and back[0].image.startswith(" d/")
    assert check_rows(back).ok
    reasons = {item.image_id: item.reason for item in result.rejected}
    assert "'.zip!'" in reasons["x.zip!y"] and "rename it" in reasons["x.zip!y"]
    assert "a space before or behind" in reasons["trail "] and "a space before" in reasons[" lead"]
    spaced = fill(tmp_path / "f ", {"a.jpg": picture(1), "a_mask.png": outline()})
    for given, name in {None: "f", " mine ": "mine"}.items():  # rows must be found again by what is added
        rows = import_dataset([spaced], name=given).rows
        write_index(rows, tmp_path / "f.csv")
        assert [row.key for row in (*rows, *read_index(tmp_path / "f.csv"))] == [(name, "a")] * 2


@pytest.fixture
def good(tmp_path: Path) -> list[IndexRow]:
    files = {f"images/{n}.png": picture(n, ".png") for n in range(4)}
    files |= {f"masks/{n}_segmentation.png": outline() for n in range(4)}
    rows = assign_groups(import_dataset([fill(tmp_path / "set", files)]).rows)
    write_index(rows, tmp_path / "index.csv")
    return read_index(tmp_path / "index.csv")


def test_check_finds_what_changed(tmp_path: Path, good: list[IndexRow]) -> None:
    assert check_rows(good).ok
    (tmp_path / "set/images/0.png").write_bytes(picture(9, ".png"))
    (tmp_path / "set/images/1.png").unlink()
    (tmp_path / "set/masks/2_segmentation.png").write_bytes(outline(value=0))
    (tmp_path / "set/masks/3_segmentation.png").write_bytes(outline((32, 24)))
    report = check_rows(good)
    assert not report.ok
    assert {t.image_id for t in report.troubles} == {"0", "1", "2", "3"}
    assert "sha256" in next(t.reason for t in report.troubles if t.image_id == "0")


def test_stats(good: list[IndexRow]) -> None:
    figures = describe(good)
    assert (figures["images"], figures["masks"], figures["unreadable"]) == (4, 4, 0)
    assert figures["datasets"] == {"set": {"unassigned": {"images": 4, "groups": 4}}}
    alone = describe([replace(row, group="") for row in good], areas=False)
    assert (alone["groups"], alone["datasets"]) == (4, figures["datasets"]), "each is one of its own"
    assert figures["width"]["q50"] == 32
    assert figures["area_fraction"]["all"]["mean"] == pytest.approx(12 * 16 / (24 * 32))
    assert figures["licences"] == {"unknown": 4}
    assert describe([])["width"] is None


@pytest.mark.data
def test_real_ph2(data_dir: Path) -> None:
    result = import_dataset([data_dir / "PH2Dataset_20.zip"])
    assert (result.kind, len(result.rows), result.rejected) == ("ph2", 20, [])
    row = result.rows[0]
    image = load_image(open_image(row))
    assert (image.info.height, image.info.width) == load_mask(open_mask(row)).shape == (row.height, row.width)
