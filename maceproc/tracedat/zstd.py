"""Unpack zstd frames: with Python's own module where it has one (3.14), else with zstandard."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

OWN_MODULE = "compression.zstd"  # PEP 784

Unpack = Callable[[memoryview, int], bytes]


class DamagedFrameError(Exception):
    """A frame that is no zstd, is cut, or holds another number of bytes than was said."""


def unpacker() -> Unpack:
    """Return a function of a frame and its unpacked size [bytes]; it raises DamagedFrameError."""
    try:
        return _by_own_module(importlib.import_module(OWN_MODULE))
    except ImportError:
        return _by_zstandard()


def _by_own_module(zstd: Any) -> Unpack:
    def unpack(data: memoryview, size: int) -> bytes:
        try:
            _check_claim(zstd.get_frame_info(data).decompressed_size, size)
            one = zstd.ZstdDecompressor()  # it is for a single frame
            # One byte more than is wanted: a frame that holds more is not taken for a whole one.
            unpacked: bytes = one.decompress(data, max_length=size + 1)
        except zstd.ZstdError as error:
            raise DamagedFrameError(str(error)) from error
        if len(unpacked) != size or not one.eof:
            raise DamagedFrameError(f"{len(unpacked)} bytes instead of {size}")
        return unpacked

    return unpack


def _by_zstandard() -> Unpack:
    import zstandard

    decompressor = zstandard.ZstdDecompressor()

    def unpack(data: memoryview, size: int) -> bytes:
        try:
            claimed = zstandard.frame_content_size(data)
            _check_claim(None if claimed < 0 else claimed, size)
            unpacked = decompressor.decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise DamagedFrameError(str(error)) from error
        if len(unpacked) != size:
            raise DamagedFrameError(f"{len(unpacked)} bytes instead of {size}")
        return unpacked

    return unpack


def _check_claim(claimed: int | None, size: int) -> None:
    """Refuse a frame that claims more than the file said: its claim is what gets allocated."""
    if claimed is not None and claimed > size:
        raise DamagedFrameError(f"{claimed} bytes instead of {size}")
