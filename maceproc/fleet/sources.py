"""Captures to collect: paths, patterns, directories, lists and URLs."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from maceproc.capture_files import SIDECAR_SUFFIX, sidecar_path
from maceproc.errors import CaptureError
from maceproc.fleet.store import filesystem, is_url, told

TRACES = "*.dat"


def find_captures(names: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the traces that these names stand for, each once, in the order given.

    A name is a file; a directory, of which every ``*.dat`` is taken, at any depth; a pattern such
    as ``captures/*/trace.dat`` or ``s3://bucket/**/*.dat``; or a URL that fsspec reaches. A file
    that is not there is returned as it is: collecting it tells so. Raises CaptureError for a
    pattern or a directory without any trace.
    """
    found: dict[str, None] = {}
    for given in names:
        name = os.fspath(given)
        found |= dict.fromkeys(_remote(name) if is_url(name) else _local(name))
    return list(found)


def read_list(lines: Iterable[str]) -> list[str]:
    """Return the names that a list holds, one a line; empty lines and those with # are left out."""
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def _local(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir() and not (path / "data").is_file():  # perf record --threads makes a directory
        return _some(sorted(map(str, path.rglob(TRACES))), name, f"no {TRACES} in this directory")
    if path.exists() or not glob.has_magic(name):
        return [name]
    # `**` is any depth, also none; sidecars are not captures.
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  pathlib has no absolute ones
    return _some(_without_sidecars(matches), name, "no file matches")


def _remote(name: str) -> list[str]:
    fs, pattern = filesystem(name)
    if not glob.has_magic(name):
        return [name]
    with told(name):
        matches = [fs.unstrip_protocol(path) for path in sorted(fs.glob(pattern))]
    return _some(_without_sidecars(matches), name, "no file matches")


def _without_sidecars(names: list[str]) -> list[str]:
    traces = set(names)
    return [name for name in names if name.removesuffix(SIDECAR_SUFFIX) not in traces - {name}]


def _some(found: list[str], name: str, complaint: str) -> list[str]:
    if not found:
        raise CaptureError(f"{name}: {complaint}", hint="give the traces of captures")
    return found


@contextlib.contextmanager
def at_hand(name: str) -> Iterator[Path]:
    """Give the local path of a trace; what is elsewhere is copied here with its sidecar meanwhile.

    Raises CaptureError when it is not there.
    """
    if not is_url(name):
        yield Path(name)
        return
    fs, path = filesystem(name)
    with tempfile.TemporaryDirectory(prefix="maceproc-") as directory:
        trace = Path(directory) / "trace.dat"
        with told(name):
            if not fs.isfile(path):
                raise CaptureError(f"{name}: no such file")
            fs.get_file(path, str(trace))
            if fs.isfile(path + SIDECAR_SUFFIX):
                fs.get_file(path + SIDECAR_SUFFIX, str(sidecar_path(trace)))
        yield trace
