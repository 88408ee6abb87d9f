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

An array at the end of an event has as many elements as the record has, which can be fewer or more
than its format declares (``caller`` of kernel_stack).

bytes and tuples can be grouped by, compared and used as keys; equal values share one object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from maceproc.tracedat.formats import EventFormat, Field
from maceproc.tracedat.ringbuffer import Bytes, Int64s, word_view

if TYPE_CHECKING:
    import pandas as pd

Categorical: TypeAlias = "pd.Categorical[Any]"
ColumnData: TypeAlias = "npt.NDArray[Any] | Categorical"

# Where an array field is; the numbers are those of _native.c.
FIELD_LAYOUTS = {"": 0, "to end": 1, "__data_loc": 2, "__rel_loc": 3, "open": 4}
# A record is rounded up: by the compiler to the alignment of its largest field, by the ring buffer
# to 4 or 8 bytes. As many bytes behind an array's declared size, or more, are more of the array.
PADDING_END = 8


Numbered: TypeAlias = "tuple[npt.NDArray[Any], list[bytes]]"
"""Each record's number of its value, and the distinct values, in the order they occur."""


@dataclass(frozen=True)
class TableSpec:
    """One event type's table: the fields wanted, and how they are read."""

    form: EventFormat
    fields: list[Field]  # the event's own

    @property
    def numbers(self) -> list[Field]:
        """Fields that are copied: common_pid, common_flags, and the event's own numbers."""
        common = [self.form.common_field("common_pid"), self.form.common_field("common_flags")]
        return common + [field for field in self.fields if field.is_number]

    @property
    def values(self) -> list[Field]:
        """Fields whose distinct values are numbered: common_pid, strings and arrays."""
        pid = replace(self.form.common_field("common_pid"), array=True)
        return [pid] + [field for field in self.fields if not field.is_number]


@dataclass
class RawTable:
    """One event type's rows, in the order of time, before they are typed."""

    times: Int64s  # [ns]
    cpus: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.int32]  # the rows' places among all records
    streams: npt.NDArray[np.int16] | None  # where the rows are from, if there are several buffers
    numbers: list[npt.NDArray[Any]]  # as in TableSpec
    values: list[Numbered]


@dataclass(frozen=True)
class Payloads:
    """The payloads of one event type's records; each has all the fields' fixed part."""

    data: Bytes
    order: str
    positions: Int64s
    lengths: npt.NDArray[np.int32]


