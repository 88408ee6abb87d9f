import math

import pytest

from maceproc.units import format_duration, format_us


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [(53_700, "53.7"), (-40, "0.0"), (-60, "-0.1"), (math.nan, "-")],
)
def test_format_us(time_ns: float, text: str) -> None:
    assert format_us(time_ns) == text


def test_format_us_signed() -> None:
    assert format_us(700, signed=True) == "+0.7"


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        *((850, "850 ns"), (53_700, "53.7 us"), (-2_500_000, "-2.5 ms"), (1_200_000_000, "1.2 s")),
        *((119 * 10**9, "119.0 s"), (1000 * 10**9, "16.7 min"), (40 * 86_400 * 10**9, "40.0 days")),
    ],
)
def test_format_duration(time_ns: float, text: str) -> None:
    assert format_duration(time_ns) == text
