"""Footers of parts that were written from offset 0 and lie further on in one file.

This module covers: moving every offset of a Parquet footer, and joining footers.
This module does *not* cover: writing row groups (writer).

A footer is one struct in Thrift's compact protocol. It is read into a tree of (field id, type,
value) that knows nothing of Parquet, changed at the places below, and written back. Field ids are
those of the format's parquet.thrift.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_MAGIC = b"PAR1"
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_ROW_GROUPS, _COLUMNS, _COLUMN_META = 4, 1, 3
_ROW_GROUP_OFFSETS = {5}
_COLUMN_OFFSETS = {2, 4, 6}
_META_OFFSETS = {9, 10, 11, 14}

Fields = list[tuple[int, int, Any]]


def moved(footer: bytes, by: int) -> bytes:
    """The footer (struct, length, magic) with every offset ``by`` bytes further."""
    tree = _Reader(footer[:-8]).struct()
    for group in _children(tree, _ROW_GROUPS):
        _shift(group, _ROW_GROUP_OFFSETS, by)
        for column in _children(group, _COLUMNS):
            _shift(column, _COLUMN_OFFSETS, by)
            for number, kind, value in column:
                if number == _COLUMN_META and kind == _STRUCT:
                    _shift(value, _META_OFFSETS, by)
    body = _struct(tree)
    return body + struct.pack("<i", len(body)) + _MAGIC


def joined(footers: list[bytes]) -> bytes:
    """One footer of the row groups of all, in order."""
    whole, *rest = (pq.read_metadata(pa.BufferReader(_MAGIC + footer)) for footer in footers)
    for part in rest:
        whole.append_row_groups(part)
    sink = pa.BufferOutputStream()
    whole.write_metadata_file(sink)
    return bytes(sink.getvalue().to_pybytes()[len(_MAGIC) :])


def _children(fields: Fields, number: int) -> list[Fields]:
    found = [value for n, kind, value in fields if n == number and kind == _LIST]
    return found[0][1] if found else []


def _shift(fields: Fields, numbers: set[int], by: int) -> None:
    for place, (number, kind, value) in enumerate(fields):
        if number in numbers and kind == _I64 and value > 0:
            fields[place] = (number, kind, value + by)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self) -> Fields:
        fields: Fields = []
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 0x0F, head >> 4
            number = number + step if step else self._zigzag()
            fields.append((number, kind, self._value(kind)))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return None
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind == _STRUCT:
            return self.struct()
        if kind in (_LIST, _SET):
            return self._list()
        size = {_BYTE: 1, _DOUBLE: 8}.get(kind)
        return self._bytes(self._varint() if size is None else size)

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        size, kind = head >> 4, head & 0x0F
        size = self._varint() if size == 15 else size
        if kind in (_TRUE, _FALSE):
            return kind, [self._bytes(1) for _ in range(size)]
        return kind, [self._value(kind) for _ in range(size)]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> bytes:
    return _varint((value << 1) ^ (value >> 63))


def _struct(fields: Fields) -> bytes:
    out = bytearray()
    before = 0
    for number, kind, value in fields:
        step = number - before
        out += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _zigzag(number)
        out += _encoded(kind, value)
        before = number
    out.append(0)
    return bytes(out)


def _encoded(kind: int, value: Any) -> bytes:
    if kind in (_TRUE, _FALSE):
        return b""
    if kind in (_I16, _I32, _I64):
        return _zigzag(value)
    if kind == _STRUCT:
        return _struct(value)
    if kind in (_LIST, _SET):
        return _list(*value)
    return value if kind in (_BYTE, _DOUBLE) else _varint(len(value)) + value


def _list(kind: int, values: list[Any]) -> bytes:
    n = len(values)
    head = bytes([n << 4 | kind]) if n < 15 else bytes([0xF0 | kind]) + _varint(n)
    if kind in (_TRUE, _FALSE):
        return head + b"".join(values)
    return head + b"".join(_encoded(kind, value) for value in values)
