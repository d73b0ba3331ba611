"""``card.json``: everything a model needs besides its weights, and everything a reader should know.

Design decisions:

- The card is data, checked by a schema, and never code: no pickle, no import paths.
- Fields that decide which pixels come out (``preprocessing``, ``postprocessing``, ``variants``) refuse
  unknown keys: a step that this version would silently skip changes masks. Everywhere else unknown keys
  are kept, so that a later version may add information without breaking this one. A change of meaning
  raises ``schema_version``.
- File names are plain names inside the bundle. A path that could leave it is refused here, before
  anything is opened.
"""

from __future__ import annotations

import re
from os import PathLike
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from dermseg.errors import ModelError, UnknownModelError
from dermseg.images.filter_names import FilterName
from dermseg.schema import Stored, check_version, place_of, words_of

SCHEMA_VERSION: Final = 1
CARD_NAME = "card.json"
MAX_CARD_BYTES = 4_000_000

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# Names that Windows gives to devices: opening "nul.onnx" there never reaches the bundle.
_DEVICE_NAMES = {"con", "prn", "aux", "nul"} | {f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10)}

Triple = tuple[float, float, float]


class _Open(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, defer_build=True)


class Preprocessing(Stored):
    """From RGB pixels to the network's input.

    The image is stretched to ``height x width`` (its aspect is not kept), filtered (see ``images.filters``),
    scaled to [0, 1], and each channel becomes ``(value - mean) / std``.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    resize: Literal["area", "bilinear"] = "area"
    filters: tuple[FilterName, ...] = ()
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    input_name: str = "image"
    output_name: str = "logits"
    layout: Literal["NCHW"] = "NCHW"
    output: Literal["logits"] = "logits"

    @field_validator("std")
    @classmethod
    def _positive(cls, std: Triple) -> Triple:
        if min(std) <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        return std


class Postprocessing(Stored):
    """From logits to a mask; the steps and their order are defined in ``inference.postprocess``.

    Parameters
    ----------
    threshold
        A pixel is lesion where its probability is at least this.
    temperature
        ``probability = sigmoid(logit / temperature)``.
    keep_largest
        Keep only the largest connected component.
    fill_holes
        Fill background that the lesion encloses.
    smooth_radius
        Radius of the disc of a grey opening and closing, as a share of the network's shorter side; 0 is off.
    min_area_fraction
        Components below this share of the image are dropped.
    """

    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)
    temperature: float = Field(default=1.0, gt=0.0)
    keep_largest: bool = True
    fill_holes: bool = True
    smooth_radius: float = Field(default=0.0, ge=0.0, le=0.25)
    min_area_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)


def _plain_name(file: str) -> str:
    stem = file.partition(".")[0].lower()
    if not _PLAIN_NAME.fullmatch(file) or stem in _DEVICE_NAMES or file == CARD_NAME:
        raise ValueError(f"'{file}' is not a plain file name inside the bundle")
    return file


FileName = Annotated[str, AfterValidator(_plain_name)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StoredFile(Stored):
    """A file of the bundle with its hash and size."""

    file: FileName
    sha256: Digest
    bytes: int = Field(ge=1)


class Latency(Stored):
    """Median time of one call of the network, in milliseconds, on the machine that exported it."""

    runtime: str
    batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    p50_ms: float = Field(gt=0)


class Partner(Stored):
    """A network of another bundle whose logits are averaged with a variant's; see ``inference.partner``.

    Parameters
    ----------
    bundle
        Name of the bundle inside the package that holds it.
    variant, sha256
        Which of its variants, and the hash of that variant's file.
    """

    bundle: FileName
    variant: str
    sha256: Digest


class Variant(StoredFile):
    """One stored form of the network: its files with hashes, and how far it is from the original.

    Parameters
    ----------
    precision
        Of weights and arithmetic, in words.
    format
        ``onnx``, or ``openvino``: ``file`` is the XML of an OpenVINO IR and ``weights`` its binary.
    interface
        ``logits``: normalised float32 images in, logits out; what dermseg runs. ``mask``: ``uint8 (N, H, W,
        3)`` RGB in, ``uint8 (N, H, W)`` masks of 0 and 255 out; for other programs.
    parity
        What was compared and the largest differences, as measured when it was exported.
    latency
        How long a call took where it was exported.
    speedup
        Images per second against the fp32 graph in ONNX Runtime, in the same run.
    notes
        What a program that uses it must know.
    partner
        A second network that is asked too, where there is one.
    """

    precision: str = "fp32"
    format: Literal["onnx", "openvino"] = "onnx"
    interface: Literal["logits", "mask"] = "logits"
    opset: int | None = Field(default=None, ge=1)
    weights: StoredFile | None = None
    parity: dict[str, Any] | None = None
    latency: list[Latency] = Field(default_factory=list)
    speedup: float | None = None
    notes: str = ""
    partner: Partner | None = None

    @model_validator(mode="after")
    def _weights_fit(self) -> Variant:
        if self.partner is not None and (self.format, self.interface) != ("onnx", "logits"):
            raise ValueError("only an ONNX file that gives logits has a partner")
        if (self.weights is not None) != (self.format == "openvino"):
            raise ValueError(
                f"format '{self.format}' {'needs' if self.weights is None else 'has no'} weights"
            )
        return self

    @property
    def files(self) -> list[StoredFile]:
        """Every file of the variant, the one to open first."""
        return [self, *([self.weights] if self.weights else [])]


class Attachment(StoredFile):
    """A further file that comes with the network, such as what was fitted on its outputs.

    ``options`` holds what its reader must know besides the file itself.
    """

    options: dict[str, Any] = Field(default_factory=dict)


class Metric(_Open):
    """What the model reached on one split: means over images with 95 % intervals, and the protocol.

    Each measure is a dict such as ``{"mean": 0.91, "ci95": [0.90, 0.92]}``; more measures may be present, and
    ``ci95_clustered``, over patients or lesions, is shown where it is.
    """

    dataset: str
    split: str
    protocol: str
    n: int = Field(ge=0)
    dice: dict[str, Any] | None = None
    jaccard: dict[str, Any] | None = None
    threshold_jaccard: dict[str, Any] | None = None


class ModelCard(_Open):
    """The whole card. ``read_card`` and ``to_json`` are its two directions."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(min_length=1)
    version: str
    created: str
    summary: str = ""
    architecture: str
    architecture_options: dict[str, Any] = {}
    parameters: int = Field(ge=0)
    licence: str
    intended_use: str = ""
    limitations: list[str] = []
    preprocessing: Preprocessing
    postprocessing: Postprocessing = Postprocessing()
    variants: dict[str, Variant] = Field(min_length=1)
    default_variant: str
    attachments: dict[str, Attachment] = {}
    training: dict[str, Any] = {}
    export: dict[str, Any] = {}
    metrics: list[Metric] = []

    @model_validator(mode="after")
    def _default_exists(self) -> ModelCard:
        if self.default_variant not in self.variants:
            raise ValueError(
                f"default_variant '{self.default_variant}' is not one of {sorted(self.variants)}"
            )
        names = [stored.file for variant in self.variants.values() for stored in variant.files]
        names += [stored.file for stored in self.attachments.values()]
        if len(set(names)) < len(names):
            raise ValueError(f"two parts share a file: {sorted(names)}")
        return self

    def variant(self, name: str | None = None) -> Variant:
        """The variant of that name, or the default one.

        Raises
        ------
        UnknownModelError
            No such variant; the hint lists those there are.
        """
        chosen = self.default_variant if name is None else name
        if chosen not in self.variants:
            raise UnknownModelError(
                f"model '{self.name}' has no variant '{chosen}'",
                hint=f"it has {', '.join(sorted(self.variants))}",
            )
        return self.variants[chosen]

    def to_json(self) -> str:
        """The text of ``card.json``: indented, with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def read_card(data: bytes | str, *, file: str | PathLike[str] | None = None) -> ModelCard:
    """Parse and check the text of a card.

    Parameters
    ----------
    data
        The content of ``card.json``.
    file
        Where it came from, for the message.

    Raises
    ------
    ModelError
        Too large, not JSON, another ``schema_version``, or a field that is missing or out of range. The
        first wrong field is named.
    """
    if len(data) > MAX_CARD_BYTES:
        raise ModelError(f"card of {len(data)} bytes is too large", file=file)
    try:
        return ModelCard.model_validate_json(data)
    except ValidationError as error:
        raise _explain(error, file) from None


def _explain(error: ValidationError, file: str | PathLike[str] | None) -> ModelError:
    """One readable line out of pydantic's list, and a remedy where there is one."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    where, what = place_of(first), words_of(first)
    check_version(problems, "card", f"this dermseg reads {SCHEMA_VERSION}", file=file)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ModelError(f"card field '{where}': {what}{more}" if where else f"card: {what}", file=file)
