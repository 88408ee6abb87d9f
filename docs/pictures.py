"""The site's pictures, all drawn from the captures of this repository.

python docs/pictures.py DIRECTORY
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes

import maceproc

CAPTURES = Path(__file__).parent.parent / "captures"


def capture(name: str) -> maceproc.Analysis:
    """Analyze one of the repository's captures."""
    return maceproc.analyze(CAPTURES / f"{name}.dat")


def axes(width: float, height: float) -> Axes:
    """Make a figure of that size [inch]."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def pictures() -> dict[str, Callable[[], Axes]]:
    """Return what draws each picture."""
    idle, every_event = capture("idle"), capture("every_event")
    return {
        "waterfall": lambda: every_event.plot.waterfall(seq=4, ax=axes(14, 6.5)),
        "path": lambda: idle.plot.path(ax=axes(11, 4)),
        "rtt": idle.plot.rtt,
        "ecdf": idle.plot.ecdf,
        "crossings": idle.plot.crossings,
        "perturbation": idle.plot.perturbation,
        "compare": maceproc.compare(idle, capture("loaded")).plot,
    }


def draw(directory: Path) -> None:
    """Draw all pictures into a directory, unless they are newer than what they are made from."""
    directory.mkdir(exist_ok=True)
    sources = [*CAPTURES.glob("*.dat"), *Path(maceproc.__file__).parent.rglob("*.py")]
    newest = max(path.stat().st_mtime for path in (*sources, Path(__file__)))
    drawn = sorted(directory.glob("*.svg"))
    if drawn and min(path.stat().st_mtime for path in drawn) > newest:
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "maceproc", "svg.fonttype": "path", "font.size": 11}):
        for name, make in pictures().items():
            figure = make().figure
            figure.savefig(directory / f"{name}.svg", metadata={"Date": None}, facecolor="white")
            plt.close("all")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
