"""The command line: a verb here is a function in the library, and a module of its own.

Only `main` turns an error into one line and an exit status. Each verb imports what it needs when it
runs, so that `maceproc --help` is instant and recording stays light.
"""

from __future__ import annotations

import sys

import click

from maceproc import __version__
from maceproc.cli.analyze import analyze, explain
from maceproc.cli.events import events, salvage
from maceproc.cli.experiment import experiment
from maceproc.cli.lab import lab
from maceproc.cli.record import record
from maceproc.cli.selftest import selftest
from maceproc.errors import MaceprocError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="maceproc")
def cli() -> None:
    """Corrected ping RTTs for containers.

    Record raw net tracepoints beside a ping, then take the time that its packets spent between the
    container and the outer device out of every RTT.
    """


for verb in (lab, record, analyze, explain, events, salvage, experiment, selftest):
    cli.add_command(verb)


def main() -> None:
    """Run the command line; an error becomes one line on stderr and a non-zero exit status."""
    try:
        cli()
    except MaceprocError as error:
        click.echo(f"maceproc: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not worth a word. Keep the interpreter from
        # flushing into the closed pipe at exit.
        sys.stdout = None
        sys.exit(141)
