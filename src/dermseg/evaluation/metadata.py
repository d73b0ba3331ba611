"""What is known about images beyond their pixels: a CSV with diagnosis, site, age, sex, source, tool.

The columns of the ISIC archive and its challenges, of HAM10000 and of the shared ISIC 2018 table are known by
name; a table of your own needs only ``image_id`` and whichever of the names on the left of `COLUMNS` it has.

Names are unique within a data set only. A column ``dataset`` with the index's names of the data sets says
whose image a row is; HAM10000's own column of that name holds clinics and is a source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from dermseg.data.index import IndexRow
from dermseg.data.sources.tables import id_in_table
from dermseg.data.spreadsheet import known_text, open_table, read_rows
from dermseg.errors import DataError
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.table import Evaluation, Fact, ImageScore, Key

ID_COLUMNS = ("image_id", "isic_id", "image", "image_name", "filename", "file")
COLUMNS: dict[str, tuple[str, ...]] = {
    "diagnosis": ("diagnosis", "dx", "diagnosis_3", "diagnosis_1"),
    "site": ("site", "localization", "anatom_site_general"),
    "age": ("age", "age_approx", "age_approximate"),
    "sex": ("sex",),
    "source": ("source", "dataset", "attribution"),
    "annotation_style": ("annotation_style", "annotations"),
}
"""Fact of the per-image table -> the columns it is taken from, the first that the table has."""

_TOOLS = {"T1", "T2", "T3"}
# HAM10000's codes (Tschandl et al. 2018, doi 10.1038/sdata.2018.161, table 1).
_DIAGNOSES = {
    "akiec": "actinic keratosis, Bowen",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "nevus",
    "vasc": "vascular lesion",
}
SEVERAL_TOOLS = "several"


def read_metadata(path: str | Path) -> dict[Key, dict[str, Fact]]:
    """Facts by data set (empty where the table has no column ``dataset``) and image id; unknown is None.

    Raises
    ------
    DataError
        The file cannot be read, has a line with more cells than the header, names no images, or names one
        twice with different facts.
    """
    file = Path(path)
    try:
        reader = open_table(file, "metadata")
    except FileNotFoundError:
        raise DataError("the metadata cannot be read: no such file", file=file) from None
    header = [name.strip().lower().replace(" ", "_") for name in reader.fieldnames or ()]
    reader.fieldnames = header
    identity = next((name for name in ID_COLUMNS if name in header), None)
    if identity is None:
        raise DataError(
            "no column names the images", file=file, hint=f"call one of them {' or '.join(ID_COLUMNS)}"
        )
    used = {
        fact: column
        for fact, columns in COLUMNS.items()
        if (column := next((name for name in columns if name in header), None)) is not None
    }
    if not used:
        raise DataError("no column that can be used", file=file, hint=f"one of {', '.join(COLUMNS)}")
    table: dict[Key, dict[str, Fact]] = {}
    for row in read_rows(reader, file):
        if not (text := row[identity]):
            continue
        facts = {fact: _parse(fact, row[column]) for fact, column in used.items()}
        image_id = id_in_table(text)
        if table.setdefault((row.get("dataset", ""), image_id), facts) != facts:
            raise DataError(f"line {reader.line_num}: '{image_id}' is named twice and differently", file=file)
    return table


def check_names(rows: Iterable[IndexRow], metadata: Mapping[Key, Mapping[str, Fact]]) -> None:
    """Refuse before the work what `attach` would refuse after it.

    Raises
    ------
    DataError
        As `attach`, of the images that are to be evaluated.
    """
    scores = [ImageScore(row.image_id, Counts(0, 0, 0, 1), row.dataset) for row in rows]
    attach(Evaluation(scores), metadata)


def attach(evaluation: Evaluation, metadata: Mapping[Key, Mapping[str, Fact]]) -> Evaluation:
    """The same evaluation with the facts of `read_metadata` added to its images.

    Raises
    ------
    DataError
        None of the images is in the metadata, or a name there may mean images of several data sets.
    """
    by_name = _by_name(metadata, evaluation)
    meant: dict[str, set[str]] = {}
    known = [_facts_of(score, metadata, by_name, meant) for score in evaluation.scores]
    if shared := [name for name, datasets in meant.items() if len(datasets) > 1]:
        which = ", ".join(f"'{dataset}'" for dataset in sorted(meant[shared[0]]))
        raise DataError(
            f"{len(shared)} names in the metadata mean images of several data sets, such as '{shared[0]}' "
            f"({which})",
            hint="evaluate each data set by itself, or name it in a column 'dataset' as the index does",
        )
    if evaluation.scores and not any(facts is not None for facts in known):
        first = evaluation.scores[0].image_id
        raise DataError(f"the metadata names none of the {evaluation.n} images, for example not '{first}'")
    scores = [
        replace(score, facts={**score.facts, **(facts or {})})
        for score, facts in zip(evaluation.scores, known, strict=True)
    ]
    return Evaluation(scores, evaluation.failures)


def _by_name(
    metadata: Mapping[Key, Mapping[str, Fact]], evaluation: Evaluation
) -> dict[str, Mapping[str, Fact]]:
    """The rows that say nothing of the data set: all of them, where none has one of the evaluation's."""
    datasets = {score.dataset for score in evaluation.scores}
    names = {id_in_table(score.image_id) for score in evaluation.scores}
    told = any(dataset and dataset in datasets for dataset, _ in metadata)
    found: dict[str, Mapping[str, Fact]] = {}
    for (dataset, name), facts in metadata.items():
        if name in names and not (told and dataset) and found.setdefault(name, facts) != facts:
            raise DataError(
                f"the metadata names '{name}' twice and differently",
                hint="a column 'dataset' tells such images apart, with the names that the index has for the "
                f"data sets: {', '.join(sorted(datasets)) or 'here none'}",
            )
    return found


def _facts_of(
    score: ImageScore,
    metadata: Mapping[Key, Mapping[str, Fact]],
    by_name: Mapping[str, Mapping[str, Fact]],
    meant: dict[str, set[str]],
) -> Mapping[str, Fact] | None:
    """What is known of an image; notes in ``meant`` whose image is found by its name alone."""
    name = id_in_table(score.image_id)
    facts = metadata.get((score.dataset, name)) if score.dataset else None
    if facts is None and (facts := by_name.get(name)) is not None:
        meant.setdefault(name, set()).add(score.dataset)
    return facts


def _parse(fact: str, text: str) -> Fact:
    value = known_text(text)
    if not value:
        return None
    if fact == "annotation_style":
        return _tool(value)
    if fact == "diagnosis":
        return _DIAGNOSES.get(value, value)
    if fact == "age":
        try:
            return float(value.replace(",", "."))  # a decimal comma, as Excel and pandas write it
        except ValueError:
            return None
    return value


def _tool(value: str) -> str | None:
    """``A04/T3/S1;A02/T3/S1;MV/MV/MV`` (who drew, with which tool, how skilled) -> the tool.

    Consensus masks (ST, MV) are computed from the drawn ones and are not a style of their own. Where people
    used different tools nobody says whose mask the reference is.
    """
    tools = {part for entry in value.split(";") for part in entry.split("/")} & _TOOLS
    if not tools:
        return None if "/" in value else value
    return tools.pop() if len(tools) == 1 else SEVERAL_TOOLS
