"""Names of the filters, apart from what they do: a card is checked before OpenCV is loaded."""

from __future__ import annotations

from typing import Literal

FilterName = Literal["shades_of_grey", "dullrazor", "fft_denoise"]
