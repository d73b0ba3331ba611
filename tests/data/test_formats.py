"""Formats of others: what is written here their own libraries read, and it comes back as it was."""

import json
import re
import shutil
import tarfile
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermseg.data.check import check_rows
from dermseg.data.coco import count_runs, draw_segmentation, pack_counts, unpack_counts
from dermseg.data.export import export_rows
from dermseg.data.index import open_image, open_mask, read_index
from dermseg.data.labelme import Annotation, mask_to_shapes, read_labelme, write_labelme
from dermseg.data.locations import split_location
from dermseg.data.sources import converted
from dermseg.data.sources.importer import import_dataset
from dermseg.data.sources.synthetic import write_synthetic
from dermseg.errors import DataError, ImageError
from dermseg.images.masks import load_mask


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, 5, size=(64, 80))
    return folder / "index.csv"


@given(st.integers(0, 9999), st.floats(0.01, 0.99))
def test_run_lengths_are_those_of_pycocotools(seed: int, share: float) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(seed).random((13, 17)) < share
    mask = np.kron(mask, np.ones((3, 2), np.bool_)).astype(np.bool_)
    packed = pack_counts(count_runs(mask))
    assert packed == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(draw_segmentation({"size": list(mask.shape), "counts": packed}, mask.shape), mask)
    assert unpack_counts(packed).tolist() == count_runs(mask)


@pytest.mark.parametrize(
    "flat",
    [
        [10.2, 12.7, 60.4, 8.1, 71.9, 44.4, 30.0, 58.3],
        [12.0, 10.0, 70.0, 10.0, 12.0, 50.0, 70.0, 50.0],  # crosses itself
        [-9.0, 5.0, 40.0, -20.0, 95.0, 30.0, 40.0, 80.0],  # leaves the image
    ],
)
def test_polygons_are_drawn_like_pycocotools(flat: list[float]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    packed = coco.merge(coco.frPyObjects([flat], 64, 80))
    other = draw_segmentation({"size": packed["size"], "counts": packed["counts"].decode()}, (64, 80))
    mine = draw_segmentation([flat], (64, 80))
    assert (mine & other).sum() / (mine | other).sum() > 0.985


def test_polygons_have_their_area() -> None:
    square = [2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]
    expected = np.zeros((20, 20), np.bool_)
    expected[3:13, 2:12] = True
    assert np.array_equal(draw_segmentation([square], (20, 20)), expected)
    assert np.array_equal(draw_segmentation([square[::-1]], (20, 20)), expected.T)
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    more = []
    for x, y in np.random.default_rng(0).uniform(20, 24, (40, 2)):
        circle = np.stack([x + 11 * np.cos(angles), y + 11 * np.sin(angles)], axis=1)
        more.append(draw_segmentation([circle.ravel().tolist()], (44, 44)).sum() - np.pi * 11**2)
    assert abs(np.mean(more)) < 2  # with their outlines they would have 35 more


@pytest.mark.parametrize("kind", ["coco", "webdataset", "tfrecord"])
def test_exported_and_imported_again(synthetic: Path, tmp_path: Path, kind: str) -> None:
    rows = read_index(synthetic)
    files = export_rows(rows, kind, tmp_path / "out", shard_size=2)
    assert len(files) == (1 if kind == "coco" else 3)
    back = import_dataset([tmp_path / "out"], folder=tmp_path / "files")
    assert back.kind == ("coco" if kind == "coco" else "shards") and not back.rejected
    for row, new in zip(rows, back.rows, strict=True):
        assert new.sha256 == row.sha256
        assert open_image(new).read_bytes() == open_image(row).read_bytes()
        assert np.array_equal(load_mask(open_mask(new)), load_mask(open_mask(row)))


@pytest.mark.parametrize("kind", ["coco", "webdataset", "tfrecord"])
def test_a_split_names_no_file_elsewhere(synthetic: Path, tmp_path: Path, kind: str) -> None:
    first, second = read_index(synthetic)[:2]
    rows = [replace(first, split="../../evil"), replace(second, split="evil")]
    files = export_rows(rows, kind, tmp_path / "a" / "b" / "out")
    assert len(set(files)) == 2 and {file.parent for file in files} == {tmp_path / "a" / "b" / "out"}


@pytest.mark.parametrize("kind", ["coco", "webdataset", "tfrecord"])
def test_what_is_known_of_an_image_comes_back(synthetic: Path, tmp_path: Path, kind: str) -> None:
    first, second, third = read_index(synthetic)[:3]
    rows = [
        replace(first, split="train", dataset="a", image_id="1", subject="p", lesion="l", licence="CC0-1.0"),
        replace(second, split="val", dataset="b", image_id="1"),
        replace(third, split=""),
    ]
    export_rows(rows, kind, tmp_path / "out")
    back = import_dataset([tmp_path / "out"], folder=tmp_path / "files").rows
    by_file = {row.sha256: row for row in back}
    assert [by_file[row.sha256].split for row in rows] == ["train", "val", ""]
    names = ("dataset", "image_id", "subject", "lesion", "licence")
    assert [[getattr(by_file[row.sha256], name) for name in names] for row in rows] == [
        [getattr(row, name) for name in names] for row in rows
    ]
    named = import_dataset([tmp_path / "out"], name="mine", split="test", folder=tmp_path / "files2")
    assert {(row.dataset, row.split) for row in named.rows} == {("mine", "test")}
    assert len(named.rows) + len(named.rejected) == 3


@pytest.mark.parametrize("kind", ["coco", "webdataset", "tfrecord"])
def test_absent_classes_and_images_without_masks_come_back(
    synthetic: Path, tmp_path: Path, kind: str
) -> None:
    first, second, third, fourth = read_index(synthetic)[:4]
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.zeros((64, 80), np.uint8))
    rows = [
        replace(first, masks=(first.masks[0], str(empty))),
        replace(second, masks=(str(empty), str(empty))),
        replace(third, masks=(third.masks[0], third.masks[0])),
        replace(fourth, masks=()),
    ]
    assert check_rows(rows).ok  # of several classes not every one is on every image
    troubles = check_rows([replace(first, masks=(str(empty),))]).troubles
    assert [trouble.reason for trouble in troubles] == ["the mask is empty"]
    out, labels = tmp_path / "out", ["a", "b"] if kind == "coco" else []
    export_rows(rows, kind, out, labels=labels)
    back = import_dataset([out], labels=labels, allow_unmasked=True, folder=tmp_path / "files")
    assert [len(row.masks) for row in back.rows] == [2, 2, 2, 0] and not back.rejected
    areas = [[bool(load_mask(open_mask(row, n)).any()) for n in range(len(row.masks))] for row in back.rows]
    assert areas == [[True, False], [False, False], [True, True], []]
    without = import_dataset([out], labels=labels, folder=tmp_path / "files")
    assert [item.reason for item in without.rejected] == ["no mask for this image"]