class Block:
    """Room for the columns of a table in one piece: large pieces get large pages of memory."""

    def __init__(self, rows: int, dtypes: Iterable[npt.DTypeLike]) -> None:
        self.rows = rows
        sizes = [-(-rows * np.dtype(dtype).itemsize // 64) * 64 for dtype in dtypes]
        self.left = np.empty(sum(sizes), np.uint8)

    def column(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Take a column; as many as were announced, of the same dtypes."""
        size = self.rows * np.dtype(dtype).itemsize
        taken, self.left = self.left[:size], self.left[-(-size // 64) * 64 :]
        return taken.view(dtype)


def copy_fields(
    payloads: Payloads, numbers: list[Field], values: list[Field], block: Block
) -> tuple[list[npt.NDArray[Any]], list[Numbered]]:
    """Copy number fields into columns, and number the distinct values of other fields.

    Numbers are put into `block`. A string ends before its first NUL. A dynamic field that points
    outside its record is empty.
    """
    columns = [block.column(dtype_of(field)) for field in numbers]
    for field, column in zip(numbers, columns, strict=True):
        view = word_view(payloads.data, field.size, payloads.order, field.signed)
        column[:] = view[payloads.positions + field.offset]
    numbered = []
    for field in values:
        starts, lengths = _locate(payloads, field)
        numbered.append(_number_bytes(payloads.data, starts, lengths, cut=field.is_string))
    return columns, numbered


def dtype_of(field: Field) -> np.dtype[Any]:
    """Return the kernel's width and sign of a number field; pointers have none."""
    return np.dtype(f"{'i' if field.signed and not field.is_pointer else 'u'}{field.size}")


def typed_column(column: npt.NDArray[Any], field: Field) -> npt.NDArray[Any]:
    """Make a number field's column what the table above says."""
    if field.is_pointer:
        return column.astype(np.uint64, copy=False)
    return np.asarray(column != 0) if field.type in ("bool", "_Bool") else column


def value_column(numbered: Numbered, field: Field, order: str) -> ColumnData:
    """Make a string's or an array's column what the table above says."""
    codes, values = numbered
    if field.is_string:
        return recoded(codes, [text.decode("utf-8", "backslashreplace") for text in values])
    cells = np.empty(len(values), object)
    for index, value in enumerate(values):
        cells[index] = _array_value(value, field, order)
    return cells[codes]


def _array_value(value: bytes, field: Field, order: str) -> bytes | tuple[int, ...]:
    size = field.element_size
    if size == 1:
        return value
    dtype = np.dtype(f"{order}{'i' if field.signed else 'u'}{size}")
    return tuple(np.frombuffer(value[: len(value) // size * size], dtype).tolist())


def _locate(payloads: Payloads, field: Field) -> tuple[Int64s, Int64s]:
    """Return position and length [bytes] of an array field in every record."""
    lengths = payloads.lengths.astype(np.int64)
    if not field.place:
        left, sizes = lengths - field.offset, np.full(len(lengths), field.size, np.int64)
        if field.to_end:
            sizes = left
        elif field.is_open:
            sizes = np.where((left < sizes) | (left >= sizes + PADDING_END), left, sizes)
        return payloads.positions + field.offset, sizes
    # trace_event.h: the upper half is the length, the lower half the offset; counted from the
    # payload's start (__data_loc) or from the end of the word itself (__rel_loc).
    words = word_view(payloads.data, 4, payloads.order)
    word = words[payloads.positions + field.offset].astype(np.int64)
    offsets, sizes = word & 0xFFFF, word >> 16
    if field.place == "__rel_loc":
        offsets = offsets + field.offset + 4
    inside = offsets + sizes <= lengths
    return payloads.positions + np.where(inside, offsets, 0), np.where(inside, sizes, 0)


def _number_bytes(
    data: Bytes, starts: Int64s, lengths: Int64s, *, cut: bool
) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    """Find the distinct byte strings, eight bytes of all of them at a time."""
    import pandas as pd

    codes = pd.factorize(lengths)[0]
    for offset in range(0, int(lengths.max(initial=0)), 8):
        words = pd.factorize(_eight_bytes(data, starts + offset, lengths - offset))[0]
        codes = pd.factorize(codes * (words.max() + 1) + words)[0]
    rows = np.zeros(codes.max(initial=-1) + 1, np.int64)
    rows[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # the first row of every code
    values = [data[starts[r] : starts[r] + lengths[r]].tobytes() for r in rows.tolist()]
    if cut:
        values = [value.partition(b"\0")[0] for value in values]
    number = {value: code for code, value in enumerate(dict.fromkeys(values))}
    table = np.array([number[value] for value in values], np.int32)
    return table[codes] if len(table) else np.empty(0, np.int32), list(number)


def _eight_bytes(data: Bytes, starts: Int64s, left: Int64s) -> npt.NDArray[np.uint64]:
    """Return up to eight bytes from each start as a number, zeros where fewer are left."""
    word = np.zeros(len(starts), np.uint64)
    for byte in range(min(8, int(left.max()))):
        there = left > byte
        values = data[np.where(there, starts + byte, 0)]
        word |= np.where(there, values, 0).astype(np.uint64) << np.uint64(8 * byte)
    return word


def recoded(codes: npt.NDArray[Any], texts: list[str]) -> Categorical:
    """Make a categorical column from codes and the text of each; equal texts become one."""
    number = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    narrow = np.min_scalar_type(-max(len(number), 1))
    if len(number) == len(texts):
        return categorical_of(codes.astype(narrow), list(number))
    table = np.array([number[text] for text in texts], narrow)
    return categorical_of(table[codes] if len(table) else np.empty(0, narrow), list(number))


def categorical_of(codes: npt.NDArray[Any], categories: list[str]) -> Categorical:
    """Make a categorical column from codes into `categories`; -1 is missing."""
    import pandas as pd

    dtype = pd.CategoricalDtype(pd.Index(categories))
    made: Categorical = pd.Categorical.from_codes(codes, dtype=dtype)
    return made
