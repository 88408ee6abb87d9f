"""Write the pages of the site, with what is made from the code: python docs/made.py DIRECTORY.

In a page, a comment such as ``<!-- tables -->`` stands for what the function of that name writes;
see `MADE`. Every page ends with a link to the glossary. The pictures are drawn from captures.
MkDocs, or whatever else reads mkdocs.yml, builds the site from the directory without any hook.
"""

from __future__ import annotations

import inspect
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pictures

DOCS = Path(__file__).parent
GLOSSARY = "glossary.md"
NOT_COPIED = shutil.ignore_patterns("*.py", "*.md", "__pycache__", "pictures")


def write(directory: Path) -> None:
    """Write every page, and whatever else the site has, into a directory."""
    shutil.copytree(DOCS, directory, ignore=NOT_COPIED, dirs_exist_ok=True)
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        (directory / name).write_text(complete(page.read_text(), name))
    pictures.draw(directory / "pictures")


def complete(markdown: str, name: str) -> str:
    """Put in what is made from the code, and a link to the glossary; `name` is relative to DOCS."""
    for mark, make in MADE.items():
        comment = f"<!-- {mark} -->"
        if comment in markdown:
            markdown = markdown.replace(comment, "\n".join(make()))
    if name == GLOSSARY:
        return markdown
    glossary = posixpath.relpath(GLOSSARY, posixpath.dirname(name) or ".")
    return f"{markdown}\n\n[What the words mean: glossary]({glossary}){{ .glossary }}\n"


def tables() -> Iterator[str]:
    """Describe every declared table."""
    from maceproc import analysis, schema
    from maceproc.reporting import views

    for module, title in (
        (schema, "The way from events to results"),
        (analysis, "Captures compared: `maceproc.compare(...)`"),
        (views, "Behind the pictures: `analysis.view.NAME()`"),
    ):
        yield f"## {title}\n"
        for table in vars(module).values():
            elsewhere = module is not schema and table in vars(schema).values()
            if isinstance(table, schema.Table) and not elsewhere:
                yield from _table(table)


def _table(table: Any) -> Iterator[str]:
    yield f"### {table.name}\n\nA row is {table.row}.\n"
    yield "| column | type | unit | meaning |\n|---|---|---|---|"
    for column in table.columns:
        meaning = column.meaning.replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{column.name}` | {column.dtype} | {column.unit} | {meaning} |"
    yield ""


def statuses() -> Iterator[str]:
    """Describe every status of a ping."""
    from maceproc.following.verdicts import STATUSES

    yield from _rows("status", "meaning")
    for status, meaning in STATUSES.items():
        yield from _row(f"`{status}`", meaning)


def ledger() -> Iterator[str]:
    """Describe every segment of an RTT."""
    from maceproc.ledger import LEDGER

    where = {
        "inside": "inside a crossing",
        "outside": "this host, outside the crossings",
        "wire": "the wire",
        "unseen": "shown by no event",
    }
    yield from _rows("segment", "column", "from", "to", "where")
    for one in LEDGER:
        yield from _row(one.name, f"`{one.column}`", one.start, one.end, where[one.part])


def series() -> Iterator[str]:
    """Describe every series, with its name in the experiment."""
    from maceproc.series import SHOWN

    yield from _rows("series", "in the experiment", "arm", "column", "meaning")
    for one in SHOWN:
        paper = one.in_experiment.name if one.in_experiment else ""
        yield from _row(one.name, paper, one.arm, f"`{one.column}`", one.meaning)


def differences() -> Iterator[str]:
    """Describe every difference between series."""
    from maceproc.series import DIFFERENCES

    yield from _rows("difference", "series", "minus", "meaning")
    for one in DIFFERENCES:
        yield from _row(one.name, one.series.name, one.against.name, one.meaning)


def _rows(*header: str) -> Iterator[str]:
    """Begin a table."""
    yield from _row(*header)
    yield from _row(*("---" for _ in header))


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


def commands() -> Iterator[str]:
    """Describe every verb, as its help does."""
    from maceproc.cli import cli

    yield from _command(click.Context(cli, info_name="maceproc", **cli.context_settings), 2)


def _command(context: click.Context, level: int) -> Iterator[str]:
    command = context.command
    pieces = command.collect_usage_pieces(context)
    yield f"{'#' * level} {context.command_path}\n"
    yield f"```text\n{' '.join([context.command_path, *pieces])}\n```\n"
    yield from _help(command.help or "")
    yield "| option | meaning |\n|---|---|"
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if record and isinstance(option, click.Option):
            flags, text = (part.replace("|", "\\|") for part in record)
            yield f"| `{flags}` | {text} |"
    yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            verb = command.get_command(context, name)
            yield from _command(click.Context(verb, info_name=name, parent=context), level + 1)


def _help(text: str) -> Iterator[str]:
    """Give the paragraphs of a help text; what keeps its line breaks is code."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith("\b"):
            yield f"```text\n{paragraph[1:].strip(chr(10))}\n```\n"
        else:
            yield re.sub(r"\s*\n\s*", " ", paragraph) + "\n"


MADE = {
    "tables": tables,
    "commands": commands,
    "statuses": statuses,
    "ledger": ledger,
    "series": series,
    "differences": differences,
}
"""What a page can have in it, by the name in its comment."""

if __name__ == "__main__":
    write(Path(sys.argv[1]))