def test_a_coco_image_without_an_outline_has_no_mask(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((20, 30, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.full((20, 30, 3), 99, np.uint8))
    images = [{"id": n, "file_name": f"{n}.png", "width": 30, "height": 20} for n in (1, 2)]
    region = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 12]]}
    content = {"images": images, "annotations": [region], "categories": [{"id": 1, "name": "lesion"}]}
    (tmp_path / "train-1.json").write_text(json.dumps(content))
    found = import_dataset([tmp_path], allow_unmasked=True, folder=tmp_path / "f")
    assert [(len(row.masks), row.split) for row in found.rows] == [(1, "train"), (0, "train")]


@pytest.mark.parametrize("kind", ["coco", "webdataset", "tfrecord"])
def test_splits_keep_their_names(synthetic: Path, tmp_path: Path, kind: str) -> None:
    names = ["fold-1", "fold-2", "val-2017", "a/b", ""]
    rows = [replace(row, split=name) for row, name in zip(read_index(synthetic), names, strict=True)]
    export_rows(rows, kind, tmp_path / "out")
    back = import_dataset([tmp_path / "out"], folder=tmp_path / "files").rows
    assert [row.split for row in back] == names
    if kind == "coco":  # as earlier versions wrote it
        for file in (tmp_path / "out").glob("*.json"):
            file.write_text(re.sub(r'"split": "[^"]*", ', "", file.read_text()))
        back = import_dataset([tmp_path / "out"], folder=tmp_path / "files").rows
        assert [row.split for row in back] == [*names[:3], "a_b", ""]


