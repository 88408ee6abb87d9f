"""Consoles that show other people's text as it is, and never act on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape as escape_markup
from rich.table import Table
from rich.text import Text

from maceproc.foreign_text import clean, clean_lines

WIDEST = 1000


def escape(text: object) -> str:
    """Return foreign text for rich: one line, without control characters and without markup."""
    return escape_markup(clean(text))


class CleanConsole(Console):
    """A rich console whose strings hold no control characters but line breaks, and no emoji codes.

    Markup is still interpreted, since the reports use it: foreign text goes through `escape`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"emoji": False, "highlight": False} | options))

    def render_str(self, text: str, **options: Any) -> Text:
        """Make rich text of a string, cleaned."""
        return super().render_str(clean_lines(text), **options)


def print_parts(parts: Iterable[RenderableType], console: Console) -> None:
    """Print parts of a report; where the output is no terminal, without blanks at line ends.

    A table whose numbers need more room than there is gets it: no number is cut.
    """
    if console.is_terminal:
        for part in parts:
            console.print(part, width=_width(part, console), crop=False)
        return
    with console.capture() as captured:
        for part in parts:
            console.print(part, width=_width(part, console), crop=False)
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _width(part: RenderableType, console: Console) -> int:
    needed = console.measure(part, options=console.options.update(max_width=WIDEST)).minimum
    return max(console.width, needed) if isinstance(part, Table) else console.width
