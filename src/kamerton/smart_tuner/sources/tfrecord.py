"""TensorBoard's event files: records framed as TFRecord, scalars in protobuf's wire format.

The framing is a length (8 bytes, little endian), its checksum (4), the data and its checksum (4).
Checksums are not looked at: in Python they cost more than everything else together, and a local
file that ends early is told by its length. Field numbers are those of tensorboard's event.proto,
summary.proto and tensor.proto; what is not a scalar is skipped by its length.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER_BYTES: Final = 12
FOOTER_BYTES: Final = 4

_LENGTH: Final = struct.Struct("<Q")
_DOUBLE: Final = struct.Struct("<d")
_FLOAT: Final = struct.Struct("<f")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SESSION_START: Final = 1
# Of TensorProto: the type's number, the field of its values, how one of them is packed.
_TENSORS: Final = {1: (5, _FLOAT), 2: (6, _DOUBLE)}
# How writers have a number in single precision: type, no dimensions, its bytes or its values.
_USUAL: Final = (b"\x08\x01\x12\x00\x22\x04", b"\x08\x01\x12\x00\x2a\x04")
_INTEGERS: Final = {3: 7, 4: 7, 5: 7, 6: 7, 9: 10}


class MalformedError(ValueError):
    """Bytes that are not what they should be."""


class TensorEvent(NamedTuple):
    """What one record says of scalars."""

    time: float  # Unix seconds
    step: int
    scalars: list[tuple[str, float]]
    restart: bool  # steps from this one on are made again


def length_at(data: bytes, offset: int) -> int:
    """Bytes of data of the record that begins at ``offset``, which has its whole header there."""
    return int(_LENGTH.unpack_from(data, offset)[0])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise MalformedError("a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _skip(data: bytes, at: int, kind: int) -> int:
    """Where the field ends whose value of wire type ``kind`` begins at ``at``."""
    if kind == _VARINT:
        return _varint(data, at)[1]
    if kind == _FIXED64:
        return at + 8
    if kind == _BYTES:
        size, at = _varint(data, at)
        return at + size
    if kind == _FIXED32:
        return at + 4
    raise MalformedError(f"wire type {kind}")


def read_event(data: bytes, at: int, end: int) -> TensorEvent:
    """The event between ``at`` and ``end``.

    Raises:
        MalformedError: it is none.
    """
    time, step, restart = 0.0, 0, False
    scalars: list[tuple[str, float]] = []
    try:
        while at < end:
            key = data[at]
            at += 1
            if key == 0x09:  # wall_time
                (time,) = _DOUBLE.unpack_from(data, at)
                at += 8
            elif key == 0x10:  # step
                step, at = _varint(data, at)
            elif key == 0x2A:  # summary
                size, at = _varint(data, at)
                _read_summary(data, at, at + size, scalars)
                at += size
            elif key == 0x3A:  # session_log
                size, at = _varint(data, at)
                restart = _status(data, at, at + size) == _SESSION_START
                at += size
            else:
                at = _skip(data, at, key & 7)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise MalformedError(str(error)) from error
    if at != end:
        raise MalformedError("a field that ends beyond its record")
    return TensorEvent(time, _signed(step), scalars, restart)


def _read_summary(data: bytes, at: int, end: int, found: list[tuple[str, float]]) -> None:
    while at < end:
        key = data[at]
        at += 1
        if key != 0x0A:  # value
            at = _skip(data, at, key & 7)
            continue
        size = data[at]
        at += 1
        if size >= 0x80:
            size, at = _varint(data, at - 1)
        _read_value(data, at, at + size, found)
        at += size


def _read_value(data: bytes, at: int, end: int, found: list[tuple[str, float]]) -> None:
    tag, value = "", None
    while at < end:
        key = data[at]
        at += 1
        if key == 0x0A:  # tag
            size, at = _varint(data, at)
            tag = data[at : at + size].decode()
            at += size
        elif key == 0x15:  # simple_value
            (value,) = _FLOAT.unpack_from(data, at)
            at += 4
        elif key == 0x42:  # tensor
            size, at = _varint(data, at)
            value = _read_tensor(data, at, at + size)
            at += size
        else:
            at = _skip(data, at, key & 7)
    if value is not None:
        found.append((tag, value))


def _read_tensor(data: bytes, at: int, end: int) -> float | None:
    """The number in a tensor without dimensions; None for every other tensor."""
    if data[at : at + 6] in _USUAL:
        return float(_FLOAT.unpack_from(data, at + 6)[0])
    dtype, content = 0, b""
    values: dict[int, bytes] = {}
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        begin, at = at, _skip(data, at, kind)
        if field == 1:
            dtype = _varint(data, begin)[0]
        elif field == 2 and _has_dimensions(data, begin):
            return None
        elif kind == _BYTES:
            size, begin = _varint(data, begin)
            if field == 4:
                content = data[begin : begin + size]
            elif size <= 16:
                values[field] = data[begin : begin + size]
        elif field in (5, 6, 7, 10):
            values[field] = data[begin:at]
    return _number(dtype, content, values)


def _has_dimensions(data: bytes, at: int) -> bool:
    size, at = _varint(data, at)
    end = at + size
    while at < end:
        key = data[at]
        if key == 0x12:  # dim
            return True
        at = _skip(data, at + 1, key & 7)
    return False


def _number(dtype: int, content: bytes, values: dict[int, bytes]) -> float | None:
    if dtype in _TENSORS:
        field, form = _TENSORS[dtype]
        raw = content or values.get(field, b"")
        return float(form.unpack(raw)[0]) if len(raw) == form.size else None
    if dtype in _INTEGERS:
        if content:
            return float(int.from_bytes(content, "little", signed=dtype != 4))
        raw = values.get(_INTEGERS[dtype], b"")
        return float(_signed(_varint(raw, 0)[0])) if raw else None
    return None


def _status(data: bytes, at: int, end: int) -> int:
    while at < end:
        key = data[at]
        if key == 0x08:
            return _varint(data, at + 1)[0]
        at = _skip(data, at + 1, key & 7)
    return 0
