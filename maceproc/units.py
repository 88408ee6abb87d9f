"""Units of time: int64 nanoseconds in the tables, a suitable unit where people read them."""

from __future__ import annotations

import math

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def format_us(time_ns: float, *, signed: bool = False) -> str:
    """Write a duration [ns] in microseconds with one decimal: ``53.7``; NaN as a dash."""
    if math.isnan(time_ns):
        return "-"
    text = f"{time_ns / NS_PER_US:{'+' if signed else ''}.1f}"
    return text.replace("-0.0", "0.0") if float(text) == 0 else text


def format_share(share: float, decimals: int = 0) -> str:
    """Write a share of 1 as percent: ``34 %``; NaN as nothing."""
    if math.isnan(share):
        return ""
    text = f"{100 * share:.{decimals}f}"
    return f"{text.removeprefix('-') if float(text) == 0 else text} %"


def format_duration(time_ns: float) -> str:
    """Write a duration [ns] with the unit that suits its size: ``53.7 us``, ``3.0 h``."""
    for long_s, unit in ((24 * 3600, "days"), (3600, "h"), (60, "min")):
        if abs(time_ns) >= 2 * long_s * NS_PER_S:
            return f"{time_ns / (long_s * NS_PER_S):.1f} {unit}"
    for unit_ns, unit in ((NS_PER_S, "s"), (NS_PER_MS, "ms"), (NS_PER_US, "us")):
        if abs(time_ns) >= unit_ns:
            return f"{time_ns / unit_ns:.1f} {unit}"
    return f"{time_ns:.0f} ns"
