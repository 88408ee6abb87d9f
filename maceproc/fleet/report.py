"""Groups of captures as a person reads them in a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from maceproc.fleet.collecting import CROSSED
from maceproc.fleet.groups import OTHERS, Groups
from maceproc.reporting.console import CleanConsole, escape
from maceproc.reporting.side_by_side import format_p
from maceproc.reporting.text_table import WIDTH, report_table
from maceproc.series import CORRECTED, NATIVE, NATIVE_RTT, OVERHEAD, UNTRACED
from maceproc.units import format_us

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FIRST = tuple(
    getattr(one, "name", one)
    for one in (CROSSED, OVERHEAD, UNTRACED, NATIVE_RTT, CORRECTED, NATIVE)
)
MOST_ROWS = 40  # of a table in a terminal


def as_text(groups: Groups) -> str:
    """Render the comparison of groups as plain text."""
    out = io.StringIO()
    console = CleanConsole(file=out, width=WIDTH, force_jupyter=False, highlight=False)
    print_groups(groups, console)
    return out.getvalue()


def print_groups(groups: Groups, console: Console) -> None:
    """Print the comparison of groups on a console."""
    for part in _parts(groups):
        console.print(part)


def in_order(groups: Groups, quantity: str) -> pd.DataFrame:
    """Return the rows of one quantity with their contrasts: what stands out first, then by size."""
    own = groups.groups[groups.groups["quantity"] == quantity]
    contrasts = groups.contrasts[groups.contrasts["quantity"] == quantity]
    added = ["group", "against", "estimate_ns", "low_ns", "high_ns", "p_adjusted", "stands_out"]
    rows = own.merge(contrasts[added], on="group", how="left", suffixes=("", "_of_difference"))
    rows["stands_out"] = rows["stands_out"].fillna(False).astype(bool)
    return rows.sort_values(
        ["stands_out", "median_ns"], ascending=False, kind="stable", ignore_index=True
    )


def quantities_of(groups: Groups) -> list[str]:
    """Return the quantities that there are, what the container adds first."""
    found = dict.fromkeys(groups.groups["quantity"])
    return [
        *(name for name in FIRST if name in found),
        *(name for name in found if name not in FIRST),
    ]


def _parts(groups: Groups) -> Iterator[RenderableType]:
    by = ", ".join(groups.by)
    failed = f"; {groups.failures} more could not be analyzed" if groups.failures else ""
    yield f"{groups.captures} captures by {escape(by)}{failed}"
    quantities = quantities_of(groups)
    if not quantities:
        return
    rows = in_order(groups, quantities[0])
    yield _group_table(rows, quantities[0])
    if len(rows) > MOST_ROWS:
        yield f"and {len(rows) - MOST_ROWS} more: --json and --html have all of them"
    if len(quantities) > 1:
        yield _medians_table(groups, list(rows["group"][:MOST_ROWS]), quantities[1:])
    yield (
        "unit: captures; p: of no difference from "
        f"{escape(_against(groups))}, adjusted for {len(groups.contrasts)} tests (Holm); "
        "bold: differs, and by more than groups usually do"
    )


def _against(groups: Groups) -> str:
    return next(iter(groups.contrasts["against"]), OTHERS)


def _group_table(rows: pd.DataFrame, quantity: str) -> RenderableType:
    title = f"Median {quantity} [us]"
    table = report_table(
        "|>captures|>median|>95 % interval|>difference|>95 % interval|>p", title=title
    )
    table.columns[0].overflow = "fold"  # hosts often differ in the end of their names alone
    for row in rows[:MOST_ROWS].itertuples():
        table.add_row(
            escape(row.group),
            str(row.captures),
            format_us(row.median_ns),
            _interval(row.low_ns, row.high_ns),
            format_us(row.estimate_ns, signed=True),
            _interval(row.low_ns_of_difference, row.high_ns_of_difference, signed=True),
            "" if pd.isna(row.p_adjusted) else format_p(row.p_adjusted),
            style="bold" if row.stands_out else "",
        )
    return table


def _interval(low_ns: float, high_ns: float, *, signed: bool = False) -> str:
    if pd.isna(low_ns):
        return ""
    return f"{format_us(low_ns, signed=signed)} to {format_us(high_ns, signed=signed)}"


def _medians_table(groups: Groups, names: list[str], quantities: list[str]) -> RenderableType:
    shown = quantities[:3]  # a terminal has no room for more
    table = report_table("".join(f"|>{escape(name)}" for name in shown), title="Medians [us]")
    table.columns[0].overflow = "fold"
    medians = groups.groups.set_index(["group", "quantity"])["median_ns"]
    for name in names:
        values = (float(medians.get((name, quantity), float("nan"))) for quantity in shown)
        table.add_row(escape(name), *map(format_us, values))
    return table
