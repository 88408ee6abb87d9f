"""The colours of all pictures, light and dark; matplotlib takes the light ones.

Each colour has a contrast of 3 or more against its background (WCAG 2.2, 1.4.11), each text colour
one of 4.5 or more. Hues are those of M. Okabe, K. Ito, "Color Universal Design", 2008, darker or
lighter.
"""

from __future__ import annotations

from collections.abc import Mapping

from maceproc import ledger, series

# In every mapping, name: (light, dark).
BASE_COLORS = {
    "background": ("#ffffff", "#11161c"),
    "panel": ("#f5f7f9", "#1a212a"),
    "line": ("#d5dbe1", "#323d49"),
    "text": ("#1b2530", "#e4e9ee"),
    "quiet": ("#55626f", "#a3b0bd"),
    "link": ("#005a96", "#6cbcf5"),
    "note": ("#005a96", "#6cbcf5"),
    "warning": ("#8a5600", "#f0b850"),
    "problem": ("#b3261e", "#ff8f86"),
}
# The outbound and the inbound crossing, in every picture.
CROSSING_COLORS = {
    ledger.OUTBOUND: ("#b3318a", "#f07fcb"),
    ledger.INBOUND: ("#6b7300", "#c3cf3c"),
}
_WIRE = ("#6b7680", "#a3adb8")  # the series and the segment
# One colour has one meaning. A traced series and its untraced one have hues that are near. Pictures
# draw the series in this order, the last one in front.
SERIES_COLORS = {
    series.RAW.name: ("#d05a00", "#ff8f47"),
    series.UNTRACED.name: ("#a87000", "#f0b429"),
    series.NATIVE_RTT.name: ("#6a3fb5", "#b79cf2"),
    series.CORRECTED.name: ("#0072b2", "#4fb4f5"),
    series.NATIVE.name: ("#00805e", "#31d0a3"),
    series.NATIVE_RAW.name: ("#005c43", "#1aa37d"),
    series.WIRE.name: _WIRE,
    series.NATIVE_WIRE.name: ("#858f99", "#7f8b97"),
    **{str(segment.direction): pair for segment, pair in CROSSING_COLORS.items()},
    "not corrected": ("#b3261e", "#ff8f86"),
}
_SEGMENT_COLORS = {
    **CROSSING_COLORS,
    ledger.TX_STACK: ("#7a5c3e", "#c9a57f"),
    ledger.OUTER_QUEUE: ("#00797f", "#3cc6cc"),
    ledger.WIRE: _WIRE,
    ledger.DELIVERY: ("#a06a52", "#e0b49c"),
    ledger.RESIDUAL: ("#39424c", "#d7dee5"),
}
SEGMENT_COLORS = {segment.name: _SEGMENT_COLORS[segment] for segment in ledger.LEDGER}
# Captures, tracers or levels get these colours in turn.
DISTINCT_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def light(colors: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return the colours for a white ground."""
    return {name: pair[0] for name, pair in colors.items()}


def slug(name: str) -> str:
    """Return a name as CSS has it: ``container, traced`` -> ``container-traced``."""
    return name.replace(", ", "-").replace(" ", "-")


def as_css() -> str:
    """Return the page's CSS variables: light, or dark as the system is or the reader chose."""
    names = BASE_COLORS | {f"series-{slug(n)}": c for n, c in SERIES_COLORS.items()}
    names |= {f"segment-{slug(n)}": c for n, c in SEGMENT_COLORS.items()}
    bright, dim = (
        f"color-scheme:{scheme};"
        + "".join(f"--{name}:{pair[which]};" for name, pair in names.items())
        for which, scheme in enumerate(("light", "dark"))
    )
    return (
        f":root{{{bright}}}"
        f"@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dim}}}}}"
        f":root[data-theme=dark]{{{dim}}}\n"
    )
