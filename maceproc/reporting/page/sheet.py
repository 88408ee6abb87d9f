"""A page of tables: the answer, the verdict, and sections of bars and tables; without scripts.

Comparisons and experiments are shown by it. They build a `Sheet` from the tables that their text
report is made of, so page and report tell the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from maceproc import __version__
from maceproc.following.soundness import Soundness
from maceproc.reporting.colors import SEGMENT_COLORS, SERIES_COLORS, as_css, slug
from maceproc.reporting.page import asset, environment


@dataclass(frozen=True)
class Bar:
    """A dot with a line from a lower to a higher end [ns]; ends that are not known are NaN.

    `heading` begins a group of bars. `series` is the series or segment that gives the
    colour.
    """

    label: str
    at_ns: float
    low_ns: float
    high_ns: float
    value: str
    heading: str = ""
    series: str = ""

    @property
    def color(self) -> str:
        """The CSS variable of its colour."""
        for kind, names in (("series", SERIES_COLORS), ("segment", SEGMENT_COLORS)):
            if self.series in names:
                return f"--{kind}-{slug(self.series)}"
        return "--link"


@dataclass(frozen=True)
class Table:
    """A table as it is read; `right` holds the numbers of the columns that are aligned right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int]
    about: str = ""


@dataclass(frozen=True)
class Section:
    """A title, what it shows, and bars and tables that show it."""

    title: str
    about: str = ""
    bars: Sequence[Bar] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Sheet:
    """A page: who made it, its title, its answer in sentences, its verdict, and its sections.

    `facts` are pairs of name and text; `findings` are triples of level, message and advice.
    """

    brand: str
    title: str
    answer: Sequence[str]
    verdict: Soundness
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    findings: Sequence[tuple[str, str, str]] = field(default=())
    end: str = ""

    def as_html(self) -> str:
        """Return the page, one HTML document that needs no other file."""
        return (
            environment()
            .get_template("sheet.html.j2")
            .render(
                sheet=self,
                version=__version__,
                css=as_css() + asset("page.css") + asset("sheet.css"),
                scaled=scaled,
            )
        )


def scaled(bars: Sequence[Bar]) -> tuple[float, list[tuple[Bar, float, float, float]]]:
    """Return where 0 and every bar's dot, line and its width are, in percent of the space.

    A line that goes far beyond all dots would leave no room for the others: it ends at the edge.
    """
    dots = [bar.at_ns for bar in bars if not math.isnan(bar.at_ns)] or [0.0]
    ends = [end for bar in bars for end in (bar.low_ns, bar.high_ns) if not math.isnan(end)]
    span = max(max(map(abs, dots)) * 3, 1.0)
    low = min(0.0, *dots, *(end for end in ends if end >= -span))
    high = max(0.0, *dots, *(end for end in ends if end <= span))
    if any(end > span for end in ends):
        high = span
    if any(end < -span for end in ends):
        low = -span
    width = (high - low) or 1.0

    def place(time_ns: float) -> float:
        return round(min(max((time_ns - low) / width * 100, 0.0), 100.0), 2)

    drawn = []
    for bar in bars:
        if math.isnan(bar.at_ns):
            continue
        ends = [bar.at_ns if math.isnan(end) else end for end in (bar.low_ns, bar.high_ns)]
        drawn.append((bar, place(bar.at_ns), place(ends[0]), place(ends[1]) - place(ends[0])))
    return place(0.0), drawn
