"""`maceproc collect`, `compact` and `query`: captures of many machines in one dataset."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

import click

from maceproc.cli.export import TABLES
from maceproc.cli.terminal import bar, one_line, tell

if TYPE_CHECKING:
    from maceproc.fleet.collecting import Receipt

MOST_FAILURES_TOLD = 20
MOST_ROWS = 1000  # of an answer that is shown as a table


@click.command()
@click.argument("captures", type=click.Path(), metavar="[CAPTURES]...", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="DATASET",
    required=True,
    help="The dataset: a directory, or a URL such as s3://bucket/fleet.",
)
@click.option(
    "--files-from",
    type=click.File(),
    metavar="FILE",
    help="Take captures also from a list, one a line; - is standard input.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one for every CPU]")
@click.option(
    "--scheduler",
    default="",
    metavar="URL",
    help="Let the workers of Dask's scheduler do it: tcp://HOST:8786.",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice(TABLES),
    help="Store this table; repeat it for more.  [default: all but hops and journeys]",
)
@click.option(
    "--host", "host", default="", metavar="NAME", help="Name of the machine, if not its own."
)
@click.option("--again", is_flag=True, help="Analyze also what the dataset has already.")
@click.option("--compact", "compacted", is_flag=True, help="At the end, as maceproc compact does.")
@click.option("--json", "as_json", is_flag=True, help="Print an array with a receipt per capture.")
def collect(
    captures: tuple[str, ...],
    output: str,
    files_from: TextIO | None,
    workers: int | None,
    scheduler: str,
    tables: tuple[str, ...],
    host: str,
    again: bool,
    compacted: bool,
    as_json: bool,
) -> None:
    r"""Analyze captures and write their tables into a dataset.

    CAPTURES are traces, directories with traces (*.dat), patterns in quotes, or URLs that fsspec
    reaches. The dataset has a Parquet file for every table of every capture:

    \b
      DATASET/table=rtts/host=HOST/date=DATE/SHA-256 OF THE TRACE.parquet

    Run again, it does what is missing. A capture that fails is in the table failures with its
    error, and is tried again next time; the exit status is then 1. Several may run at once.

    \b
    maceproc collect captures/ -o fleet
    maceproc collect 'captures/*/trace.dat' -o fleet
    find . -name '*.dat' | maceproc collect --files-from - -o fleet
    maceproc collect 's3://bucket/captures/**/*.dat' -o s3://bucket/fleet
    maceproc collect captures/ -o fleet --scheduler tcp://head:8786
    """
    from maceproc.fleet.collect import DEFAULT_TABLES
    from maceproc.fleet.collect import collect as collect_captures
    from maceproc.fleet.sources import read_list

    if scheduler and workers:
        raise click.UsageError("--workers are processes here, --scheduler has its own")
    names = [*captures, *(read_list(files_from) if files_from else ())]
    if not names:
        raise click.UsageError("no captures: give some, or --files-from a list")
    with bar("collecting", "capture") as show:
        receipts = collect_captures(
            names,
            output,
            workers=workers,
            scheduler=scheduler,
            tables=tables or DEFAULT_TABLES,
            host=host,
            again=again,
            tell=lambda done, total, receipt: show(done, total, receipt.source),
        )
    if compacted:
        from maceproc.fleet.compacting import compact as compact_dataset

        compact_dataset(output)
    _tell_receipts(receipts, output, as_json=as_json)


def _tell_receipts(receipts: list[Receipt], output: str, *, as_json: bool) -> None:
    failed = [receipt for receipt in receipts if receipt.state == "failed"]
    for receipt in failed[:MOST_FAILURES_TOLD]:
        click.echo(one_line(Exception(receipt.error)), err=True)
    if len(failed) > MOST_FAILURES_TOLD:
        tell(f"and {len(failed) - MOST_FAILURES_TOLD} more failures: they are in the dataset")
    if as_json:
        click.echo(json.dumps([_as_dict(receipt) for receipt in receipts], indent=1))
    else:
        tell(_summary(receipts, output))
    if failed:
        sys.exit(1)


def _summary(receipts: list[Receipt], dataset: str) -> str:
    counts = {
        state: sum(receipt.state == state for receipt in receipts)
        for state in ("collected", "present", "failed")
    }
    size = sum(receipt.size_bytes for receipt in receipts)
    return (
        f"{dataset}: {counts['collected']} captures collected ({size / 1e6:.1f} MB), "
        f"{counts['present']} were there, {counts['failed']} failed"
    )


def _as_dict(receipt: Receipt) -> dict[str, object]:
    return {
        "source": receipt.source,
        "state": receipt.state,
        "capture": receipt.capture or None,
        "host": receipt.host or None,
        "date": receipt.date or None,
        "rows": dict(receipt.rows or {}),
        "size_bytes": receipt.size_bytes,
        "took_s": round(receipt.took_s, 3),
        "error": receipt.error or None,
    }


@click.command()
@click.argument("dataset", type=click.Path(), metavar="DATASET")
@click.option("--json", "as_json", is_flag=True, help="Print an object that says what was done.")
def compact(dataset: str, as_json: bool) -> None:
    r"""Put the small files of a dataset together, so that questions are answered at once.

    Of ten thousand captures, every table has ten thousand files, and opening them takes most of a
    query's time. This writes their rows into few files, with host and date as columns:

    \b
      DATASET/table=TABLE/packed/NAME.parquet

    The answers stay the same. Collectors and queries may run at the same time, and this may be
    killed: every row is found exactly once at every moment. maceproc collect knows what is packed.

    \b
    maceproc compact fleet
    maceproc collect captures/ -o fleet --compact
    """
    from maceproc.fleet.compacting import compact as compact_dataset

    done = compact_dataset(dataset)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    elif done.files_before == done.files_after:
        tell(f"{dataset}: nothing to put together")
    else:
        tell(
            f"{dataset}: {done.files_before:,} files are now {done.files_after:,}, with "
            f"{done.captures:,} captures ({done.size_bytes / 1e6:.1f} MB)"
        )


@click.command()
@click.argument("dataset", type=click.Path(), metavar="DATASET")
@click.argument("sql", metavar="SQL")
@click.option("--json", "as_json", is_flag=True, help="Print an array with an object per row.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all rows as CSV.")
def query(dataset: str, sql: str, as_json: bool, as_csv: bool) -> None:
    r"""Ask a dataset in SQL, as DuckDB speaks it.

    Its tables are rtts, crossings, pings, steps, series, comparisons, findings and lost (and hops
    and journeys if they were collected), a row per capture in captures, quantities by which
    captures are compared, and failures. Every row tells capture, host and date.

    \b
    maceproc query fleet "select host, median(rtt_ns) from rtts group by host"
    maceproc query fleet "select * from failures" --json
    maceproc query fleet "select host, seq, reason from rtts where status = 'ambiguous'" --csv
    """
    from maceproc.fleet.answer import csv_of, json_of, print_answer
    from maceproc.fleet.dataset import open_dataset
    from maceproc.reporting.text_table import terminal

    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    answer = open_dataset(dataset).answer(sql, None if as_json or as_csv else MOST_ROWS)
    if as_json or as_csv:
        sys.stdout.writelines(json_of(answer) if as_json else csv_of(answer))
        return
    print_answer(answer, terminal())
    if answer.total > MOST_ROWS:
        tell(f"{answer.total - MOST_ROWS:,} rows more: --csv or --json prints all")
