"""The series of an experiment and the differences between them, in the words of the paper.

Most series are those of `maceproc.series`; what only an experiment can tell is added here. A native
ping has no crossings, so its corrected RTT is the printed one: it still holds what the tracer costs
outside of the crossings.
"""

from __future__ import annotations

from collections.abc import Mapping

from maceproc import series
from maceproc.series import CONTAINER_TRACED, NATIVE_TRACED, Label, Series

Terms = tuple[tuple[str, int], ...]
"""A sum of series: the name of each, and its sign."""


def _added(name: str, arm: str, column: str, meaning: str) -> Series:
    return Series(name, arm, column, meaning, Label(name, meaning))


_ALL = (
    series.NATIVE,
    series.NATIVE_RAW,
    _added(
        "native corrected",
        NATIVE_TRACED,
        "bare_metal_rtt_ns",
        "the same: a native ping crosses nothing",
    ),
    _added(
        "native without events", NATIVE_TRACED, "untraced_rtt_ns", "without what its events cost"
    ),
    series.NATIVE_WIRE,
    _added("native off the wire", NATIVE_TRACED, "off_wire_ns", "corrected RTT - wire RTT"),
    series.UNTRACED,
    series.RAW,
    series.CORRECTED,
    _added(
        "container without events",
        CONTAINER_TRACED,
        "untraced_rtt_ns",
        "that, without what the events left in it cost",
    ),
    series.WIRE,
    _added("container off the wire", CONTAINER_TRACED, "off_wire_ns", "corrected RTT - wire RTT"),
)

SOURCES: Mapping[str, Series] = {
    one.in_experiment.name: one for one in _ALL if one.in_experiment is not None
}
"""Every series by its name in the experiment, in the order of the report."""

MEANING: Mapping[str, str] = {
    one.in_experiment.name: one.in_experiment.meaning
    for one in _ALL
    if one.in_experiment is not None
}

DIFFERENCES: Mapping[str, Terms] = {
    "container overhead": (("container untraced", 1), ("native untraced", -1)),
    "perturbation, native": (("native traced", 1), ("native untraced", -1)),
    "perturbation, container": (("container traced", 1), ("container untraced", -1)),
    "perturbation inside the crossings": (
        ("container traced", 1),
        ("container untraced", -1),
        ("native traced", -1),
        ("native untraced", 1),
    ),
    "corrected - native untraced": (("container corrected", 1), ("native untraced", -1)),
    "corrected - native corrected": (("container corrected", 1), ("native corrected", -1)),
    "without events - native untraced": (("container without events", 1), ("native untraced", -1)),
    "the same, off the wire": (("container off the wire", 1), ("native off the wire", -1)),
    "wire, container - native": (("container wire", 1), ("native wire", -1)),
}
"""Every difference by its name; all traced series of one are of the same tracer."""


def is_printed(one: Series) -> bool:
    """Tell whether a series holds RTTs as printed, in the steps that ping prints."""
    return one.column == "rtt_ns" or (one.column, one.place) == ("bare_metal_rtt_ns", "native")
