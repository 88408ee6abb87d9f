"""zstd frames are unpacked alike by Python's own module and by zstandard."""

from __future__ import annotations

import importlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from maceproc.tracedat import zstd
from maceproc.tracedat.zstd import DamagedFrameError, Unpack


def ways() -> dict[str, Unpack]:
    """Every way that is here: Python 3.14's module, or backports.zstd, which is the same."""
    found = {"zstandard": zstd._by_zstandard()}
    for name in ("compression.zstd", "backports.zstd"):
        try:
            found[name] = zstd._by_own_module(importlib.import_module(name))
        except ImportError:
            continue
    return found


WAYS = ways()
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
@given(data=st.binary(min_size=1, max_size=3000), claims=st.booleans())
def test_a_frame_is_unpacked(way: str, data: bytes, claims: bool) -> None:
    frame = zstandard.ZstdCompressor(write_content_size=claims).compress(data)
    assert WAYS[way](memoryview(frame), len(data)) == data


@each_way
@given(data=st.binary(min_size=1, max_size=3000), off=st.integers(-500, 500), claims=st.booleans())
def test_another_size_is_refused(way: str, data: bytes, off: int, claims: bool) -> None:
    size = max(len(data) + (off or 1), 0)
    frame = zstandard.ZstdCompressor(write_content_size=claims).compress(data)
    with pytest.raises(DamagedFrameError):
        WAYS[way](memoryview(frame), size)


@each_way
@pytest.mark.parametrize("frame", [b"", b"no zstd at all", b"\x28\xb5\x2f\xfd"])
def test_what_is_no_frame_is_refused(way: str, frame: bytes) -> None:
    with pytest.raises(DamagedFrameError):
        WAYS[way](memoryview(frame), 100)


@each_way
def test_a_frame_that_is_cut_is_refused(way: str) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(range(256)) * 9)
    with pytest.raises(DamagedFrameError):
        WAYS[way](memoryview(frame)[:-5], 256 * 9)


@each_way
def test_a_claim_is_not_allocated(way: str) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(10_000_000))
    with pytest.raises(DamagedFrameError, match="10000000 bytes instead of 10"):
        WAYS[way](memoryview(frame), 10)
