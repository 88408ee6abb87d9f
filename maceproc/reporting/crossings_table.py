"""What the report shows of crossings where no ping was printed, as beside ``sleep``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maceproc.reporting.text_table import report_table, titled
from maceproc.units import format_us

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


def crossings_without_pings(crossings: pd.DataFrame) -> Iterator[RenderableType]:
    """Yield a table of the crossings that were followed, by direction, and what they are not."""
    whole = crossings[crossings["latency_ns"].notna()]
    if whole.empty:
        yield f"no ping and no complete crossing in {len(crossings)} packets followed"
        return
    table = report_table("|>packets|>median|>p5|>p95")
    for direction, latency_ns in whole.groupby("direction", sort=False)["latency_ns"]:
        ends = (float(latency_ns.quantile(share)) for share in (0.5, 0.05, 0.95))
        table.add_row(str(direction), str(len(latency_ns)), *(format_us(end) for end in ends))
    yield from titled("Crossings [us]", table)
    yield (
        f"no ping was printed: these are all packets that crossed, {len(whole)} of "
        f"{len(crossings)} completely; no RTT is corrected"
    )
