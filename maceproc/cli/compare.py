"""`maceproc compare`: captures side by side."""

from __future__ import annotations

import sys

import click

from maceproc.cli.terminal import bar, one_line, working


@click.command()
@click.argument(
    "files", type=click.Path(readable=False), metavar="TRACE...|DATASET", nargs=-1, required=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    help="Draw a picture too: PNG, SVG or PDF, by the name's ending.",
)
@click.option(
    "--label", "labels", multiple=True, metavar="TEXT", help="Name of a capture, in order."
)
@click.option(
    "--by",
    "by",
    metavar="COLUMN,...",
    help="Compare the captures of a DATASET by host, path, kernel, event_set, date, ...",
)
@click.option(
    "--against", default="", metavar="GROUP", help="With --by: the group to compare with."
)
@click.option("--html", metavar="FILE", help="Write a page for a browser, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def compare(
    files: tuple[str, ...],
    output: str | None,
    labels: tuple[str, ...],
    by: str | None,
    against: str,
    html: str | None,
    as_json: bool,
) -> None:
    r"""Compare captures with the first of them: medians, differences, intervals, tests.

    Rounds are what was repeated, so they are the unit wherever both captures have five or more
    (Welch's t test of their medians); with fewer the pings are (bootstrap interval, and
    Brunner-Munzel's test, which is one of delta), and drift between rounds is not in the interval.
    Delta is Cliff's: the probability that a ping is slower than one of the first capture minus that
    it is faster. P values are adjusted for their number (Holm).

    A capture that cannot be analyzed is reported, and the others are compared; the exit status is
    then 1.

    With --by, the captures of a dataset (`maceproc collect`) are compared: each group with all
    other captures, or with one group. Then captures are the unit, and --html is a page of the
    fleet; else it is a page of the comparison.

    \b
    maceproc compare bridge/trace.dat macvlan/trace.dat
    maceproc compare idle.dat loaded.dat -o loaded.png
    maceproc compare idle.dat loaded.dat --html loaded.html
    maceproc compare *.dat --json | jq '.contrasts[] | select(.p_adjusted < 0.05)'
    maceproc compare fleet --by host --html fleet.html
    """
    if by is not None:
        if len(files) != 1 or labels or output:
            raise click.UsageError("--by takes one DATASET, and neither --label nor --output")
        _compare_groups(files[0], by, against, html, as_json)
        return
    if against:
        raise click.UsageError("--against is for the groups of a DATASET: give --by")
    if len(files) < 2:
        raise click.UsageError("a comparison needs two captures or more")
    if labels and len(labels) != len(files):
        raise click.UsageError(f"{len(files)} captures, but {len(labels)} labels")
    _compare_captures(files, output, labels, html, as_json)


def _compare_captures(
    files: tuple[str, ...],
    output: str | None,
    labels: tuple[str, ...],
    html: str | None,
    as_json: bool,
) -> None:
    """Compare captures with the first of them."""
    from pathlib import Path

    from maceproc.cli.analyze import check_page, write_page
    from maceproc.comparison import compare as compare_captures
    from maceproc.errors import AnalysisError
    from maceproc.many import analyze_many
    from maceproc.reporting.side_by_side import print_comparison
    from maceproc.reporting.text_table import terminal

    if output:
        from maceproc.reporting.plots import check_picture

        check_picture(Path(output))
    for file in files if html else ():
        check_page(Path(file), Path(html or ""))
    with bar("analyzing") as show:
        outcomes = analyze_many(files, tell=lambda done, _: show(done, len(files)))
    failed = [outcome.error for outcome in outcomes if outcome.error]
    for error in failed:
        click.echo(one_line(error), err=True)
    analyses = [outcome.analysis for outcome in outcomes if outcome.analysis]
    if len(analyses) < 2:
        raise AnalysisError("fewer than two captures are left to compare")
    kept = [label for label, outcome in zip(labels, outcomes, strict=False) if outcome.analysis]
    comparison = compare_captures(*analyses, labels=kept or None)
    if html:
        write_page(comparison.as_html(), Path(html))
    if as_json:
        click.echo(comparison.as_json())
    else:
        print_comparison(comparison, terminal())
    if output:
        from maceproc.reporting.plots import save

        save(comparison.plot(), output)
    if failed:
        sys.exit(1)


def _compare_groups(dataset: str, by: str, against: str, html: str | None, as_json: bool) -> None:
    """Compare the captures of a dataset by what they tell."""
    import json
    from pathlib import Path

    from maceproc.cli.analyze import check_page, write_page
    from maceproc.fleet.dataset import open_dataset
    from maceproc.fleet.groups import compare_groups
    from maceproc.fleet.report import print_groups
    from maceproc.reporting.text_table import terminal

    if html:
        check_page(Path(dataset), Path(html))
    columns = [name.strip() for name in by.split(",") if name.strip()] or ["host"]
    with working():
        fleet = open_dataset(dataset)
        groups = compare_groups(fleet, columns, against=against)
        if html:
            from maceproc.fleet.page import as_html

            write_page(as_html(fleet, groups), Path(html))
    if as_json:
        click.echo(json.dumps(groups.as_dict(), indent=1, allow_nan=False))
    else:
        print_groups(groups, terminal())