def test_an_export_that_cannot_be_whole_leaves_nothing(synthetic: Path, tmp_path: Path) -> None:
    row, *others = read_index(synthetic)
    with pytest.raises(DataError, match="has 2 masks and 1 labels were given"):
        export_rows([*others, replace(row, masks=row.masks * 2)], "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["coco", "webdataset"])
def test_a_photograph_that_cannot_be_exported_leaves_nothing(
    synthetic: Path, tmp_path: Path, kind: str
) -> None:
    first, second, third, *others = read_index(synthetic)
    turned = []
    for n, row in enumerate((first, second)):
        exif = Image.Exif()
        exif[274] = 6
        Image.open(open_image(row).path).convert("RGB").save(tmp_path / f"{n}.jpg", exif=exif)
        turned.append(replace(row, image=str(tmp_path / f"{n}.jpg")))
    with pytest.raises(DataError, match=r"EXIF orientation \(2 of 5\): 'synthetic_\d+', 'synthetic_\d+' "):
        export_rows([*others, third, *turned], kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "broken.png").write_bytes(open_image(third).read_bytes()[:400])
    (tmp_path / "there").mkdir()
    for out in ("out", "there"):
        with pytest.raises(ImageError):
            export_rows([*others, replace(third, image=str(tmp_path / "broken.png"))], kind, tmp_path / out)
    assert not (tmp_path / "out").exists() and list((tmp_path / "there").iterdir()) == []


def test_coco_files_in_folders_of_splits(tmp_path: Path) -> None:
    """As Roboflow lays them out; of images of one name each file has its own."""
    for n, folder in enumerate(("train", "valid", "test"), start=1):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "1.png"), np.full((20, 30, 3), 50 * n, np.uint8))
        content = {
            "images": [{"id": 0, "file_name": "1.png", "width": 30, "height": 20}],
            "annotations": [
                {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 12]]}
            ],
            "categories": [{"id": 0, "name": "lesions"}, {"id": 1, "name": "lesion"}],
        }
        (tmp_path / folder / "_annotations.coco.json").write_text(json.dumps(content))
    found = import_dataset([tmp_path], folder=tmp_path / "f")
    places = [(row.image_id, Path(row.image).parent.name, row.split) for row in found.rows]
    assert places == [("1", "test", "test"), ("train_1", "train", "train"), ("valid_1", "valid", "val")]
    assert len({row.masks for row in found.rows}) == 3 and not found.rejected
    shutil.copyfile(tmp_path / "valid/_annotations.coco.json", tmp_path / "valid/again.json")
    again = import_dataset([tmp_path], folder=tmp_path / "f")
    assert len(again.rows) == 3 and "the same image id was found before" in again.rejected[0].reason


