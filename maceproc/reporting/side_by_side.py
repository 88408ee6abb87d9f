"""A comparison of captures as a person reads it: as text, and as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maceproc.analysis import Comparison
from maceproc.following.perturbation import values_of
from maceproc.following.soundness import DO_NOT_USE, WITH_CARE, Soundness, judge
from maceproc.reporting.colors import DISTINCT_COLORS
from maceproc.reporting.console import CleanConsole, escape, print_parts
from maceproc.reporting.headline import duration, interval, plain
from maceproc.reporting.plots import new_axes, unit_of
from maceproc.reporting.report_tables import verdict_style
from maceproc.reporting.text_table import WIDTH, legend_of, pairs, report_table, titled
from maceproc.series import CORRECTED, NATIVE, NATIVE_RTT, QUANTITIES, WIRE
from maceproc.units import format_us

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console, RenderableType
    from rich.table import Table

WIDE_RANGE = 40.0  # ratio of the longest to the shortest time from which the axis is logarithmic
DIFFERS = 0.05  # adjusted p below which a difference is printed bold


def as_text(comparison: Comparison) -> str:
    """Render a comparison as plain text."""
    out = io.StringIO()
    console = CleanConsole(file=out, width=WIDTH, force_jupyter=False, highlight=False)
    print_comparison(comparison, console)
    return out.getvalue()


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison on a console."""
    print_parts(_parts(comparison), console)


def _parts(comparison: Comparison) -> Iterator[RenderableType]:
    for line in answer_lines(comparison):
        yield escape(plain(line))
    yield ""
    verdict = soundness_of(comparison)
    style = verdict_style(verdict)
    yield pairs({"verdict": f"[{style}]{verdict.verdict}[/{style}]{escape(verdict.reason)}"})
    yield ""
    yield from titled("Captures", _captures_table(comparison))
    yield ""
    yield from titled("Medians [us]", _quantities_table(comparison))
    yield from _contrast_tables(comparison)
    units = ", ".join(dict.fromkeys(comparison.contrasts["unit"]))
    yield legend_of(
        {
            "delta": "probability of being slower minus that of being faster (Cliff)",
            "p": f"adjusted for {len(comparison.contrasts)} tests (Holm); unit: {units}",
        }
    )
    if comparison.notes:
        yield ""
    for note in comparison.notes:
        yield pairs({"[yellow]note[/yellow]": escape(note)})


def answer_lines(comparison: Comparison) -> Iterator[str]:
    """Yield a sentence per capture: how its RTT without the container differs from the first."""
    first = next(iter(comparison.analyses))
    for name in list(comparison.analyses)[1:]:
        rows = comparison.contrasts[comparison.contrasts["capture"] == name].set_index("quantity")
        known = [s.name for s in (NATIVE_RTT, CORRECTED, NATIVE, WIRE) if s.name in rows.index]
        if not known:
            yield f"{name} and {first} have no series in common."
            continue
        row = rows.loc[known[0]]
        off, ends = duration(row["estimate_ns"], signed=True), interval(row.low_ns, row.high_ns)
        told = row["p_adjusted"] < DIFFERS
        judged = "they differ" if told else "they are not told apart"
        p_value = format_p(row["p_adjusted"])
        p_value = f"p < {p_value[1:]}" if p_value.startswith("<") else f"p = {p_value}"
        yield (
            f"{name} against {first}: the median RTT ({known[0]}) differs by {off} "
            f"(95 % {ends}); {judged}, {p_value}."
        )


def soundness_of(comparison: Comparison) -> Soundness:
    """Return the gravest verdict on the captures, with the name of its capture."""
    judged = {
        name: judge(one.findings, native_held=one.native.held)
        for name, one in comparison.analyses.items()
    }
    for verdict in (DO_NOT_USE, WITH_CARE):
        for name, one in judged.items():
            if one.verdict == verdict:
                return one._replace(why=f"{name}: {one.why}")
    return next(iter(judged.values()))


