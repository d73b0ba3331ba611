"""The ISIC challenge segmentation tasks (Task 1, Part 1) of 2016, 2017 and 2018, in their official names."""

from __future__ import annotations

import re

from dermseg.data.sources.base import Layout

_IMAGE = r"/(?:[^/]+/)*(?P<id>ISIC_\d{7})\.jpe?g$"
_MASK = r"/(?:[^/]+/)*(?P<id>ISIC_\d{7})_segmentation\.png$"

ISIC2016 = Layout(
    name="isic2016",
    summary="ISIC 2016 challenge, Part 1 (900 training and 379 test images)",
    image=re.compile(r"(?:^|/)ISBI2016_ISIC_Part1_(?P<part>Training|Test)_Data" + _IMAGE, re.I),
    mask=re.compile(r"(?:^|/)ISBI2016_ISIC_Part1_(?:Training|Test)_GroundTruth" + _MASK, re.I),
    licence="CC-0",
    citation="Gutman et al. 2016, arXiv 1605.01397",
)
ISIC2017 = Layout(
    name="isic2017",
    summary="ISIC 2017 challenge, Part 1 (2,000 training, 150 validation and 600 test images)",
    # The data folders also hold *_superpixels.png: the patterns take the JPEGs only.
    image=re.compile(r"(?:^|/)ISIC-2017_(?P<part>Training|Validation|Test_v2|Test)_Data" + _IMAGE, re.I),
    mask=re.compile(r"(?:^|/)ISIC-2017_(?:Training|Validation|Test_v2|Test)_Part1_GroundTruth" + _MASK, re.I),
    licence="CC-0",
    citation="Codella et al. 2018, doi 10.1109/ISBI.2018.8363547",
)
ISIC2018 = Layout(
    name="isic2018",
    summary="ISIC 2018 challenge, Task 1 (2,594 training, 100 validation and 1,000 test images)",
    image=re.compile(r"(?:^|/)ISIC2018_Task1-2_(?P<part>Training|Validation|Test)_Input" + _IMAGE, re.I),
    mask=re.compile(r"(?:^|/)ISIC2018_Task1_(?:Training|Validation|Test)_GroundTruth" + _MASK, re.I),
    licence="CC-BY-NC-4.0",
    citation="Codella et al. 2019, arXiv 1902.03368; Tschandl et al. 2018, doi 10.1038/sdata.2018.161",
)
ISIC2018_TASK2 = Layout(
    name="isic2018-task2",
    summary="ISIC 2018 challenge, Task 2: five dermoscopic attributes, most of them absent from an image",
    image=ISIC2018.image,
    # file names sort in the order of ``classes``
    mask=re.compile(
        r"(?:^|/)ISIC2018_Task2_(?:Training|Validation|Test)_GroundTruth[^/]*/(?:[^/]+/)*"
        r"(?P<id>ISIC_\d{7})_attribute_\w+\.png$",
        re.I,
    ),
    licence="CC-BY-NC-4.0",
    citation=ISIC2018.citation,
    classes=("globules", "milia_like_cyst", "negative_network", "pigment_network", "streaks"),
)
