"""The page of a comparison: `maceproc compare A B --html FILE`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from maceproc.analysis import Comparison
from maceproc.reporting.headline import duration, interval
from maceproc.reporting.page.sheet import Bar, Section, Sheet, Table
from maceproc.reporting.side_by_side import DIFFERS, answer_lines, format_p, soundness_of


def as_html(comparison: Comparison) -> str:
    """Return the page of a comparison, one HTML document that needs no other file."""
    first, *others = comparison.analyses
    units = " or ".join(dict.fromkeys(comparison.contrasts["unit"]))
    return Sheet(
        brand="comparison",
        title=f"{', '.join(others)} against {first}",
        answer=list(answer_lines(comparison)),
        verdict=soundness_of(comparison),
        sections=[
            *_differences(comparison),
            _medians(comparison),
            Section("Captures", tables=[_captures(comparison)]),
        ],
        findings=[("note", note, "") for note in comparison.notes],
        end=f"The unit of the tests: {units}." if units else "",
    ).as_html()


def _differences(comparison: Comparison) -> Iterator[Section]:
    """Yield a section for each capture that is compared with the first one."""
    first, *others = comparison.analyses
    for name in others:
        rows = comparison.contrasts[comparison.contrasts["capture"] == name]
        if rows.empty:
            continue
        bars, cells = [], []
        for row in rows.itertuples():
            estimate = duration(row.estimate_ns, signed=True)
            ends = "-" if math.isnan(row.low_ns) else interval(row.low_ns, row.high_ns)
            known = not math.isnan(row.delta)
            delta = f"{row.delta:+.2f}" if known else ""
            within = f"{row.delta_low:+.2f} to {row.delta_high:+.2f}" if known else ""
            told = "differs" if row.p_adjusted < DIFFERS else "not told apart"
            told = "not known" if math.isnan(row.p_adjusted) else told
            cells.append(
                (row.quantity, estimate, ends, delta, within, format_p(row.p_adjusted), told)
            )
            bars.append(
                Bar(
                    row.quantity,
                    row.estimate_ns,
                    row.low_ns,
                    row.high_ns,
                    f"{estimate} ({ends})",
                    series=row.quantity,
                )
            )
        header = ("series", "estimate", "95 % interval", "delta", "of delta", "p", "verdict")
        table = Table("", header, cells, frozenset(range(1, 6)))
        yield Section(
            f"{name} - {first}",
            "A dot is the difference of the medians, the line its 95 % interval; the thin line is "
            "no difference. A line that goes far beyond all dots ends at the edge. Delta is the "
            "probability that a ping is slower minus that it is faster "
            f"(Cliff); p is adjusted for {len(comparison.contrasts)} tests (Holm).",
            bars,
            [table],
        )


def _medians(comparison: Comparison) -> Section:
    rows, names = comparison.quantities, list(comparison.analyses)
    found = rows.set_index(["quantity", "capture"])
    bars, cells = [], []
    for quantity in dict.fromkeys(rows["quantity"]):
        medians = []
        for name in names:
            if (quantity, name) not in found.index:
                medians.append("-")
                continue
            row = found.loc[(quantity, name)]
            value = duration(row["median_ns"])
            heading = quantity if set(medians) <= {"-"} else ""
            medians.append(value)
            ends = (row["p5_ns"], row["p95_ns"])
            text = f"{value} ({interval(*ends, signed=False)})"
            bars.append(Bar(name, row["median_ns"], *ends, text, heading, quantity))
        cells.append((quantity, *medians))
    table = Table("", ("median", *names), cells, frozenset(range(1, len(names) + 1)))
    about = (
        "A dot is the median of all pings; the line, and the times in brackets, go from the 5th to "
        "the 95th percentile. A line that goes far beyond all dots ends at the edge."
    )
    return Section("Medians", about, bars, [table])


def _captures(comparison: Comparison) -> Table:
    cells = [
        (
            row.capture,
            row.command,
            row.path,
            row.kernel,
            str(row.rounds),
            f"{row.corrected} of {row.answered}",
            str(row.events_lost),
            row.file,
        )
        for row in comparison.captures.itertuples()
    ]
    header = ("capture", "ran", "path", "kernel", "rounds", "corrected", "events lost", "file")
    return Table("", header, cells, frozenset((4, 5, 6)))
