"""Records of one event type into typed columns, as the event's format declares them.

=====================  ==========================================================================
field                  column
=====================  ==========================================================================
integer, enum          the kernel's width and sign: int32, uint16, ...
pointer                uint64
bool                   bool
char array, string     categorical of str, up to the first NUL; fixed, dynamic or to the end
array of bytes         object: bytes of the array's length (addresses, sockaddr, lladdr)
any other array        object: tuple of int
=====================  ==========================================================================

bytes and tuples can be grouped by, compared and used as keys; equal values share one object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.tracedat.formats import Field
from maceproc.tracedat.ringbuffer import Bytes, Int64s, word_view

Categorical: TypeAlias = "pd.Categorical[Any]"
Column: TypeAlias = "npt.NDArray[Any] | Categorical"


@dataclass(frozen=True)
class Payloads:
    """Where the payloads of one event type's records are."""

    data: Bytes
    order: str
    positions: Int64s
    lengths: npt.NDArray[np.int32]


def read_column(payloads: Payloads, field: Field) -> Column:
    """Read one field of every record into a typed column."""
    if field.is_number:
        return _read_numbers(payloads, field)
    starts, lengths = locate(payloads, field)
    codes, uniques = factorize_bytes(payloads.data, starts, lengths)
    if field.is_string:
        return categorical(codes, [text.partition(b"\0")[0] for text in uniques])
    cells = np.empty(len(uniques), object)
    for index, cell in enumerate(uniques):
        cells[index] = _array_value(cell, field, payloads.order)
    return cells[codes]


def _read_numbers(payloads: Payloads, field: Field) -> npt.NDArray[Any]:
    view = word_view(payloads.data, field.size, payloads.order, field.signed)
    column = view[payloads.positions + field.offset]
    if field.type in ("bool", "_Bool"):
        return np.asarray(column != 0)
    dtype = np.uint64 if field.is_pointer else column.dtype.newbyteorder("=")
    typed: npt.NDArray[Any] = column.astype(dtype, copy=False)
    return typed


def locate(payloads: Payloads, field: Field) -> tuple[Int64s, Int64s]:
    """Return position and length [bytes] of an array field in every record.

    A dynamic field that points outside its record comes out empty.
    """
    lengths = payloads.lengths.astype(np.int64)
    if not field.place:
        sizes = lengths - field.offset if field.to_end else np.full(len(lengths), field.size)
        return payloads.positions + field.offset, np.maximum(sizes, 0)
    # trace_event.h: the upper half is the length, the lower half the offset; counted from the
    # payload's start (__data_loc) or from the end of the word itself (__rel_loc).
    words = word_view(payloads.data, 4, payloads.order)
    word = words[payloads.positions + field.offset].astype(np.int64)
    offsets, sizes = word & 0xFFFF, word >> 16
    if field.place == "__rel_loc":
        offsets = offsets + field.offset + 4
    inside = offsets + sizes <= lengths
    return payloads.positions + np.where(inside, offsets, 0), np.where(inside, sizes, 0)


def factorize_bytes(
    data: Bytes, starts: Int64s, lengths: Int64s
) -> tuple[npt.NDArray[np.intp], list[bytes]]:
    """Find the distinct byte strings at the given places; return codes, and the strings by code."""
    codes, uniques = pd.factorize(lengths)
    for offset in range(0, int(lengths.max(initial=0)), 8):
        rows = np.flatnonzero(lengths > offset)
        word = np.zeros(len(rows), np.uint64)
        for byte in range(min(8, int(lengths.max()) - offset)):
            there = lengths[rows] > offset + byte
            place = np.where(there, starts[rows] + offset + byte, 0)
            word |= np.where(there, data[place], 0).astype(np.uint64) << np.uint64(8 * byte)
        words = np.zeros(len(starts), np.int64)
        words[rows] = pd.factorize(word)[0]
        codes, uniques = pd.factorize(codes * (words.max() + 1) + words)
    chosen = np.zeros(len(uniques), np.int64)
    chosen[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # the first row of every code
    return codes, [
        data[starts[row] : starts[row] + lengths[row]].tobytes() for row in chosen.tolist()
    ]


def categorical(codes: npt.NDArray[Any], texts: list[bytes]) -> Categorical:
    """Make a categorical column from codes and the text of each; equal texts become one."""
    return recoded(codes, [text.decode("utf-8", "backslashreplace") for text in texts])


def recoded(codes: npt.NDArray[Any], texts: list[str]) -> Categorical:
    """Make a categorical column from codes and the text of each; equal texts become one."""
    categories = list(dict.fromkeys(texts))
    number = {text: index for index, text in enumerate(categories)}
    narrow = np.min_scalar_type(-max(len(categories), 1))
    table = np.array([number[text] for text in texts], narrow)
    return categorical_of(table[codes] if len(table) else np.empty(0, narrow), categories)


def categorical_of(codes: npt.NDArray[Any], categories: list[str]) -> Categorical:
    """Make a categorical column from codes into `categories`; -1 is missing."""
    dtype = pd.CategoricalDtype(pd.Index(categories))
    made: Categorical = pd.Categorical.from_codes(codes, dtype=dtype)
    return made


def _array_value(cell: bytes, field: Field, order: str) -> bytes | tuple[int, ...]:
    size = field.element_size
    if size == 1:
        return cell
    dtype = np.dtype(f"{order}{'i' if field.signed else 'u'}{size}")
    whole = len(cell) // size * size
    return tuple(np.frombuffer(cell[:whole], dtype).tolist())
