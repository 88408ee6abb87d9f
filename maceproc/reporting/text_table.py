"""A table as a terminal shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maceproc.reporting.console import escape

if TYPE_CHECKING:
    from rich.table import Table


def report_table(title: str, columns: str) -> Table:
    """Make a table with these columns, separated by ``|``; ``>`` marks numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in columns.split("|"):
        numeric = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if numeric else "left", no_wrap=numeric)
    return table
