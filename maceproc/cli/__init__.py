"""The command line: a verb here is a function in the library, and a module of its own.

Only `main` turns an error into one line and an exit status. Each verb imports what it needs when it
runs, so that `maceproc --help` is instant and recording stays light.
"""

from __future__ import annotations

import sys

import click

from maceproc import __version__
from maceproc.cli.analyze import analyze, explain
from maceproc.cli.compare import compare
from maceproc.cli.completion import NAME, completion
from maceproc.cli.doctor import doctor
from maceproc.cli.events import events, salvage
from maceproc.cli.experiment import experiment
from maceproc.cli.export import export
from maceproc.cli.lab import lab
from maceproc.cli.record import record
from maceproc.cli.selftest import selftest
from maceproc.cli.terminal import complete
from maceproc.cli.watch import watch
from maceproc.errors import MaceprocError

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
      77   not permitted: recording needs root
      128+ ended by that signal: 130 is Ctrl-C
    """


VERBS = (
    *(lab, doctor, selftest, record, watch, analyze, explain, compare, experiment, export),
    *(events, salvage, completion),
)
for verb in VERBS:
    cli.add_command(verb)
complete(cli)


def main() -> None:
    """Run the command line; an error becomes one line on stderr and a non-zero exit status."""
    try:
        cli(prog_name=NAME)
    except MaceprocError as error:
        click.echo(f"maceproc: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not worth a word. Keep the interpreter from
        # flushing into the closed pipe at exit.
        sys.stdout = None
        sys.exit(141)
