"""`maceproc doctor`: what a recording needs, checked on this machine."""

from __future__ import annotations

import sys
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from maceproc.cli.privileges import require_root
from maceproc.foreign_text import clean

if TYPE_CHECKING:
    from maceproc.doctor_programs import Check

WIDTH, INDENT = 80, 26
COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--fix", is_flag=True, help="Remove what recordings that were killed left behind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def doctor(fix: bool, as_json: bool) -> None:
    r"""Check everything that a recording needs on this machine; a problem is exit status 1.

    A short trial recording is a part of it. Nothing is changed, unless --fix is given.

    \b
    maceproc doctor
    maceproc doctor --fix
    """
    from maceproc.doctor import as_json as checks_as_json
    from maceproc.doctor import examine, remove_leftovers

    if fix:
        require_root("removing what recordings left behind")
    removed = remove_leftovers() if fix else []
    checks = examine()
    if as_json:
        click.echo(checks_as_json(checks, removed))
    else:
        for what in removed:
            click.echo(clean(f"removed {what}"))
        for line in wrap(clean(verdict(checks)), WIDTH):
            click.echo(line)
        click.echo()
        for check in checks:
            _show(check)
    sys.exit(any(check.level == "problem" for check in checks))


def verdict(checks: list[Check]) -> str:
    """Say whether this machine can record, and what speaks against it."""
    problems, warnings = (
        list(dict.fromkeys(check.check for check in checks if check.level == level))
        for level in ("problem", "warning")
    )
    if problems:
        return f"not ready to record: {', '.join(problems)}"
    told = "no problem was found"
    if warnings:
        told += f"; results are less certain, or less can be done, for: {', '.join(warnings)}"
    return f"ready to record: {told}"


def _show(check: Check) -> None:
    level = click.style(f"{check.level:7}", fg=COLORS[check.level])
    first, *more = _wrapped(check.message) or [""]
    click.echo(f"{level}  {check.check:15}  {first}")
    if check.advice:
        more += _wrapped(f"-> {check.advice}", subsequent_indent="   ")
    for line in more:
        click.echo(f"{'':{INDENT}}{line}")


def _wrapped(text: str, subsequent_indent: str = "") -> list[str]:
    """Return a text as lines beside the checks; paths stay whole, to be copied."""
    return wrap(
        clean(text),
        WIDTH - INDENT,
        subsequent_indent=subsequent_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
