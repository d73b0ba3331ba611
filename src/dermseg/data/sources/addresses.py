"""Where the official files of the data sets are served, under which licence, and whom to cite."""

from __future__ import annotations

from dataclasses import dataclass

from dermseg.data.sources.base import Layout
from dermseg.data.sources.ham10000 import HAM10000
from dermseg.data.sources.isic import ISIC2016, ISIC2017, ISIC2018


@dataclass(frozen=True)
class Address:
    """One official file: its name on disk, where it is served, and which part of the data set it is."""

    name: str
    url: str
    part: str  # "training", "validation", "test" or "metadata"


@dataclass(frozen=True)
class Collection:
    """The files of one data set."""

    layout: Layout
    files: tuple[Address, ...]
    home: str
    licence_url: str

    @property
    def notice(self) -> str:
        """Text of the licence and attribution file that is saved beside the files."""
        return (
            f"{self.layout.summary}\n\nSource: {self.home}\nLicence: {self.layout.licence}\n"
            f"Licence text: {self.licence_url}\nCite: {self.layout.citation}\n"
        )


_CHALLENGE = "https://isic-challenge-data.s3.amazonaws.com"
_DATAVERSE = "https://dataverse.harvard.edu/api/access/datafile"


def _challenge(year: int, *names: tuple[str, str]) -> tuple[Address, ...]:
    return tuple(Address(f"{name}.zip", f"{_CHALLENGE}/{year}/{name}.zip", part) for part, name in names)


COLLECTIONS: dict[str, Collection] = {
    "isic2016": Collection(
        ISIC2016,
        _challenge(
            2016,
            ("training", "ISBI2016_ISIC_Part1_Training_Data"),
            ("training", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
            ("test", "ISBI2016_ISIC_Part1_Test_Data"),
            ("test", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
        ),
        home="https://challenge.isic-archive.com/data/#2016",
        licence_url="https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    ),
    "isic2017": Collection(
        ISIC2017,
        _challenge(
            2017,
            ("training", "ISIC-2017_Training_Data"),
            ("training", "ISIC-2017_Training_Part1_GroundTruth"),
            ("validation", "ISIC-2017_Validation_Data"),
            ("validation", "ISIC-2017_Validation_Part1_GroundTruth"),
            ("test", "ISIC-2017_Test_v2_Data"),
            ("test", "ISIC-2017_Test_v2_Part1_GroundTruth"),
        ),
        home="https://challenge.isic-archive.com/data/#2017",
        licence_url="https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    ),
    "isic2018": Collection(
        ISIC2018,
        _challenge(
            2018,
            ("training", "ISIC2018_Task1-2_Training_Input"),
            ("training", "ISIC2018_Task1_Training_GroundTruth"),
            ("validation", "ISIC2018_Task1-2_Validation_Input"),
            ("validation", "ISIC2018_Task1_Validation_GroundTruth"),
            ("test", "ISIC2018_Task1-2_Test_Input"),
            ("test", "ISIC2018_Task1_Test_GroundTruth"),
        ),
        home="https://challenge.isic-archive.com/data/#2018",
        licence_url="https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    ),
    "ham10000": Collection(
        HAM10000,
        (
            Address("HAM10000_images_part_1.zip", f"{_DATAVERSE}/3172585", "training"),
            Address("HAM10000_images_part_2.zip", f"{_DATAVERSE}/3172584", "training"),
            Address("HAM10000_segmentations_lesion_tschandl.zip", f"{_DATAVERSE}/3838943", "training"),
            Address("HAM10000_metadata.tab", f"{_DATAVERSE}/4338392?format=original", "metadata"),
        ),
        home="https://doi.org/10.7910/DVN/DBW86T",
        licence_url="https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    ),
}
