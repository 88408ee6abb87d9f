"""The captures of this repository, each analyzed once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import maceproc

CAPTURES = Path(__file__).parent.parent / "captures"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.dat"))


def path_of(name: str) -> Path:
    return CAPTURES / f"{name}.dat"


@cache
def analyzed(name: str) -> maceproc.Analysis:
    return maceproc.analyze(path_of(name))
