"""Shards for training elsewhere: WebDataset (tar) and TFRecord, written and read without their libraries.

WebDataset: ``<key>.<image extension>``, ``<key>.mask.png`` (``<key>.mask1.png``, ...), ``<key>.json``.
TFRecord: ``tf.train.Example`` with ``image/encoded``, ``image/format``, ``image/filename``,
``image/source_id``, ``image/height``, ``image/width`` and ``image/segmentation/class/encoded`` (one PNG for
each mask), as the TensorFlow model garden names them. The protocol buffer is three levels of tagged bytes: it
is written out here rather than bringing TensorFlow.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermseg.errors import DataError, MissingExtraError

_LARGEST_RECORD = 1 << 30
_MASK = re.compile(r"mask(\d*)\.png")
_FACTS = "image/dermseg"  # in a TFRecord, beside the names of TensorFlow's object detection


@dataclass(frozen=True)
class Example:
    """One image with its masks, as encoded bytes.

    ``extension`` is that of the image file, without the dot; ``masks`` are PNG files; ``facts`` become JSON.
    """

    key: str
    extension: str
    image: bytes
    masks: tuple[bytes, ...]
    width: int
    height: int
    facts: Mapping[str, Any]


def write_tar(examples: Sequence[Example], path: Path) -> None:
    """Write a WebDataset shard; equal examples give equal bytes. A dot in a key would end it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:  # older ones end names at 100 bytes
        for example in examples:
            key = example.key
            facts = {**example.facts, "width": example.width, "height": example.height}
            parts = {f"{key}.{example.extension}": example.image}
            for number, mask in enumerate(example.masks):
                parts[f"{key}.mask{number or ''}.png"] = mask
            parts[f"{key}.json"] = json.dumps(facts, sort_keys=True).encode("utf-8")
            for name, data in parts.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                info.mode = 0o644
                tar.addfile(info, io.BytesIO(data))


def read_tar(path: Path) -> Iterator[Example]:
    """Examples of a WebDataset shard.

    Raises
    ------
    DataError
        Not a tar file, or damaged.
    """
    key, parts = "", dict[str, bytes]()
    try:
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                if not member.isfile() or member.size > _LARGEST_RECORD:
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                stem = f"{folder}/{stem}" if folder else stem
                if stem != key:
                    yield from _example(key, parts)
                    key, parts = stem, {}
                file = tar.extractfile(member)
                parts[kind.lower()] = file.read() if file else b""
            yield from _example(key, parts)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"not a WebDataset shard, or damaged: {error}", file=path) from None


def _example(key: str, parts: Mapping[str, bytes]) -> Iterator[Example]:
    pictures = [kind for kind in parts if "." not in kind and kind not in ("json", "txt", "cls")]
    if not pictures:
        return
    masks = sorted((int(hit[1] or 0), kind) for kind in parts if (hit := _MASK.fullmatch(kind)))
    facts = read_facts(parts.get("json", b"{}"))
    yield Example(key, pictures[0], parts[pictures[0]], tuple(parts[kind] for _, kind in masks), 0, 0, facts)


def read_facts(data: bytes) -> dict[str, Any]:
    """Facts as they were stored; none where it is no JSON object."""
    try:
        facts = json.loads(data)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def write_tfrecord(examples: Sequence[Example], path: Path) -> None:
    """Write a TFRecord file.

    Raises
    ------
    MissingExtraError
        The package google-crc32c is not installed.
    """
    crc = _crc()
    with path.open("wb") as file:
        for example in examples:
            record = _encode(example)
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", crc(length)) + record + struct.pack("<I", crc(record)))


def read_tfrecord(path: Path) -> Iterator[Example]:
    """Examples of a TFRecord file; every checksum is verified.

    Raises
    ------
    DataError
        Damaged, or a record without ``image/encoded``.
    """
    crc = _crc()
    with path.open("rb") as file:
        number = 0
        while head := file.read(12):
            number += 1
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
            if (
                len(head) < 12
                or struct.unpack("<I", head[8:])[0] != crc(head[:8])
                or length > _LARGEST_RECORD
            ):
                raise DataError(f"record {number} is damaged", file=path)
            record, tail = file.read(length), file.read(4)
            if len(tail) < 4 or struct.unpack("<I", tail)[0] != crc(record):
                raise DataError(f"record {number} is damaged", file=path)
            try:
                yield _decode(record, number)
            except (ValueError, KeyError, IndexError) as error:
                raise DataError(f"record {number} is not an image example: {error}", file=path) from None


def _crc() -> Any:
    try:
        import google_crc32c
    except ImportError:
        raise MissingExtraError("TFRecord", "train") from None

    def masked(data: bytes) -> int:
        value = int(google_crc32c.value(data))
        return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    return masked


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _encode(example: Example) -> bytes:
    kind = "jpeg" if example.extension in ("jpg", "jpeg") else example.extension
    values: dict[str, Sequence[bytes] | int] = {
        "image/encoded": [example.image],
        _FACTS: [json.dumps(example.facts, sort_keys=True).encode()],
        "image/filename": [f"{example.key}.{example.extension}".encode()],
        "image/format": [kind.encode()],
        "image/height": example.height,
        "image/segmentation/class/encoded": list(example.masks),
        "image/segmentation/class/format": [b"png"],
        "image/source_id": [example.key.encode()],
        "image/width": example.width,
    }
    entries = b""
    for name, value in values.items():
        if isinstance(value, int):
            feature = _field(3, _field(1, _varint(value)))  # Int64List, packed
        else:
            feature = _field(1, b"".join(_field(1, item) for item in value))  # BytesList
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Length-delimited fields of a message; the others are passed over."""
    i = 0
    while i < len(data):
        tag, i = _read_varint(data, i)
        if tag & 7 == 0:
            _, i = _read_varint(data, i)
        elif tag & 7 == 2:
            size, i = _read_varint(data, i)
            if i + size > len(data):
                raise ValueError("a field is longer than its record")
            yield tag >> 3, data[i : i + size]
            i += size
        elif tag & 7 in (1, 5):
            i += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("unknown wire type")


def _read_varint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[i]
        value |= (byte & 0x7F) << shift
        i, shift = i + 1, shift + 7
        if byte < 0x80:
            return value, i
        if shift > 63:
            raise ValueError("a number is too long")


def _decode(record: bytes, number: int) -> Example:
    values: dict[str, list[bytes]] = {}
    for _, features in _fields(record):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            for number_of_kind, items in _fields(parts[2]):
                if number_of_kind == 1:  # a BytesList
                    values[parts[1].decode()] = [item for _, item in _fields(items)]
    image = values["image/encoded"][0]
    name = next(iter(values.get("image/filename") or values.get("image/source_id") or []), b"").decode()
    kind = next(iter(values.get("image/format") or []), b"jpeg").decode().lower()
    key = next(iter(values.get("image/source_id") or []), b"").decode() or name.rpartition(".")[0]
    masks = tuple(values.get("image/segmentation/class/encoded", ()))
    extension = "jpg" if kind in ("jpeg", "jpg") else kind
    facts = read_facts(next(iter(values.get(_FACTS) or []), b"{}"))
    return Example(key or f"record_{number:06d}", extension, image, masks, 0, 0, facts)
