"""Write the manual pages of all verbs: python docs/man.py DIRECTORY."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import click
from click_man.core import write_man_pages

from maceproc import __version__
from maceproc.cli import cli


def write(directory: Path) -> None:
    """Write a page for maceproc and for every verb."""
    directory.mkdir(parents=True, exist_ok=True)
    for command in (cli, *cli.commands.values()):
        lay_out(command)
    write_man_pages("maceproc", cli, version=__version__, target_dir=str(directory))


def lay_out(command: click.Command) -> None:
    """Make a help text roff's, with the examples as they are."""
    text = inspect.cleandoc(command.help or "")
    kept = re.compile(r"^\x08\n(.*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
    command.help = kept.sub(r".nf\n\1\n.fi", text)
    if isinstance(command, click.Group):
        for verb in command.commands.values():
            if command is not cli:
                lay_out(verb)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
