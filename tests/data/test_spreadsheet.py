"""Tables that went through a spreadsheet are read as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermseg.data.index import COLUMNS, read_index
from dermseg.data.sources.tables import Assignment, read_metadata, read_splits
from dermseg.data.visits import read_visits
from dermseg.errors import DataError
from dermseg.evaluation.metadata import read_metadata as read_facts

EXPORTS = [(",", "utf-8"), (";", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16")]


@pytest.mark.parametrize(("mark", "encoding"), EXPORTS)
def test_what_excel_exports_is_read_everywhere(tmp_path: Path, mark: str, encoding: str) -> None:
    def save(name: str, *rows: str) -> Path:
        text = "".join(row.replace(",", mark) + "\r\n" for row in rows)
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    people = save("people.csv", "Image_ID,Patient_ID,Dx,split", "Fuß 1,P1,nv,train", "b,P2,mel,test")
    assert {name: facts.subject for name, facts in read_metadata(people).items()} == {
        "Fuß 1": "P1",
        "b": "P2",
    }
    assert read_splits(people).rows["", "Fuß 1"].split == "train"
    assert read_facts(people) == {("", "Fuß 1"): {"diagnosis": "nevus"}, ("", "b"): {"diagnosis": "melanoma"}}
    ((one,), (two,)), _ = read_visits(save("visits.csv", "Image,Lesion", "Fuß.jpg,1", "b.jpg,2"))
    assert (one.image.name, two.image.name) == ("Fuß.jpg", "b.jpg")
    # As Excel quotes it: the list of masks has semicolons of its own
    values = {"image_id": "Fuß 1", "image": "Fuß.jpg", "masks": '"a.png;b.png"', "width": "4", "height": "3"}
    (row,) = read_index(save("index.csv", ",".join(COLUMNS), ",".join(values.get(c, "") for c in COLUMNS)))
    assert (row.image_id, row.masks, row.width) == ("Fuß 1", ("a.png", "b.png"), 4)


def test_another_encoding_says_what_to_do(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_bytes("image_id;patient_id\r\nFuß;P1\r\n".encode("cp1252"))
    for read in (read_metadata, read_splits, read_facts, read_index, read_visits):
        with pytest.raises(DataError, match="save it as CSV UTF-8"):
            read(table)


def test_a_line_with_a_mark_too_many_is_refused(tmp_path: Path) -> None:
    """Every cell behind it is in the next one's column: a part of the diagnosis was taken for the patient."""
    table = tmp_path / "people.csv"
    table.write_text("image_id,dx,patient_id,split\na,nv,P1,train\nb,nevus, dysplastic,P2,test\n")
    for read in (read_metadata, read_splits, read_facts):
        with pytest.raises(DataError, match=r"line 3 has more cells than the header .*','.*quotes"):
            read(table)
    table.write_text("image_id;dx;patient_id;split\na;nv;P1;train;\nb;mel;P2;test; ;\n")  # none in them
    assert [facts.subject for facts in read_metadata(table).values()] == ["P1", "P2"]
    assert read_facts(table)["", "b"] == {"diagnosis": "melanoma"}


def test_a_first_line_for_excel_is_no_header(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_bytes(b"sep=;\r\nimage_id;patient_id;split\r\na;P1;train\r\n")
    assert read_metadata(table)["a"].subject == "P1"
    assert read_splits(table).find("", "a") == Assignment("train")


def test_a_list_of_files_from_windows(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("file,patient,split\nD:\\photos\\anna\\1.JPG,A,train\nD:\\photos\\bert\\2.jpg,B,test\n")
    people, splits = read_metadata(table), read_splits(table)
    assert (people["1"].subject, people["anna/1"].subject, people["bert_2"].subject) == ("A", "A", "B")
    assert [splits.find("", name) for name in ("1", "bert/2")] == [Assignment("train"), Assignment("test")]