def test_a_coco_annotation_that_cannot_be_drawn_is_its_images_trouble(tmp_path: Path) -> None:
    for n in (1, 2, 3, 4):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((20, 30, 3), 50 * n, np.uint8))
    images = [{"id": n, "file_name": f"{n}.png", "width": 30, "height": 20} for n in (1, 2, 3, 4)]
    square = [[2, 2, 12, 2, 12, 12]]
    regions = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": square},
        {"id": 2, "image_id": 2, "category_id": 1},
        {"id": 3, "image_id": 3, "category_id": 7, "segmentation": square},
        {"id": 4, "image_id": 4, "category_id": 1, "segmentation": square},
        {"id": 5, "image_id": 4, "category_id": 1, "segmentation": [], "bbox": [2, 2, 9, 9]},  # detection
    ]
    content = {"images": images, "annotations": regions, "categories": [{"id": 1, "name": "lesion"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="several labels: category 7, lesion"):
        import_dataset([tmp_path], folder=tmp_path / "f")
    found = import_dataset([tmp_path], labels=["lesion"], folder=tmp_path / "f")
    assert [row.image_id for row in found.rows] == ["1"]
    reasons = [item.reason for item in found.rejected]
    assert all("the annotation has no segmentation" in reason for reason in reasons[:2])
    assert reasons[2:] == ["no mask for this image"]


@pytest.mark.parametrize("labels", [[], ["scar"]])
def test_why_no_outline_was_found_is_said(tmp_path: Path, labels: list[str]) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((20, 30, 3), np.uint8))
    shape = {"label": "scar", "points": [[1, 1], [9, 9]], "shape_type": "cuboid"}
    content = {"shapes": [shape], "imagePath": "1.png", "imageWidth": 30, "imageHeight": 20}
    (tmp_path / "1.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"1\.json: .*'cuboid'; no other file has an outline"):
        import_dataset([tmp_path], kind="labelme", labels=labels, folder=tmp_path / "f")


def _example_message() -> type:
    """``tf.train.Example`` as the protocol buffer runtime builds it from its definition."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    fields = {
        "BytesList": [("value", 1, 12, 3, "")],
        "Int64List": [("value", 1, 3, 3, "")],
        "Feature": [("bytes_list", 1, 11, 1, ".t.BytesList"), ("int64_list", 3, 11, 1, ".t.Int64List")],
        "Entry": [("key", 1, 9, 1, ""), ("value", 2, 11, 1, ".t.Feature")],
        "Features": [("feature", 1, 11, 3, ".t.Entry")],  # a map is a list of key and value
        "Example": [("features", 1, 11, 1, ".t.Features")],
    }
    for name, parts in fields.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label, of in parts:
            message.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def test_tfrecord_is_read_by_tensorboard_and_protobuf(synthetic: Path, tmp_path: Path) -> None:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    rows = read_index(synthetic)
    (file,) = export_rows(rows, "tfrecord", tmp_path)
    reader, example = PyRecordReader_New(str(file)), _example_message()
    for row in rows:
        reader.GetNext()
        values = {f.key: f.value for f in example.FromString(reader.record()).features.feature}
        assert values["image/encoded"].bytes_list.value[0] == open_image(row).read_bytes()
        assert values["image/width"].int64_list.value[0] == 80
        assert len(values["image/segmentation/class/encoded"].bytes_list.value) == 1


def test_a_damaged_shard_is_one_reason(synthetic: Path, tmp_path: Path) -> None:
    (file,) = export_rows(read_index(synthetic), "tfrecord", tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    back = import_dataset([tmp_path], folder=tmp_path / "files")
    assert len(back.rows) < 5 and "damaged" in back.rejected[0].reason


@pytest.mark.parametrize("kind", ["coco", "webdataset"])
def test_no_image_of_an_export_replaces_another(synthetic: Path, tmp_path: Path, kind: str) -> None:
    first, second, third = read_index(synthetic)[:3]
    rows = [
        replace(first, dataset="isic", image_id="2018_1"),
        replace(second, dataset="isic_2018", image_id="1"),
        replace(third, dataset="isic", image_id="long." * 30),
    ]
    export_rows(rows, kind, tmp_path / "out")
    back = import_dataset([tmp_path / "out"], folder=tmp_path / "files")
    assert sorted(row.sha256 for row in back.rows) == sorted(row.sha256 for row in rows)


def test_tar_members_are_named_for_webdataset(synthetic: Path, tmp_path: Path) -> None:
    (file,) = export_rows(read_index(synthetic), "webdataset", tmp_path)
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert names[:3] == [f"synthetic_synthetic_000000.{end}" for end in ("png", "mask.png", "json")]


def test_labelme_labels_become_classes(tmp_path: Path) -> None:
    grid = np.mgrid[:48, :64]
    lesion = np.hypot(grid[0] - 20, grid[1] - 22) < 12
    ruler = grid[0] > 44
    for name, masks in {"a": {"nevus": lesion, "ruler": ruler}, "b": {"nevus": lesion}}.items():
        cv2.imwrite(
            str(tmp_path / f"{name}.png"), np.random.default_rng(len(name)).integers(0, 255, (48, 64, 3))
        )
        shapes = [shape for label, mask in masks.items() for shape in mask_to_shapes(mask, label)]
        (tmp_path / f"{name}.json").write_bytes(
            write_labelme(Annotation(f"{name}.png", 64, 48, tuple(shapes)))
        )
    with pytest.raises(DataError, match="several labels: nevus, ruler"):
        import_dataset([tmp_path], folder=tmp_path / "f0")
    both = import_dataset([tmp_path], labels=["ruler", "nevus"], folder=tmp_path / "f1")
    assert both.kind == "labelme" and [len(row.masks) for row in both.rows] == [2, 2]
    masks = [load_mask(open_mask(both.rows[0], i)) for i in range(2)]
    assert np.array_equal(masks[0], ruler) and np.array_equal(masks[1], lesion)
    assert not load_mask(open_mask(both.rows[1], 0)).any()
    one = import_dataset([tmp_path], labels=["nevus+ruler"], folder=tmp_path / "f2")
    assert np.array_equal(load_mask(open_mask(one.rows[0])), lesion | ruler)
    with pytest.raises(DataError, match="no outline is labelled 'nevi'"):
        import_dataset([tmp_path], labels=["nevi"], folder=tmp_path / "f3")


@pytest.mark.parametrize(("kind", "name"), [("labelme", "LabelMe"), ("coco", "COCO")])
def test_outlines_in_another_folder_are_asked_for(synthetic: Path, kind: str, name: str) -> None:
    with pytest.raises(DataError, match=rf"no {name} file \(.json\) among 5 files \(name it, or its folder"):
        import_dataset([synthetic.parent / "images"], kind=kind)


def test_images_that_nobody_has_drawn_on_yet_are_kept(tmp_path: Path) -> None:
    """``--allow-unmasked`` kept none of them, without a word."""
    mask = np.zeros((60, 80), np.bool_)
    mask[20:40, 20:60] = True
    data = tmp_path / "labels"
    (data / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sub/a.png", "a_mask.png")):
        cv2.imwrite(str(data / name), np.full((60, 80, 3), 50 * number, np.uint8))
    annotation = Annotation("a.png", 80, 60, tuple(mask_to_shapes(mask, "lesion")))
    (data / "a.json").write_bytes(write_labelme(annotation))
    for kept in (False, True):
        rows = import_dataset([data], allow_unmasked=kept, folder=tmp_path / "files").rows
        found = {open_image(row).path.resolve().relative_to(data.resolve()).as_posix(): row for row in rows}
        assert list(found) == (["a.png", "b.png", "sub/a.png"] if kept else ["a.png"])
        assert [name for name, row in found.items() if row.masks] == ["a.png"]


def test_labelme_files_are_not_all_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Annotation]] = []
    most, told = 0, []

    def read(*given: Any) -> Annotation:
        nonlocal most
        annotation = read_labelme(*given)
        held.append(weakref.ref(annotation))
        most = max(most, sum(one() is not None for one in held))
        return annotation

    monkeypatch.setattr(converted, "read_labelme", read)
    square = np.zeros((20, 30), bool)
    square[5:15, 5:20] = True
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((20, 30, 3), 40 * i, np.uint8))
        annotation = Annotation(f"{i}.png", 30, 20, tuple(mask_to_shapes(square, "lesion")))
        (tmp_path / f"{i}.json").write_bytes(write_labelme(annotation))
    found = import_dataset([tmp_path], folder=tmp_path / "f", progress=lambda *step: told.append(step))
    assert len(found.rows) == 5 and most <= 2
    assert told[:5] == [(i, 5) for i in range(1, 6)] and len(told) == 10  # as masks are drawn, and checked


def test_labelme_image_inside_the_file_and_missing(tmp_path: Path) -> None:
    import base64

    good, encoded = cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))
    assert good
    shapes = tuple(mask_to_shapes(np.pad(np.ones((8, 8), np.bool_), ((4, 8), (4, 18))), "lesion"))
    extra = {"imageData": base64.b64encode(encoded.tobytes()).decode()}
    (tmp_path / "in.json").write_bytes(write_labelme(Annotation("in.png", 30, 20, shapes, extra)))
    (tmp_path / "gone.json").write_bytes(write_labelme(Annotation("gone.png", 30, 20, shapes)))
    found = import_dataset([tmp_path], folder=tmp_path / "f")
    assert [row.image_id for row in found.rows] == ["in"]
    assert "'gone.png' is not among the files (name its folder or zip, too)" in found.rejected[0].reason
    assert json.loads((tmp_path / "in.json").read_text())["imagePath"] == "in.png"


def test_labelme_images_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    shapes = tuple(mask_to_shapes(np.pad(np.ones((8, 8), np.bool_), ((4, 8), (4, 18))), "lesion"))
    for n, who in enumerate(("anna", "berta")):
        image = np.random.default_rng(n).integers(0, 255, (20, 30, 3), np.uint8)
        for folder in ("images", "labels"):
            (tmp_path / folder / who).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "images" / who / "1.png"), image)
        label = write_labelme(Annotation("1.png", 30, 20, shapes))
        (tmp_path / "labels" / who / "1.json").write_bytes(label)
    found = import_dataset([tmp_path], folder=tmp_path.with_name("files"))
    assert [Path(row.image).parts[-2:] for row in found.rows] == [("anna", "1.png"), ("berta", "1.png")]
    (tmp_path / "labels" / "berta").rename(tmp_path / "labels" / "other")
    found = import_dataset([tmp_path], folder=tmp_path.with_name("files"))
    assert [row.image_id for row in found.rows] == ["labels_anna_1"]
    assert "'1.png' is there more than once" in found.rejected[0].reason


def test_labelme_outlines_are_not_laid_on_another_image_of_the_name(tmp_path: Path) -> None:
    """As of two visits whose LabelMe files lie in one folder, when the photographs of one are given."""
    shapes = tuple(mask_to_shapes(np.pad(np.ones((8, 8), np.bool_), ((4, 8), (4, 18))), "lesion"))
    images = []
    for n, visit in enumerate(("first", "second")):
        (tmp_path / visit).mkdir()
        (tmp_path / "labels" / visit).mkdir(parents=True)
        images.append(tmp_path / visit / "1.png")
        cv2.imwrite(str(images[n]), np.random.default_rng(n).integers(0, 255, (20, 30, 3), np.uint8))
        label = write_labelme(Annotation(f"../../{visit}/1.png", 30, 20, shapes))
        (tmp_path / "labels" / visit / "1.json").write_bytes(label)
    for n, visit in enumerate(("first", "second")):
        found = import_dataset([tmp_path / visit, tmp_path / "labels"], folder=tmp_path / "files")
        assert [Path(row.image).parts[-2:] for row in found.rows] == [(visit, "1.png")]
        (left,) = found.rejected
        assert "/1.png' is not among the files" in left.reason and left.image_id != f"{visit}_1"
        with zipfile.ZipFile(tmp_path / f"{visit}.zip", "w") as archive:
            archive.write(images[n], "1.png")
    copies = import_dataset([tmp_path / "first.zip", tmp_path / "labels"], folder=tmp_path / "files")
    assert [(row.image_id, split_location(row.image)[1]) for row in copies.rows] == [("first_1", "1.png")]
    # of a photograph in a zip, where another zip was unpacked beside the LabelMe file
    extra = {"imageZip": "../../first.zip!1.png"}
    label = write_labelme(Annotation("1.png", 30, 20, shapes, extra))
    (tmp_path / "labels" / "first" / "1.json").write_bytes(label)
    for visit, number in (("first", 1), ("second", 0)):
        shutil.copy(tmp_path / visit / "1.png", tmp_path / "labels" / "first" / "1.png")
        found = import_dataset([tmp_path / "labels" / "first"], folder=tmp_path / "files")
        assert (len(found.rows), len(found.rejected)) == (number, 1 - number)


def test_labelme_folders_of_one_name_keep_their_own_images(tmp_path: Path) -> None:
    shapes = tuple(mask_to_shapes(np.pad(np.ones((8, 8), np.bool_), ((4, 8), (4, 18))), "lesion"))
    folders = [tmp_path / who / "photos" for who in ("anna", "bert")]
    for n, folder in enumerate(folders):
        folder.mkdir(parents=True)
        image = np.random.default_rng(n).integers(0, 255, (20, 30, 3), np.uint8)
        cv2.imwrite(str(folder / "1.png"), image)
        (folder / "1.json").write_bytes(write_labelme(Annotation("1.png", 30, 20, shapes)))
    found = import_dataset(folders, folder=tmp_path / "files")
    assert [Path(row.image).parts[-3] for row in found.rows] == ["anna"]
    assert [Path(item.file).parts[-3] for item in found.rejected] == ["bert"]
    assert "--name" in found.rejected[0].reason
    (folders[0] / "1.png").unlink()
    found = import_dataset(folders, folder=tmp_path / "files")
    assert [Path(row.image).parts[-3] for row in found.rows] == ["bert"]
    assert "'1.png' is not among the files" in found.rejected[0].reason
