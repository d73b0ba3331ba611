"""What the user names becomes a list of sources; names from zips are never trusted."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from struct import pack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermseg.errors import ImageError, UsageError
from dermseg.images import ImageSource, as_source, close_zips, encode_mask, find_images, load_image
from dermseg.images.names import UniqueNames, natural_key, portable_name
from dermseg.images.roles import find_photographs, tell_apart
from dermseg.images.zips import open_zip
from dermseg.inference.outputs import LAYOUT

PNG = encode_mask(np.eye(5, dtype=bool))


def names(*inputs: str | Path, exclude: Path | None = None) -> list[str]:
    return [source.name for source in find_images(inputs, exclude=[] if exclude is None else [exclude])]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a10.png", "a2.png", "sub/b.JPG", "sub/deep/c.tif", "notes.txt", "._a2.png", "out/x.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return tmp_path / "photos"


def write_zip(path: Path, *members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            info = zipfile.ZipInfo("x")
            info.filename = member
            archive.writestr(info, PNG)
    return path


def test_folder_is_recursive_sorted_and_filtered(tree: Path) -> None:
    assert names(tree, exclude=tree / "out") == ["a2.png", "a10.png", "sub/b.JPG", "sub/deep/c.tif"]


def test_camera_raw_is_a_source_where_no_picture_was_made_of_it(tmp_path: Path) -> None:
    for name in ("both.NEF", "both.jpg", "alone.dng", "sub/both.nef", "live.mov", "new.jxl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG)
    assert names(tmp_path) == ["alone.dng", "both.jpg", "new.jxl", "sub/both.nef"]


def test_what_is_named_is_found_where_the_output_folder_is(tree: Path) -> None:
    """A photograph, a folder or a glob inside the folder that is written to."""
    assert names(tree / "a2.png", exclude=tree) == ["a2.png"]
    assert names(tree / "sub", exclude=tree) == ["b.JPG", "deep/c.tif"]
    assert names(str(tree / "*.png"), exclude=tree / "out") == ["a2.png", "a10.png"]
    assert names(str(tree / "**" / "*.png"), exclude=tree / "out") == ["a2.png", "a10.png"]


def test_named_file_is_always_taken_and_only_once(tree: Path) -> None:
    assert names(tree / "notes.txt", tree / "sub", tree / "sub" / "b.JPG") == [
        "b.JPG",
        "deep/c.tif",
        "notes.txt",
    ]


def test_globs_keep_what_varies(tree: Path) -> None:
    assert names(f"{tree}/**/*.*") == ["a2.png", "a10.png", "out/x.png", "sub/b.JPG", "sub/deep/c.tif"]
    assert names(f"{tree}/su*") == ["sub/b.JPG", "sub/deep/c.tif"]
    # never out of the output folder: "**" is also the folder itself
    assert names(f"{tree}/sub/**") == ["b.JPG", "deep/c.tif"]
    assert names(f"{tree}/sub/*/../../ou*") == ["out/x.png"]


def test_folders_that_are_called_like_a_glob(tree: Path) -> None:
    folder = tree / "photos [2024]"
    (tree / "sub").rename(folder)
    assert names(folder) == names(f"{folder}/**/*") == ["b.JPG", "deep/c.tif"]


def test_same_names_from_two_inputs_stay_apart(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(PNG)
    last = write_zip(tmp_path / "right.zip", "A.png")
    assert names(tmp_path / "left", tmp_path / "right", last) == ["a.png", "right/A-2.png", "right/a.png"]


def test_nothing_found_is_a_usage_error(tmp_path: Path) -> None:
    for given_ in ([tmp_path], [tmp_path / "none"], [f"{tmp_path}/*.jpg"], []):
        with pytest.raises(UsageError, match=r"name files|check the path"):
            find_images(given_)


@pytest.mark.skipif(os.name == "nt", reason="case makes no difference there")
def test_a_pattern_of_the_other_case_is_told(tree: Path) -> None:
    """Cameras write ``IMG_1.JPG``, people ``*.jpg``."""
    with pytest.raises(UsageError, match=r"'.*/\*\*/\*\.JPG' finds some"):
        find_images([f"{tree}/**/*.jpg"])
    for pattern in (f"{tree}/*.t*", f"{tree}/*.bmp"):
        with pytest.raises(UsageError, match="name files"):
            find_images([pattern])


@pytest.mark.skipif(os.name == "nt", reason="links take a right of their own there")
def test_linked_folders_that_lead_elsewhere_are_told(tree: Path, tmp_path: Path) -> None:
    """Their photographs were missed without a word."""
    (tmp_path / "only").mkdir()
    (tmp_path / "only/visits").symlink_to(tree)
    with pytest.raises(UsageError, match=r"linked folders are looked into .*only/visits"):
        find_images([tmp_path / "only"])
    (tree / "sub/loop").symlink_to(tree)
    assert (
        find_photographs([tree])[1] == find_photographs([f"{tree}/*"])[1] == []
    )  # it leads to what is there
    (tmp_path / "only/a.png").write_bytes(PNG)
    found, remarks = find_photographs([tmp_path / "only"])
    assert [s.name for s in found] == ["a.png"]
    assert remarks == [f"1 linked folder is not looked into unless named: {tmp_path}/only/visits"]


def test_links_and_pipes_give_a_reason_and_do_not_hang(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    (tmp_path / "self").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    sources = find_images([tmp_path])
    assert [source.name for source in sources] == ["broken.jpg", "loop.jpg", "pipe.jpg"]
    for source in sources:
        with pytest.raises(ImageError):
            load_image(source)


def test_zip_names_are_made_safe_and_unique(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "x.zip", "../../up.png", "/abs.png", "C:\\win\\d.png", "..\\e.png", "__MACOSX/._f.png",
        "twice.png", "con.png", "folder.png/", "more.zip",
    )  # fmt: skip
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("twice.png", encode_mask(np.ones((2, 2), bool)))
    sources = find_images([path])
    assert [source.name for source in sources] == [
        "_con.png", "abs.png", "e.png", "twice.png", "up.png", "win/d.png", "x/twice.png",
    ]  # fmt: skip
    sizes = {source.name: load_image(pickle.loads(pickle.dumps(source))).info.width for source in sources}
    assert sizes.pop("x/twice.png") == 2
    assert set(sizes.values()) == {5}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["x.zip"]


@given(st.text(alphabet=st.characters() | st.sampled_from("./\\:"), max_size=60))
def test_portable_name_is_relative_everywhere(stored: str) -> None:
    name = portable_name(stored)
    assert name
    assert portable_name(name) == name
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert not path.is_absolute()
        assert not path.drive
        assert ".." not in path.parts
    name.encode()


def test_long_names_keep_their_extension() -> None:
    name = portable_name("x/" * 2000 + "ä" * 3000 + ".jpg")
    assert name.endswith(".jpg")
    assert len(name) < 700
    assert all(len(part.encode()) <= 200 for part in name.split("/"))


@given(st.lists(st.text("aA1.é/", min_size=1, max_size=4), max_size=30))
def test_names_are_unique_whatever_the_case(wanted: list[str]) -> None:
    unique = UniqueNames()
    given_ = [unique.take(name, "p").casefold() for name in wanted]
    assert len(set(given_)) == len(given_)


def test_natural_order() -> None:
    shuffled = ["x10", "x9b", "x09", "x1", "x" + "9" * 5000]
    assert sorted(shuffled, key=natural_key) == ["x1", "x09", "x9b", "x10", "x" + "9" * 5000]


def patch_directory(path: Path, offset: int, value: bytes) -> None:
    """Change a field of the last entry in the central directory (APPNOTE 4.3.12)."""
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02") + offset
    data[place : place + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, pack("<H", 1), "encrypted"),
        (10, pack("<H", 97), "packed in a way"),
        (16, b"\1\2\3\4", "damaged here"),
        (24, pack("<I", 4_000_000_000), "more than"),
        (38, pack("<I", 0o120777 << 16), "symbolic link"),
        (42, pack("<I", 3), "damaged here"),
    ],
)
def test_bad_members_say_why(tmp_path: Path, offset: int, value: bytes, reason: str) -> None:
    path = write_zip(tmp_path / "x.zip", "a.png")
    patch_directory(path, offset, value)
    with pytest.raises(ImageError, match=reason) as caught:
        load_image(find_images([path])[0])
    assert caught.value.file == f"{path}!a.png"


def test_zip_bomb_stops_at_the_real_size(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(3_000_000))
    source = find_images([path])[0]
    with pytest.raises(ImageError, match="zeros"):
        load_image(source)
    with pytest.raises(ImageError, match="3,000,000 bytes"):
        source.read_bytes(max_bytes=100_000)


def test_damaged_zip_is_one_failing_source(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", "a.png")
    path.write_bytes(path.read_bytes()[:-30])
    (source,) = find_images([path])
    with pytest.raises(ImageError):
        load_image(source)


def test_names_in_zips_of_macs_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", "Mu\u0308ller/Fu\u00df.jpg")
    data = bytearray(path.read_bytes())
    for flags in (6, data.index(b"PK\1\2") + 8):  # a Mac does not say that its names are UTF-8
        assert data[flags + 1] == 8
        data[flags + 1] = 0
    path.write_bytes(data)
    found = find_images([path])[0]
    assert (found.name, found.read_bytes()) == ("M\u00fcller/Fu\u00df.jpg", PNG)
    assert as_source(found.label).read_bytes() == PNG
    earlier = (found.member or "").encode().decode("cp437")  # as indexes of earlier versions have it
    assert as_source(f"{path}!{earlier}").read_bytes() == PNG


def test_part_of_a_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.ZIP", "images/a.png", "masks/a.png")
    assert names(f"{path}!images/*") == names(f"{path}!images") == ["images/a.png"]
    assert names(f"{write_zip(tmp_path / 'y.zip', '[a].png', 'a.png')}![a].png") == ["[a].png", "a.png"]
    assert as_source(f"{path}!masks/a.png") == ImageSource("masks/a.png", path, "masks/a.png")


def test_one_handle_for_all_threads_and_members(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", *(f"{number}.png" for number in range(200)))
    sources = find_images([path])
    handle = open_zip(path)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda source: source.read_bytes(), sources)) == {PNG}
    assert open_zip(path) is handle
    write_zip(path, "other.png", "more.png")  # a changed file is opened anew
    assert names(path) == ["more.png", "other.png"]
    close_zips()
    assert sources[0].path == path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_process_opens_its_own_handle(tmp_path: Path) -> None:
    import multiprocessing

    path = write_zip(tmp_path / "x.zip", "a.png")
    (source,) = find_images([path])
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe()
    child = context.Process(target=lambda: writer.send(source.read_bytes() == PNG))
    child.start()
    assert reader.poll(20)
    assert reader.recv() is True
    child.join()


def test_grey_picture_opens(tree: Path) -> None:
    with Image.open(tree / "a2.png") as image:
        assert image.mode == "L"


def test_reference_masks_beside_their_images_are_told_apart(tmp_path: Path) -> None:
    names = ["images/a.jpg", "masks/a_segmentation.png", "b_lesion.png", "c.png", "c_mask.PNG"]
    sources = [ImageSource(name, tmp_path / name) for name in names]
    images, masks, _ = roles = tell_apart(sources)
    assert roles.remarks()[0].endswith("by name (masks/a_segmentation.png, c_mask.PNG)")
    assert [s.name for s in images] == ["images/a.jpg", "b_lesion.png", "c.png"]
    assert [s.name for s in masks] == ["masks/a_segmentation.png", "c_mask.PNG"]


def test_a_labelme_file_beside_its_photograph_is_none(tmp_path: Path) -> None:
    """Half of the rows were unreadable images, where all files of a folder were dropped on the window."""
    names = ["a.JPG", "a.json", "b.png", "c.json", "d/b.json"]
    images, masks, _ = tell_apart([ImageSource(name, tmp_path / name) for name in names])
    assert [s.name for s in images] == ["a.JPG", "b.png", "c.json", "d/b.json"]
    assert [s.name for s in masks] == ["a.json"]


def test_masks_in_a_folder_of_their_own_may_have_the_names_of_their_images(tmp_path: Path) -> None:
    """README's layout of one's own data: 'segment data/' outlined the masks too."""
    masks = ["masks/a.png", "anna/Masks/b.png", "gt/c.png"]
    names = ["images/a.jpg", "anna/images/b.jpg", "c.jpg", *masks, "masks/b.png", "labels/alone.png"]
    found = tell_apart([ImageSource(name, tmp_path / name) for name in names])
    assert [s.name for s in found.masks] == masks
    assert [s.name for s in found.photographs] == [name for name in names if name not in masks]


def test_what_isic_and_ph2_give_beside_their_images_is_no_photograph(tmp_path: Path) -> None:
    beside = ["d/ISIC_0000001_superpixels.png", "t/ISIC_0000001_attribute_milia_like_cyst.png"]
    beside += ["IMD013/IMD013_lesion/IMD013_lesion.bmp", "IMD013/IMD013_roi/IMD013_R1_LabelStreaks.bmp"]
    photographs = ["d/ISIC_0000001.jpg", "IMD013/IMD013_Dermoscopic_Image/IMD013.bmp"]
    names = [*photographs, *beside, "d/ISIC_0000002_superpixels.png"]
    images, masks, _ = tell_apart([ImageSource(name, tmp_path / name) for name in names])
    assert [s.name for s in images] == [*photographs, "d/ISIC_0000002_superpixels.png"]
    assert [s.name for s in masks] == beside


def test_results_of_an_earlier_run_are_no_photographs(tree: Path) -> None:
    """Wherever the output folder is, also where it is named, as a shell does with ``*``; what else lies in it
    may be the photographs, which were segmented with ``-o .``."""
    for place in (tree, tree / "sub"):
        (place / "journal.jsonl").touch()
    for kind, (folder, ending) in LAYOUT.items():
        if kind != "labelme":
            (tree / "sub" / folder / "b").mkdir(parents=True, exist_ok=True)
            (tree / "sub" / folder / "b" / f"b{ending}").write_bytes(PNG)
    for inputs in ([tree], [tree / "sub"], [f"{tree}/*"], sorted(tree.iterdir())):
        found = tell_apart(find_images(inputs))
        assert len(found.results) == len(LAYOUT) - 1
        names = {source.path.name for source in found.photographs}
        assert {"b.JPG", "c.tif"} <= names and "b.jpg" not in names
    assert "13 files are left out: results of an earlier run (" in found.remarks()[0]
    assert len(tell_apart(find_images([tree / "sub" / "overlays"])).photographs) == 1  # they were named


def test_masks_of_an_index_are_no_photographs(tmp_path: Path) -> None:
    """``dermseg label import .`` among the photographs, and the next round took its masks for new ones."""
    for name in (
        "a.jpg",
        "index.csv",
        "index-files/masks/a.png",
        "index-files/images/b.jpg",
        "x-files/masks/c.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    found = tell_apart(find_images([tmp_path]))
    assert [s.name for s in found.photographs] == ["a.jpg", "index-files/images/b.jpg", "x-files/masks/c.png"]
    assert [s.name for s in found.results] == ["index-files/masks/a.png"]
    assert not tell_apart(find_images([tmp_path / "index-files" / "masks"])).results  # it was named


def test_a_closed_folder_is_a_row_that_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "sub":  # to root no folder is closed
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (source,) = (s for s in find_images([tree]) if s.name == "sub")
    with pytest.raises(ImageError, match="is a folder"):
        source.read_bytes()


def test_a_folder_that_can_be_listed_and_not_entered_is_no_end_for_the_others(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(real: Callable[[Path], bool]) -> Callable[[Path], bool]:  # to root no folder is
        def look(path: Path) -> bool:
            if path.parent.name == "sub":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        return look

    monkeypatch.setattr(Path, "is_file", closed(Path.is_file))
    monkeypatch.setattr(Path, "is_dir", closed(Path.is_dir))
    found = tell_apart(find_images([f"{tree}/*/*"])).photographs
    assert "sub/b.JPG" in [source.name for source in found]
