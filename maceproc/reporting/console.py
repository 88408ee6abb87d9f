"""Consoles that show other people's text as it is, and never act on it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.text import Text

from maceproc.foreign_text import clean, clean_lines


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
