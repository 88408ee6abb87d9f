"""What is shown beside a result: how far the work is, and notes.

Results go to standard output. Everything else goes to standard error, as much of it as is wanted:
every verb has -q and -v. What moves or has colours is for terminals only.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from maceproc.foreign_text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

LOG = logging.getLogger("maceproc")  # the stages of an analysis, by the library
ERROR_LENGTH = 1500  # of an error's line, which may quote what others wrote [characters]
PATIENCE_S = 1.0  # so long nothing is shown: most captures are small
_KEY = "maceproc.verbosity"


class Verbosity(IntEnum):
    """How much is told beside results and errors."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


def complete(command: click.Command) -> click.Command:
    """Give a verb, or every verb of a group, what all have: -q, -v, and help that is laid out.

    Click leaves a paragraph as it is after a backspace; docstrings have it as two characters.
    """
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    command.short_help = " ".join(command.help.partition("\n\n")[0].split()).rstrip(".")
    if isinstance(command, click.Group):
        for verb in command.commands.values():
            complete(verb)
        return command
    if command.name == "completion":  # nothing but a result
        return command
    for flags, level, text in (
        (("-q", "--quiet"), Verbosity.QUIET, "Only results and errors: no notes, no progress."),
        (("-v", "--verbose"), Verbosity.VERBOSE, "Tell what is being done, and when."),
    ):
        option: dict[str, Any] = {"is_flag": True, "expose_value": False, "help": text}
        command.params.append(click.Option(flags, callback=_remember(level), **option))
    return command


def _remember(level: Verbosity) -> Callable[[click.Context, click.Parameter, bool], None]:
    def remember(context: click.Context, _parameter: click.Parameter, chosen: bool) -> None:
        if chosen and context.meta.setdefault(_KEY, level) is not level:
            raise click.UsageError("choose one of --quiet and --verbose")

    return remember


def verbosity() -> Verbosity:
    """Return how much the running verb is to tell."""
    context = click.get_current_context(silent=True)
    return Verbosity.NORMAL if context is None else context.meta.get(_KEY, Verbosity.NORMAL)


def tell(text: str) -> None:
    """Write a line to standard error, unless only results are wanted, or it cannot be written."""
    if verbosity() > Verbosity.QUIET:
        try:
            click.echo(clean(text), err=True)
        except (OSError, ValueError):  # ValueError: the stream is closed
            # Nobody can be told. Python ends with status 120 when it cannot empty a stream.
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def one_line(error: Exception) -> str:
    """Return an error as the line that is shown of it: without control characters, and bounded."""
    text = clean(error)
    if len(text) > ERROR_LENGTH:
        text = f"{text[: ERROR_LENGTH // 2]} ... {text[-ERROR_LENGTH // 2 :]}"
    return f"maceproc: {text}"


def tell_notes(notes: Iterable[str]) -> None:
    """Write notes to standard error, a line each, unless only results are wanted."""
    for note in notes:
        tell(f"note: {note}")


def may_move() -> bool:
    """Tell whether progress may be drawn: on a terminal, unless less or more is wanted."""
    return sys.stderr.isatty() and verbosity() is Verbosity.NORMAL


@contextmanager
def working() -> Iterator[None]:
    """Show what the library is doing: on a terminal once it takes a second, or all with -v."""
    handler: logging.Handler
    if verbosity() is Verbosity.VERBOSE:
        handler = logging.StreamHandler()
        handler.setFormatter(_Clean("{relativeCreated:7.0f} ms  {message}", style="{"))
    elif may_move():
        handler = _Spinner()
    else:
        yield
        return
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(level)
        LOG.removeHandler(handler)
        handler.close()


class _Clean(logging.Formatter):
    """Format a message as one line without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


class _Spinner(logging.Handler):
    """Show the latest message beside something that moves."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console

        self._status = Console(stderr=True).status("working")
        self._timer = threading.Timer(PATIENCE_S, self._status.start)
        self._timer.daemon = True
        self._timer.start()

    def emit(self, record: logging.LogRecord) -> None:
        from rich.markup import escape

        self._status.update(escape(clean(record.getMessage())))

    def close(self) -> None:
        self._timer.cancel()
        self._timer.join()
        self._status.stop()
        super().close()


class Tick(Protocol):
    """What is told how far the work is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Show that so many are done of so many, and what comes next."""


@contextmanager
def bar(what: str = "", unit: str = "", per_second: float = 10) -> Iterator[Tick]:
    """Give what shows how many `unit` are done: a bar on a terminal, a line for each with -v.

    `what` stands beside the bar until something else is said. Whoever wakes up beside a measurement
    disturbs it: then `per_second` should be 1, and what is told is drawn at once.
    """
    if not may_move():
        with working():
            yield partial(_log, unit)
        return
    with _progress(unit, per_second) as progress:
        task = progress.add_task(what, total=None, visible=False)
        yield lambda done, total, said="": progress.update(
            task,
            completed=done,
            total=total,
            description=clean(said or what),
            visible=total > 1,
            refresh=per_second <= 1,
        )


def _log(unit: str, done: int, total: int, what: str = "") -> None:
    if what and done < total:
        LOG.info("%s %d of %d: %s", unit, done + 1, total, what)


def _progress(unit: str, per_second: float) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(f"{unit} {{task.completed}} of {{task.total}}".lstrip()),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, refresh_per_second=per_second, transient=True)
