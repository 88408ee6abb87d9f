"""The report page: everything of one analysis in one HTML file that needs no network.

The page is a Jinja2 template (``page.html.j2``) that `Page` fills from the tables of
`maceproc.reporting.views`. Path, ledger and the single ping are HTML, and readable without scripts.
The charts that a reader zooms (RTTs, distribution, crossings) are drawn by uPlot.

uPlot 1.6.32 (MIT, github.com/leeoniya/uPlot) is kept beside this file as published: 51 kB in every
report, where vega 6 with vega-lite 6 would be 830 kB and plotly.js 4 from 1.2 MB (basic) to 4.8 MB,
all minified. It draws and zooms tens of thousands of points without delay, needs nothing else, and
has been stable for years.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from maceproc import __version__
from maceproc.following.coverage import coverage
from maceproc.foreign_text import clean
from maceproc.reporting.answer import answer
from maceproc.reporting.closure import closure_rows, made_by
from maceproc.reporting.colors import as_css, slug
from maceproc.reporting.page.charts import charts
from maceproc.reporting.page.every_ping import every_ping
from maceproc.reporting.page.parts import (
    costs,
    crossing_rows,
    differences,
    ledger_rows,
    lost_rows,
    medians,
    path_rows,
    pings_shown,
    recorded,
    when,
)
from maceproc.reporting.page.route import lanes
from maceproc.reporting.page.tail import hop_rows, tail
from maceproc.series import CORRECTED, DIFFERENCE_MEANING, MEANING, NATIVE_RTT
from maceproc.units import format_share

if TYPE_CHECKING:
    from jinja2 import Environment

    from maceproc.analysis import Analysis


@dataclass(frozen=True)
class Page:
    """What the template shows, gathered from one analysis."""

    analysis: Analysis

    @cached_property
    def charts(self) -> list[dict[str, Any]]:
        """The charts that have points, as page.js draws them."""
        return charts(self.analysis)

    def as_dict(self) -> dict[str, Any]:
        """Return the names the template uses."""
        analysis, sidecar = self.analysis, self.analysis.capture.sidecar
        series = analysis.series.set_index("series").reindex(list(MEANING))
        return {
            "version": __version__,
            "file": analysis.capture.trace.name,
            "answer": answer(analysis),
            "when": when(analysis),
            "lanes": lanes(analysis),
            "hops": hop_rows(analysis),
            "tail": tail(analysis),
            "command": " ".join(sidecar.command) if sidecar else "",
            "route": sidecar.target.route if sidecar else "",
            "medians": medians(analysis),
            "differences": differences(analysis),
            "findings": analysis.findings.to_dict("records"),
            "path": path_rows(analysis),
            "charts": {chart["id"]: chart for chart in self.charts},
            "main_series": (NATIVE_RTT if analysis.native.correction else CORRECTED).name,
            "closure": closure_rows(analysis.native),
            "made_by": made_by(analysis.native),
            "series": series.dropna(subset="used").reset_index().to_dict("records"),
            "series_meaning": MEANING,
            "costs": costs(analysis),
            "cost_meaning": DIFFERENCE_MEANING,
            "coverage": coverage(analysis.rtts),
            "crossings": crossing_rows(analysis),
            "ledger": ledger_rows(analysis),
            "pings": pings_shown(analysis),
            "lost": lost_rows(analysis),
            "recorded": recorded(analysis),
        }


def as_html(analysis: Analysis) -> str:
    """Return the report page, one self-contained HTML document."""
    page = Page(analysis)
    scripts = [asset("uPlot.iife.min.js"), asset("page.js")]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            page.as_dict(),
            css=as_css() + asset("uPlot.min.css") + asset("page.css"),
            scripts=scripts,
            script_hashes=[_csp_hash(script) for script in scripts],
            data=_json_in_html(page.charts),
            every_ping=_json_in_html(every_ping(analysis)),
        )
    )


@cache
def environment() -> Environment:
    """Return what fills the templates of this directory: foreign text is escaped and cleaned."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from maceproc.reporting.headline import duration, interval

    found = Environment(
        loader=PackageLoader("maceproc.reporting", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    found.filters |= {"duration": duration, "share": format_share, "slug": slug, "typeset": typeset}
    found.globals |= {"interval": interval}
    return found


def _shown(value: object) -> object:
    """Show control, bidi and zero-width characters of foreign text as escapes."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return clean(value, keep="\n\t") if is_text else value


def typeset(text: str) -> str:
    """Replace " - " by a minus sign and "->" by an arrow."""
    return text.replace(" - ", " \u2212 ").replace("->", "\u2192")


@cache
def asset(name: str) -> str:
    """Return the text of a file of this directory."""
    return (files("maceproc.reporting.page") / name).read_text(encoding="utf-8").strip()


def _csp_hash(script: str) -> str:
    """Return the hash that allows this script in the page's Content-Security-Policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json_in_html(value: object) -> str:
    """Return JSON that cannot end the HTML element that contains it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
