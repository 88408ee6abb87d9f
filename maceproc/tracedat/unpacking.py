"""Compressed chunks and sections: zstd and zlib."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from maceproc.errors import TraceFormatError

Unpacker: TypeAlias = "Callable[[memoryview, int], bytes]"
"""Unpacks data to exactly the size given; for one thread."""


def _zstd_unpacker(file: Path) -> Unpacker:
    from maceproc.tracedat import zstd

    unpack_frame = zstd.unpacker()

    def unpack(data: memoryview, size: int) -> bytes:
        try:
            return unpack_frame(data, size)
        except zstd.DamagedFrameError as error:
            raise _damaged(file, "zstd", str(error)) from error

    return unpack


def _zlib_unpacker(file: Path) -> Unpacker:
    def unpack(data: memoryview, size: int) -> bytes:
        try:
            unpacked = zlib.decompressobj().decompress(data, max(size, 1))
        except zlib.error as error:
            raise _damaged(file, "zlib", str(error)) from error
        if len(unpacked) != size:
            raise _damaged(file, "zlib", f"{len(unpacked)} bytes instead of {size}")
        return unpacked

    return unpack


UNPACKERS: dict[str, Callable[[Path], Unpacker]] = {
    "zstd": _zstd_unpacker,
    "zlib": _zlib_unpacker,
}


def _damaged(file: Path, method: str, what: str) -> TraceFormatError:
    return TraceFormatError(
        file, offset=None, found=f"damaged {method} data: {what}", expected="a whole frame"
    )
