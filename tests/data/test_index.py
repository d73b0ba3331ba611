"""The index survives a round trip, moves between folders, and says what is wrong with a bad file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermseg.data.index import (
    COLUMNS,
    IndexRow,
    merge,
    open_image,
    open_mask,
    read_index,
    split_location,
    write_index,
)
from dermseg.errors import DataError

ROW = IndexRow(
    image_id="ISIC_0000001",
    image="in.zip!a/ISIC_0000001.jpg",
    masks=("gt.zip!ISIC_0000001_segmentation.png", "second, by A04.png"),
    dataset="isic2018",
    subject="IP_0000001",
    group="IP_0000001",
    split="train",
    width=640,
    height=480,
    licence="CC-0",
    sha256="ab" * 32,
)


def test_columns_are_the_contract() -> None:
    assert ",".join(COLUMNS) == (
        "image_id,image,masks,dataset,subject,lesion,group,split,width,height,licence,sha256"
    )


def test_round_trip(tmp_path: Path) -> None:
    rows = [
        replace(ROW, root=tmp_path),
        IndexRow("x", "a b.png", dataset='odd, "name"', root=tmp_path),
        IndexRow("y", " in/y.png", (" in/y_mask.png", "  /y.png"), root=tmp_path),
    ]
    write_index(rows, tmp_path / "index.csv")
    back = read_index(tmp_path / "index.csv")
    assert back == rows
    assert (tmp_path / "index.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert list(tmp_path.iterdir()) == [tmp_path / "index.csv"]  # no temporary file stays
    # R saves an empty column as NA, which is no patient that all images are of
    (tmp_path / "r.csv").write_text(",".join(COLUMNS) + "\nx,y.png,,d,NA,NA,NA,NA,4,3,NA,\n")
    (row,) = read_index(tmp_path / "r.csv")
    assert (row.subject, row.lesion, row.group, row.split) == ("", "", "", "")


def test_locations_follow_the_index(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_index([replace(ROW, root=data)], tmp_path / "deep" / "er" / "index.csv")
    row = read_index(tmp_path / "deep" / "er" / "index.csv")[0]
    assert row.image == "../../data/in.zip!a/ISIC_0000001.jpg"
    image, mask = open_image(row), open_mask(row, 1)
    assert image.path.resolve() == (data / "in.zip").resolve()
    assert image.member == "a/ISIC_0000001.jpg"
    assert image.name == "isic2018/ISIC_0000001.jpg"
    assert mask.path.resolve() == (data / "second, by A04.png").resolve()
    assert mask.member is None
    with pytest.raises(DataError, match="2 masks"):
        open_mask(row, 2)


@given(
    st.lists(st.sampled_from(["a", "b.zip", "c!d", "..", "e.ZIP"]), min_size=1, max_size=4),
    st.one_of(st.none(), st.sampled_from(["x.png", "f/x!y.png", "g/h.jpg"])),
)
def test_location_splits_at_the_archive(parts: list[str], member: str | None) -> None:
    path = "/".join(parts)
    archive = f"{path}/z.zip"
    assert split_location(f"{archive}!{member}" if member else archive) == (archive, member)
    assert split_location(path) == (path, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,image\nx,y\n", "no column masks"),
        (",".join((*COLUMNS, "split")) + "\n", "the column split is there twice"),
        (",".join(COLUMNS) + "\nx,y.png,,,,,,,12px,,,\n", "line 2: width '12px'"),
        (",".join(COLUMNS) + "\nx,y.png\n", "line 2"),
        (",".join(COLUMNS) + "\n,y.png" + "," * 10 + "\n", "no image_id"),
        (",".join(COLUMNS) + ("\nx,y.png" + "," * 10) * 2 + "\n", "listed twice"),
    ],
)
def test_bad_index_says_where(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "index.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_index(file)
    assert caught.value.file == str(file)


def test_later_rows_replace_earlier_ones() -> None:
    other = replace(ROW, dataset="ham10000")
    newer = replace(ROW, split="test")
    assert merge([ROW, other], [newer]) == [newer, other]


def test_one_name_for_two_images_is_refused(tmp_path: Path) -> None:
    old = replace(ROW, root=tmp_path)
    moved = replace(old, image="elsewhere.jpg", split="val")
    saved_anew = replace(old, sha256="cd" * 32)
    assert merge([old], [moved]) == [moved] and merge([old], [saved_anew]) == [saved_anew]
    deep = replace(saved_anew.rebased(tmp_path / "deep"), split="val")
    assert merge([old], [deep]) == [deep]
    with pytest.raises(
        DataError, match=r"'ISIC_0000001' of data set 'isic2018' is two different images.*--name"
    ):
        merge([old], [replace(saved_anew, image="elsewhere.jpg")])
