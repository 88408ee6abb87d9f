"""The one verdict on a capture: whether its numbers may be used.

It follows from the findings. A problem means that a number may be wrong or is missing; a warning
means that a number says less than it seems to.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

SOUND, WITH_CARE, DO_NOT_USE = "sound", "with care", "do not use"


class Soundness(NamedTuple):
    """A verdict, and its reason.

    Attributes
    ----------
    verdict
        `SOUND`, `WITH_CARE` or `DO_NOT_USE`.
    why
        The gravest finding in words.
    level
        Level of the findings that decided it: ``problem``, ``warning``, or empty.
    findings
        How many findings have that level.
    """

    verdict: str
    why: str
    level: str
    findings: int

    @property
    def reason(self) -> str:
        """The text after the verdict: the reason, and the number of other findings of its level."""
        more = self.findings - 1
        others = f" (and {more} more {self.level}{'s' * (more > 1)})" if more > 0 else ""
        return f": {self.why}{others}"

    @property
    def sentence(self) -> str:
        """The verdict and its reason."""
        return self.verdict + self.reason


def judge(findings: pd.DataFrame) -> Soundness:
    """Judge a capture by its FINDINGS, of which the gravest are the first."""
    for level, verdict in (("problem", DO_NOT_USE), ("warning", WITH_CARE)):
        rows = findings[findings["level"] == level]
        if len(rows):
            return Soundness(verdict, str(rows["message"].iloc[0]), level, len(rows))
    return Soundness(SOUND, "no reason to doubt these numbers was found", "", 0)
