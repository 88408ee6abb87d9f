"""The command line: a verb here is a function in the library.

Only this module turns an error into one line and an exit status. Each verb imports what it needs
when it runs, so that `maceproc --help` is instant and recording stays light.
"""

from __future__ import annotations

import sys

import click

from maceproc import __version__
from maceproc.errors import MaceprocError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="maceproc")
def cli() -> None:
    """Corrected ping RTTs for containers.

    Record raw net tracepoints beside a ping, then take the time that its packets spent between the
    container and the outer device out of every RTT.
    """


@cli.group()
def lab() -> None:
    """Try maceproc without Docker: a network made of namespaces."""


LAB_NAME = click.option("--name", default="maceproc", show_default=True, help="The lab's name.")


@lab.command()
@LAB_NAME
@click.option("--containers", default=1, show_default=True, help="Containers on the bridge.")
def up(name: str, containers: int) -> None:
    """Bring the lab up; it stays until `maceproc lab down`."""
    from maceproc.lab import Lab

    made = Lab(name, containers)
    made.up()
    click.echo(f"lab {name!r} is up: {', '.join(made.netns(role) for role in made.roles)}")


@lab.command()
@LAB_NAME
def down(name: str) -> None:
    """Remove the lab, also one that was left half made."""
    from maceproc.lab import Lab

    removed = Lab(name).down()
    click.echo(f"lab {name!r} is down" if removed else f"lab {name!r} was not up")


@lab.command()
def status() -> None:
    """Show the labs on this machine."""
    from maceproc.lab import is_complete, labs

    found = labs()
    for name, roles in found.items():
        state = "up" if is_complete(roles) else "incomplete"
        click.echo(f"{name}: {state} ({', '.join(roles)})")
    if not found:
        click.echo("no lab is up")


@cli.command()
@click.option(
    "--lab",
    "lab_name",
    is_flag=False,
    flag_value="",
    help=("Run in a lab: NAME, or one made for this recording."),
    metavar="[NAME]",
)
@click.option("--netns", metavar="NAME", help="Run in a network namespace of ip-netns(8).")
@click.option("--pid", type=int, help="Run in the network namespace of a process.")
@click.option("--host", is_flag=True, help="Run on the host: a native ping.")
@click.option("--outer", default="", metavar="DEV", help="The outer device, if not by the routes.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--no-baseline", is_flag=True, help="Only the traced runs.")
@click.option("--events", default="minimal", show_default=True, metavar="minimal|full|LIST")
@click.option(
    "--buffer-kb",
    type=click.IntRange(64),
    default=8192,
    show_default=True,
    help="Ring buffer per CPU [KiB].",
)
@click.option("-o", "--output", default="trace.dat", show_default=True, metavar="FILE")
@click.option("--force", is_flag=True, help="Replace a capture that exists.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
def record(
    lab_name: str | None,
    netns: str | None,
    pid: int | None,
    host: bool,
    outer: str,
    rounds: int,
    no_baseline: bool,
    events: str,
    buffer_kb: int,
    output: str,
    force: bool,
    command: tuple[str, ...],
) -> None:
    """Record a command, usually ping, and the kernel's net events beside it.

    Without a target the command runs here, as a native ping.
    """
    from contextlib import ExitStack

    from maceproc import record as recording
    from maceproc import targets
    from maceproc.lab import Lab

    with ExitStack() as stack:
        if lab_name is not None:
            where = targets.lab_site(Lab(lab_name) if lab_name else stack.enter_context(Lab()))
        elif netns is not None:
            where = targets.netns_site(netns)
        elif pid is not None:
            where = targets.pid_site(pid)
        else:
            where = targets.here_site("host" if host else "here")
        capture = recording.record(
            list(command),
            where,
            output,
            rounds=rounds,
            baseline=not no_baseline,
            events=events,
            outer=outer,
            force=force,
            buffer_kb=buffer_kb,
        )
    click.echo(f"wrote {capture.trace}", err=True)


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
