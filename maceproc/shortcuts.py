"""`maceproc.explain` and `maceproc.export`: of a capture, or of its analysis where that is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from maceproc.pipeline import Analysis, analyze

if TYPE_CHECKING:
    from maceproc.reporting.explain import Explanation
    from maceproc.reporting.export import Format

Given = str | os.PathLike[str] | Analysis


def explain(capture: Given, seq: int, round: int | None = None) -> Explanation:  # noqa: A002
    """Explain one traced ping by its icmp_seq, and the round where several have it.

    `capture` is the path of a trace, or its analysis: with that, the next ping takes no new
    analysis, and a trace recorded by hand has what `analyze` was told of it. Raises AnalysisError
    when there is no such ping, and what `analyze` raises.

    >>> print(explain("trace.dat", 3, round=1))                               # doctest: +SKIP
    """
    from maceproc.reporting.explain import explain as explain_ping

    return explain_ping(_analyzed(capture), seq, round)


def export(
    capture: Given,
    path: str | os.PathLike[str],
    *,
    table: str = "rtts",
    format: Format | None = None,  # noqa: A002
    force: bool = False,
) -> list[Path]:
    """Write one table, the timeline or the packets of a capture; return the files written.

    `capture` is the path of a trace, or its analysis, which `analyze` also makes of a trace
    recorded by hand, and with other limits of memory; `path` ends in ``.csv``, ``.json``,
    ``.parquet``, ``.pftrace`` (a timeline) or ``.pcapng`` (packets). `table` is for the first
    three, `format` for other endings. Raises CaptureError when a file exists and `force` is not
    given, and as `maceproc.reporting.export.export`.
    """
    from maceproc.reporting.export import export as write

    return write(_analyzed(capture), path, table=table, format=format, force=force)


def _analyzed(capture: Given) -> Analysis:
    return capture if isinstance(capture, Analysis) else analyze(capture)
