"""Numbers as programs print them, in integers: a float64 second since 1970 steps by 238 ns.

The step of a printed time is the unit of its last digit. iputils, for one, prints three decimals
of a millisecond only below 1 ms, then fewer (ping/ping_common.c, gather_statistics()).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from maceproc.units import NS_PER_MS, NS_PER_S, NS_PER_US

UNITS_NS = {
    "ns": 1,
    "us": NS_PER_US,
    "µs": NS_PER_US,  # micro sign, as Go prints it
    "μs": NS_PER_US,  # Greek mu
    "usec": NS_PER_US,
    "ms": NS_PER_MS,
    "msec": NS_PER_MS,
    "s": NS_PER_S,
    "sec": NS_PER_S,
}
_LARGE_UNITS_NS = {"h": 3600 * NS_PER_S, "m": 60 * NS_PER_S}

NUMBER = r"\d{1,12}(?:\.\d{1,9})?(?:e[+-]\d{1,2})?"
_NUMBER = re.compile(r"(?P<whole>\d{1,12})(?:\.(?P<decimals>\d{1,9}))?(?:e(?P<power>[+-]\d{1,2}))?")
_LARGE = re.compile(r"(\d{1,6})([hm])(?=\d)")
_TIME = re.compile(rf"(?P<number>{NUMBER}) ?(?P<unit>[^\W\d]{{1,4}})(?![\w.])")

LONGEST_RTT_NS = 24 * 3600 * NS_PER_S
"""A longer time is no RTT: no ping waits so long."""


class PrintedTime(NamedTuple):
    """A printed time and the step of its last digit, in ns."""

    value_ns: int
    step_ns: int


def in_unit(text: str, unit_ns: int) -> PrintedTime | None:
    """Read a decimal number in a unit; None when it is no number, or no RTT for its size."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    decimals = match["decimals"] or ""
    power = int(match["power"] or 0) - len(decimals)
    digits = int(match["whole"] + decimals)
    if not -15 <= power <= 15:
        return None
    if power >= 0:
        value_ns, step_ns = digits * unit_ns * 10**power, unit_ns * 10**power
    else:
        # Digits below 1 ns (ms with more than six decimals) are cut.
        value_ns, step_ns = digits * unit_ns // 10**-power, max(unit_ns // 10**-power, 1)
    return PrintedTime(value_ns, step_ns) if value_ns <= LONGEST_RTT_NS else None


@lru_cache(maxsize=4096)  # most RTTs of a run are printed many times
def read_time(text: str) -> PrintedTime | None:
    """Read a time with its unit at the start of a text: ``0.153 ms``, ``153.25µs``, ``1m2.5s``.

    None when there is no unit or it is not known: a number without one may be anything.
    """
    large_ns = 0
    while large := _LARGE.match(text):
        large_ns += int(large[1]) * _LARGE_UNITS_NS[large[2]]
        text = text[large.end() :]
    match = _TIME.match(text)
    if match is None or match["unit"] not in UNITS_NS:
        return None
    time = in_unit(match["number"], UNITS_NS[match["unit"]])
    if time is None or large_ns + time.value_ns > LONGEST_RTT_NS:
        return None
    return PrintedTime(large_ns + time.value_ns, time.step_ns)


def read_utc(text: str) -> int | None:
    """Read seconds since 1970 [ns]; None when it is no such number."""
    whole, _, decimals = text.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) <= 10 and len(decimals) <= 9):
        return None
    return int(whole) * NS_PER_S + int(decimals.ljust(9, "0") or 0)
