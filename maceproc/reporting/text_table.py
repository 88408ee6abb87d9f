"""A table as a terminal shows it: a title, numbers in columns, and a legend of what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING

from maceproc.reporting.console import CleanConsole, escape

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

WIDTH = 80
"""Columns that every report fits into, where the output is no terminal."""
LEAST_ROOM = 24
"""Columns that a text beside its label must have, see `beside`."""


def terminal() -> Console:
    """Return a console on standard output: colour on a terminal only, else `WIDTH` wide."""
    console = CleanConsole()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def report_table(columns: str, *, title: str = "") -> Table:
    """Make a table with these columns, separated by ``|``; ``>`` marks numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    if title:
        table.title, table.title_justify, table.title_style = escape(title), "left", "bold"
    for name in columns.split("|"):
        numeric = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if numeric else "left", no_wrap=numeric)
    return table


def titled(
    title: str, table: Table, legend: Mapping[str, str] | None = None
) -> Iterator[RenderableType]:
    """Yield a title, the table below it, and what its rows mean."""
    yield f"[bold]{escape(title)}[/bold]"
    yield table
    if legend:
        yield legend_of(legend)


def legend_of(legend: Mapping[str, str]) -> RenderableType:
    """Return names and their meanings in two columns."""
    return pairs({f"[dim]{escape(n)}[/dim]": f"[dim]{escape(m)}[/dim]" for n, m in legend.items()})


def beside(label: str, text: str) -> list[str]:
    """Wrap a text beside its label, in plain lines that fit into `WIDTH`.

    A label that leaves too little room has the text below it.
    """
    room = WIDTH - len(label)
    if room < LEAST_ROOM:
        indent = " " * 4
        return [label.rstrip(), *wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)]
    # A word longer than the room stays whole: a path or an address is copied from here.
    parts = wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    blank = " " * len(label)
    return [f"{blank if number else label}{part}".rstrip() for number, part in enumerate(parts)]


def pairs(rows: Mapping[str, str]) -> RenderableType:
    """Return labels and texts in two columns; both may hold markup."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for label, text in rows.items():
        grid.add_row(f"  {label}", text)
    return grid
