"""What a sidecar must satisfy beyond its form: sizes, ranges and order.

A sidecar is read before anything else of a capture, and may come from anybody. Types and words are
checked by msgspec as `maceproc.capture` declares them. These checks keep numbers within what
int64 nanoseconds can be added up in, text within what can be searched, and times in their order.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from maceproc.capture import Run, Sidecar
from maceproc.errors import CaptureError

MAX_BYTES = 256 << 20  # of the file: a ping's line has 70 bytes
MAX_NUMBER = 1 << 62  # the sum of two of them is an int64
MAX_TEXT = 64 << 10  # of every string but what a run printed [characters]
MAX_PRINTED = 64 << 20  # what one run printed [characters]
MAX_ROUNDS = 1_000_000
MAX_NAMESPACES = 10_000
PRINTED = ("output", "errors")
HINT = "remove it to analyze the events alone, with --inner and --outer"


def read_bounded(path: Path) -> bytes:
    """Return what a sidecar holds; CaptureError when it is no regular file or too large."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CaptureError(f"{path}: not a regular file", hint=HINT)
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise CaptureError(
            f"{path}: larger than {MAX_BYTES >> 20} MiB, which no capture's sidecar is", hint=HINT
        )
    return data


def check_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Raise CaptureError for the first thing in a sidecar that cannot be, with its place in it."""
    for place, complaint in _complaints(sidecar):
        raise CaptureError(
            f"{path}: not a capture's sidecar: {complaint} - at `$.{place}`", hint=HINT
        )


def _complaints(sidecar: Sidecar) -> Iterator[tuple[str, str]]:
    yield from _out_of_range("", sidecar)
    if not 0 <= sidecar.rounds <= MAX_ROUNDS:
        yield "rounds", f"{sidecar.rounds} rounds, expected 0 to {MAX_ROUNDS}"
    if len({(run.round, run.arm) for run in sidecar.runs}) != len(sidecar.runs):
        yield "runs", "two runs of one arm in one round"
    names = [namespace.name for namespace in sidecar.namespaces]
    if len(set(names)) != len(names):
        yield "namespaces", "two namespaces of one name"
    if len(names) > MAX_NAMESPACES:
        yield "namespaces", f"{len(names)} of them, expected at most {MAX_NAMESPACES}"
    unknown = [
        hop for hop in (*sidecar.target.path, *sidecar.target.below) if hop.netns not in names
    ]
    if names and unknown:  # a sidecar may describe none at all
        yield "target.path", f"{unknown[0]} is in none of the namespaces described"
    for number, run in enumerate(sidecar.runs):
        for name, complaint in _run_complaints(run):
            yield f"runs[{number}].{name}", complaint


def _run_complaints(run: Run) -> Iterator[tuple[str, str]]:
    if not 1 <= run.round <= MAX_ROUNDS:
        yield "round", f"round {run.round}, expected 1 to {MAX_ROUNDS}"
    for name in ("start_ns", "end_ns", "start_utc_ns", "end_utc_ns"):
        if getattr(run, name) < 0:
            yield name, f"time {getattr(run, name)}, expected none below 0"
    # A run that was cut off has no end.
    if run.end_ns and run.end_ns < run.start_ns:
        yield "end_ns", f"the run ends at {run.end_ns}, before it starts at {run.start_ns}"
    if run.pid is not None and not 0 <= run.pid < 1 << 31:
        yield "pid", f"process {run.pid}, expected 0 to 2147483647"


def _out_of_range(place: str, value: Any, *, printed: bool = False) -> Iterator[tuple[str, str]]:
    """Yield every number and string that is out of bounds, wherever in the sidecar it stands."""
    if isinstance(value, str):
        limit = MAX_PRINTED if printed else MAX_TEXT
        if len(value) > limit:
            yield place, f"text of {len(value)} characters, expected at most {limit}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield place, f"{value}, expected a number"
    elif isinstance(value, int):
        if abs(value) >= MAX_NUMBER:
            yield place, f"{value}, expected less than 2^62"
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            below = f"{place}.{name}".lstrip(".")
            yield from _out_of_range(below, getattr(value, name), printed=name in PRINTED)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _out_of_range(f"{place}[{number}]", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _out_of_range(f"{place}[...]", key)
            yield from _out_of_range(f"{place}[...]", item)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, should the file be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
