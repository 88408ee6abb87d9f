"""The command line: a verb here is a function in the library, and a module of its own.

Only `main` turns an error into one line and an exit status. Each verb imports what it needs when it
runs, so that `maceproc --help` is instant and recording stays light.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import TextIO

import click

from maceproc import __version__
from maceproc.cli.analyze import analyze, explain
from maceproc.cli.calibrate import calibrate
from maceproc.cli.collect import collect, compact, query
from maceproc.cli.compare import compare
from maceproc.cli.completion import NAME, completion
from maceproc.cli.doctor import doctor
from maceproc.cli.events import events, salvage
from maceproc.cli.experiment import experiment
from maceproc.cli.export import export
from maceproc.cli.importing import import_
from maceproc.cli.lab import lab
from maceproc.cli.pings import pings
from maceproc.cli.record import ENDS_AFTER, record
from maceproc.cli.run import run
from maceproc.cli.selftest import selftest
from maceproc.cli.terminal import complete, one_line
from maceproc.cli.watch import watch
from maceproc.errors import as_error
from maceproc.foreign_text import clean_lines

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="maceproc")
def cli() -> None:
    r"""Corrected ping RTTs for containers.

    Record raw net tracepoints beside a ping, then take the time that its packets spent between the
    container and the outer device out of every RTT.

    \b
    Try it without any container, as root:
      maceproc record --lab --rounds 5 -- ping -i 0.01 -c 200
      maceproc analyze trace.dat
    Every verb has examples of its own:
      maceproc record --help

    Results are written to standard output, notes and progress to standard error. Colours and
    progress are for terminals only; NO_COLOR in the environment turns colours off.

    \b
    Exit status:
      0    done
      1    failed; one line on standard error says what, where and what to do next
      2    the command line was not understood
      68   no such container, namespace, process or device
      69   tracing, trace-cmd or an event is not available
      70   a bug in maceproc; with MACEPROC_DEBUG=1 in the environment it shows where
      77   not permitted: recording needs root
      128+ ended by that signal: 130 is Ctrl-C
    """


VERBS = (
    *(lab, doctor, selftest, run, record, watch),
    *(analyze, explain, calibrate, compare, experiment, export),
    *(collect, compact, query),
    *(events, pings, salvage, import_, completion),
)
for verb in VERBS:
    cli.add_command(verb)
complete(cli)


def main() -> None:
    """Run the command line; every exception becomes one line on stderr and an exit status.

    With MACEPROC_DEBUG=1 in the environment, the traceback comes before that line.
    """
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        _accept_any_text(stream)
    try:
        status = cli.main(prog_name=NAME, obj=ENDS_AFTER, standalone_mode=False)
    except click.ClickException as error:
        _show_usage(error)
        status = error.exit_code
    except click.Abort:  # Ctrl-C: click has made this of it
        status = 130
    except BrokenPipeError:
        status = 141  # the reader of our output has gone (`| head`): not worth a word
    except Exception as error:
        status = _tell_error(error)
    _leave(status)


def _show_usage(error: click.ClickException) -> None:
    """Show what click says of a command line, which may quote foreign words such as file names."""
    said = clean_lines(f"Error: {error.format_message()}")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        help_line = f"Try '{error.ctx.command_path} --help' for help.\n"
        said = f"{error.ctx.get_usage()}\n{help_line}\n{said}"
    with contextlib.suppress(OSError):  # standard error is full: the exit status still tells
        click.echo(said, err=True)


def _tell_error(error: Exception) -> int:
    """Write what went wrong to standard error, as one line; return the exit status."""
    known = as_error(error)
    try:
        if os.environ.get("MACEPROC_DEBUG", "0") not in ("", "0"):
            text = "".join(traceback.format_exception(error))
            click.echo(clean_lines(text), err=True, nl=False)
        click.echo(one_line(known), err=True)
    except OSError:
        pass  # standard error is closed or full: the exit status still tells
    return known.exit_status


def _accept_any_text(stream: TextIO | None) -> None:
    """Let a stream write what its encoding lacks as an escape, instead of raising."""
    if stream is not None and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _leave(status: object) -> None:
    """Exit; what could not be written to standard output is not tried again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        sys.stdout = None
        status = status or 1
    sys.exit(status if isinstance(status, int) else 0)


def _open_standard_streams() -> None:
    """Open those of the three standard streams that are closed.

    Else the next file that is opened takes their number, and gets what is told to people.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
