"""A table of visits."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from dermseg.data.visits import read_visits
from dermseg.errors import DataError


def table(folder: Path, text: str) -> Path:
    path = folder / "visits.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_lesions_in_order_of_time(tmp_path: Path) -> None:
    lesions, nameless = read_visits(
        table(
            tmp_path,
            "lesion,image,date,spacing_mm,mask,remark\n"
            "arm,b.jpg,2026-03-01,0.02,,x\n"
            "back,sub/c.jpg,,,,\n"
            ",nobody.jpg,,,,\n"
            "NA,unknown.jpg,NA,NA,NA,NA\n"  # of R: no lesion called NA
            "arm,photos.zip!in/a.jpg,2025-12-31T10:00,,m.png,\n",
        )
    )
    arm, back = lesions
    assert nameless == 2 and [one.lesion for one in arm] == ["arm", "arm"]
    assert [one.taken for one in arm] == [date(2025, 12, 31), date(2026, 3, 1)]
    first, second = arm
    assert (first.image.path, first.image.member) == (tmp_path / "photos.zip", "in/a.jpg")
    assert first.mask is not None and first.mask.path == tmp_path / "m.png" and first.spacing_mm is None
    assert second.spacing_mm == (0.02, 0.02) and second.mask is None
    assert back[0].image.path == tmp_path / "sub/c.jpg" and back[0].taken is None


def test_of_one_day_the_time_says_which_was_first(tmp_path: Path) -> None:
    text = "image,date\nb.jpg,2026-03-01T15:00\na.jpg,2026-03-01T09:30Z\n"
    ((one, two),), _ = read_visits(table(tmp_path, text))
    assert (one.image.name, two.image.name) == ("a.jpg", "b.jpg") and one.taken == date(2026, 3, 1)


def test_without_names_it_is_one_lesion_in_the_order_of_the_rows(tmp_path: Path) -> None:
    ((one, two),), _ = read_visits(table(tmp_path, "\ufeffimage\nz.jpg\na.jpg\n"))
    assert (one.image.name, two.image.name, one.lesion) == ("z.jpg", "a.jpg", "")


def test_lesions_of_two_people_are_not_one(tmp_path: Path) -> None:
    lesions, _ = read_visits(table(tmp_path, "image,subject,lesion\na.jpg,P1,1\nb.jpg,P2,1\nc.jpg,P1,1\n"))
    assert [[one.lesion for one in group] for group in lesions] == [["P1/1", "P1/1"], ["P2/1"]]


def test_lesions_of_one_name_in_two_data_sets_of_an_index_are_two(tmp_path: Path) -> None:
    """As in the index's groups; what the ISIC archive has named is the same thing everywhere."""
    rows = ["a.jpg,x,1", "b.jpg,y,1", "c.jpg,x,1", "d.jpg,x,2", "e.jpg,x,HAM_0000001", "f.jpg,y,HAM_0000001"]
    lesions, _ = read_visits(table(tmp_path, "\n".join(["image,dataset,lesion", *rows])))
    found = [(group[0].lesion, [one.image.name for one in group]) for group in lesions]
    assert found == [
        ("x/1", ["a.jpg", "c.jpg"]),
        ("y/1", ["b.jpg"]),
        ("2", ["d.jpg"]),
        ("HAM_0000001", ["e.jpg", "f.jpg"]),
    ]
    ((one, two),), _ = read_visits(table(tmp_path, "image,dataset\na.jpg,x\nb.jpg,y\n"))
    assert one.lesion == two.lesion == ""  # without a column lesion all show one


@pytest.mark.parametrize("mark", [", ", ";", "\t"])
def test_columns_as_spreadsheets_write_them(tmp_path: Path, mark: str) -> None:
    """A column that is not recognised would make two lesions one."""
    text = "Image,Lesion,DATE \na.jpg,1,2026-02-01\nb.jpg,2,2026-01-01\nc.jpg,1,2026-01-01\n"
    lesions, _ = read_visits(table(tmp_path, text.replace(",", mark)))
    assert [[one.image.name for one in group] for group in lesions] == [["c.jpg", "a.jpg"], ["b.jpg"]]


def test_a_decimal_comma_is_one(tmp_path: Path) -> None:
    ((one,),), _ = read_visits(table(tmp_path, "image;spacing_mm\na.jpg;0,021\n"))
    assert one.spacing_mm == (0.021, 0.021)


@pytest.mark.parametrize("unknown", ["", "NA", "n/a", "unknown"])
def test_a_scale_that_is_not_known_is_none(tmp_path: Path, unknown: str) -> None:
    """R writes NA for what is missing: one photograph of a table without a scale ended all of it."""
    text = f"image,lesion,spacing_mm\na.jpg,1,0.021\nb.jpg,1,{unknown}\n"
    ((one, two),), _ = read_visits(table(tmp_path, text))
    assert (one.spacing_mm, two.spacing_mm) == ((0.021, 0.021), None)


def test_names_that_look_alike_together_are_two_people(tmp_path: Path) -> None:
    lesions, _ = read_visits(table(tmp_path, "image,subject,lesion\na.jpg,P/1,2\nb.jpg,P,1/2\n"))
    assert [len(group) for group in lesions] == [1, 1]


def test_a_table_of_another_encoding_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text("image\nfüß.jpg\n", encoding="cp1252")
    with pytest.raises(DataError, match="save it as CSV UTF-8"):
        read_visits(tmp_path / "visits.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,lesion\na.jpg,1\n", "no column 'image'"),
        ("image,lesion\n,1\n", "line 2 has no image"),
        ("image,lesion\na.jpg\n", "line 2 does not have the columns"),
        ("image,date\na.jpg,1.3.2026\n", "line 2: '1.3.2026' is not a date"),
        ("image,spacing_mm\na.jpg,-1\n", "line 2: spacing_mm '-1'"),
        ("image,spacing_mm\na.jpg,nan\n", "line 2: spacing_mm 'nan'"),
        ("image,spacing_mm\na.jpg,1e300\n", "line 2: spacing_mm '1e300' is not a number between 0.000001"),
        ("image,lesion,date\na.jpg,x,2026-01-01\nb.jpg,x,\n", "'b.jpg' has no date"),
        ("image,lesion\n", "no row"),
        ("image,lesion,Lesion\na.jpg,1,2\n", "more than one column 'lesion'"),
    ],
)
def test_what_cannot_be_right_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_visits(table(tmp_path, text))
    assert str(tmp_path) in str(caught.value)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_visits(tmp_path / "none.csv")