def _captures_table(comparison: Comparison) -> Table:
    table = report_table("|>rounds|>answered|>corrected|>events lost|ran")
    for row in comparison.captures.itertuples():
        counts = (row.rounds, row.answered, row.corrected, row.events_lost)
        table.add_row(escape(row.capture), *map(str, counts), escape(row.command))
    return table


def _quantities_table(comparison: Comparison) -> Table:
    rows = comparison.quantities
    names = list(comparison.analyses)
    table = report_table("".join(f"|>{escape(name)}" for name in names))
    medians = rows.set_index(["quantity", "capture"])["median_ns"]
    for quantity in dict.fromkeys(rows["quantity"]):
        values = (float(medians.get((quantity, name), math.nan)) for name in names)
        table.add_row(quantity, *map(format_us, values))
    return table


def _contrast_tables(comparison: Comparison) -> Iterator[RenderableType]:
    first, *others = comparison.analyses
    for name in others:
        table = report_table("|>estimate|>95 % interval|>delta|>95 % interval|>p")
        rows = comparison.contrasts[comparison.contrasts["capture"] == name]
        if rows.empty:
            continue
        for row in rows.itertuples():
            low, high = (format_us(end, signed=True) for end in (row.low_ns, row.high_ns))
            known = not math.isnan(row.delta)
            table.add_row(
                row.quantity,
                format_us(row.estimate_ns, signed=True),
                f"{low} to {high}",
                f"{row.delta:+.2f}" if known else "",
                f"{row.delta_low:+.2f} to {row.delta_high:+.2f}" if known else "",
                format_p(row.p_adjusted),
                style="bold" if row.p_adjusted < DIFFERS else "",
            )
        yield ""
        yield from titled(f"{name} - {first} [us]", table)


def format_p(p_value: float) -> str:
    """Write a p value with two or three digits: ``0.24``, ``0.003``, ``<0.001``."""
    if p_value < 0.001:
        return "<0.001"
    return f"{p_value:.3f}" if p_value < 0.0995 else f"{p_value:.2f}"


def plot(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Plot every quantity of every capture: medians of rounds, all pings' median, 5 to 95 %."""
    rows = comparison.quantities
    quantities, names = (list(dict.fromkeys(rows[key])) for key in ("quantity", "capture"))
    ax = ax or new_axes(9, 1.4 + 0.22 * len(quantities) * (len(names) + 1))
    unit_ns, unit = unit_of(rows["median_ns"])
    step = 0.8 / len(names)
    for place, name in enumerate(names):
        color = DISTINCT_COLORS[place % len(DISTINCT_COLORS)]
        own = rows[rows["capture"] == name]
        at = [quantities.index(q) + (place - (len(names) - 1) / 2) * step for q in own["quantity"]]
        ax.hlines(
            at, own["p5_ns"] / unit_ns, own["p95_ns"] / unit_ns, color=color, alpha=0.35, lw=4
        )
        ax.plot(own["median_ns"] / unit_ns, at, "o", color=color, ms=6, label=name)
        for y, quantity in zip(at, own["quantity"], strict=True):
            x = _round_medians(comparison, name, quantity) / unit_ns
            ax.plot(x, np.full(len(x), y), "|", color="black", ms=7, mew=0.8)
    ax.set_yticks(range(len(quantities)), quantities)
    ax.set_ylim(len(quantities) - 0.5, -0.5)
    if rows["p95_ns"].max() > WIDE_RANGE * rows["median_ns"].min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    else:
        ax.set_xlim(left=0)
    ax.set_xlabel(f"time [{unit}]")
    ax.set_title("Captures side by side", loc="left")
    ax.grid(alpha=0.25, axis="x")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    note = "dot: median; band: 5 to 95 %; ticks: medians of rounds"
    ax.text(1, 1.01, note, transform=ax.transAxes, ha="right", va="bottom", fontsize="small")
    return ax


def _round_medians(comparison: Comparison, name: str, quantity: str) -> npt.NDArray[np.float64]:
    series = next(series for series in QUANTITIES if series.name == quantity)
    values = values_of(comparison.analyses[name].rtts, series)
    return np.asarray(values.groupby("round")["value_ns"].median().to_numpy(float))
