"""`maceproc experiment`: the paper's experiment, and its report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from maceproc.cli.options import REMOTE, recorded
from maceproc.cli.places import Chosen, chosen_site, placed
from maceproc.cli.privileges import require_root
from maceproc.cli.record import interrupt_cleanly
from maceproc.cli.terminal import bar, tell, tell_notes
from maceproc.foreign_text import clean, clean_lines

if TYPE_CHECKING:
    from maceproc.recording.session import Progress


class _Experiment(click.Group):
    """`maceproc experiment ... -- ping` runs one; `maceproc experiment report DIR` shows one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take everything but the other verbs and a plain ``--help`` for the verb `run`."""
        if args[:1] not in (["report"], ["agree"], ["run"], ["-h"], ["--help"]):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Experiment,
    options_metavar="",
    subcommand_metavar="[run] [OPTIONS] -- PING... | report DIR | agree DIR DIR",
)
def experiment() -> None:
    r"""Measure what tracing and the container cost, and what the correction leaves.

    `maceproc experiment run --help` shows the options; `run` itself may be left out.

    \b
    maceproc experiment --lab --awake -o DIR -- ping -i 0.02 -c 20
    maceproc experiment report DIR
    maceproc experiment agree DIR OTHER
    """


def _numbers(_context: click.Context, option: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise click.BadParameter("give numbers separated by commas", param=option) from error


@experiment.command()
@placed
@recorded
@REMOTE
@click.option(
    "--flows",
    callback=_numbers,
    metavar="N,N,...",
    help="Background flows at each level of traffic. [default: 0,2,4,8 in a lab, 0 elsewhere]",
)
@click.option(
    "--traffic",
    default="flood",
    show_default=True,
    metavar="flood[:SECONDS]|iperf3:RATE",
    help="What a flow is: ping -f, or UDP of iperf3 at a rate (100M).",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Runs per arm and level.",
)
@click.option(
    "--tracers",
    default="minimal,net,mace",
    show_default=True,
    metavar="NAME,...",
    help="minimal, full, net (net:*), mace (its four), bpf, or SYSTEM:EVENT+SYSTEM:EVENT.",
)
@click.option("--seed", default=1, show_default=True, help="Of the order of arms and levels.")
@click.option(
    "-o", "--output", default="experiment", show_default=True, metavar="DIR",
    help="Where it is kept; one that was interrupted goes on.",
)  # fmt: skip
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- PING...")
def run(
    where: Chosen,
    remote: Literal["kernel", "program"] | None,
    flows: list[int] | None,
    traffic: str,
    rounds: int,
    tracers: str,
    awake: bool,
    seed: int,
    outer: str,
    buffer_kb: int | None,
    output: str,
    command: tuple[str, ...],
) -> None:
    r"""Run a ping in a container and natively, traced and untraced, under growing traffic.

    Interrupted, the same command goes on where it ended; with more --rounds it adds some.

    \b
    maceproc experiment --lab --awake -o DIR -- ping -i 0.02 -c 20
    maceproc experiment --container web --flows 0 -o DIR -- ping -c 100 192.0.2.1
    """
    from maceproc.experiment.plan import Plan
    from maceproc.experiment.run import run_experiment
    from maceproc.reporting.plots import require_matplotlib

    if where.kind == "here":
        raise click.UsageError("say where: --lab, --container NAME, --netns NAME or another place")
    require_root("an experiment")
    interrupt_cleanly()
    require_matplotlib()
    levels = flows or ([0, 2, 4, 8] if where.kind == "lab" else [0])
    plan = Plan(
        command=list(command),
        flows=levels,
        rounds=rounds,
        tracers=[name for name in tracers.split(",") if name],
        traffic=traffic,
        awake=awake,
        seed=seed,
    )
    directory, containers = Path(output), 1 + max(levels)
    remote = remote or _remote_for(traffic)
    there = chosen_site(where, containers=containers, remote=remote)
    with there as site, bar(unit="run", per_second=1) as update:
        run_experiment(
            plan,
            site,
            directory,
            outer=outer,
            buffer_kb=buffer_kb,
            announce=lambda begun: tell(f"path: {begun.target.route}"),
            tell=_followed(command, update),
        )
    _report(directory, directory)


def _followed(
    command: tuple[str, ...], update: Callable[[int, int, str], None]
) -> Callable[[Progress], None]:
    """Return what shows the progress; before the first run it says how long all of them take."""
    from maceproc.recording.duration import own_command, plan_sentence

    pinged, told = own_command(list(command)), False

    def follow(progress: Progress) -> None:
        nonlocal told
        left = progress.total - progress.done
        if not told and left and pinged and pinged.is_ping:
            tell_notes([plan_sentence(pinged, left)])
        told = True
        update(progress.done, progress.total, progress.arm)

    return follow


def _remote_for(traffic: str) -> Literal["kernel"] | None:
    """Return the remote that traffic needs in a lab: iperf3 has servers, in its namespace."""
    return "kernel" if traffic.startswith("iperf3") else None


@experiment.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Elsewhere than in DIR."
)
def report(directory: Path, output: Path | None) -> None:
    r"""Analyze an experiment's captures, and write report, page, plots, JSON and Parquet.

    Of a directory that `maceproc import` made it draws the authors' series, our statistics beside.

    \b
    maceproc experiment report DIR
    """
    from maceproc.predecessors.importing import is_import
    from maceproc.reporting.plots import require_matplotlib

    require_matplotlib()
    if is_import(directory):
        _report_import(directory, output or directory)
    else:
        _report(directory, output or directory)


@experiment.command()
@click.argument("first", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("second", type=click.Path(path_type=Path), metavar="DIR")
def agree(first: Path, second: Path) -> None:
    r"""Tell whether two experiments found the same, within their intervals; both with reports.

    \b
    maceproc experiment agree DIR OTHER
    """
    from maceproc.experiment.agreement import agreement_lines, load_results

    lines = agreement_lines(load_results(first), load_results(second))
    _show("".join(f"{clean(line)}\n" for line in lines))


def _show(markdown: str) -> None:
    """Print the report: laid out on a terminal, as Markdown to a file or another program."""
    if not sys.stdout.isatty():
        click.echo(markdown, nl=False)
        return
    from rich.markdown import Markdown

    from maceproc.reporting.console import CleanConsole

    CleanConsole().print(Markdown(markdown))


def _report_import(directory: Path, output: Path) -> None:
    from maceproc.cli.terminal import working
    from maceproc.predecessors.importing import load_import
    from maceproc.predecessors.report import save_report

    with working():
        text, written = save_report(load_import(directory), output)
    _show(clean_lines(text))
    tell(f"wrote {', '.join(path.name for path in written)} to {output}")


def _report(directory: Path, output: Path) -> None:
    import matplotlib as mpl

    from maceproc.experiment.report import as_markdown, save_report
    from maceproc.experiment.results import read_results

    mpl.use("Agg")
    with bar("following packets", "capture") as follow:
        results = read_results(directory, follow)
    written = save_report(results, output)
    _show(clean_lines(as_markdown(results)))
    tell(f"wrote {', '.join(path.name for path in written)} to {output}")
