"""The one verdict on a capture: whether its numbers may be used.

It follows from the findings. A problem means that a number may be wrong or is missing; a warning
means that a number says less than it seems to.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

SOUND, WITH_CARE, DO_NOT_USE = "sound", "with care", "do not use"
HEADLINE = ("native RTT", "calibration", "calibration drift")
"""Findings about the number that a report begins with: of their level, they are named first."""
ABOUT_BARE_METAL = ("corrected is not native", "wire")  # the native RTT has it taken out


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


def judge(findings: pd.DataFrame, *, native_held: bool = False) -> Soundness:
    """Judge a capture by its FINDINGS, of which the gravest are the first.

    Where its native RTT was held against natives that did not make it, and held
    (`maceproc.following.calibrating.Native`), a warning about the bare-metal RTT does not decide:
    the report begins with the native RTT.
    """
    aside = findings["finding"].isin(ABOUT_BARE_METAL) & (findings["level"] == "warning")
    decisive = findings[~aside] if native_held else findings
    for level, verdict in (("problem", DO_NOT_USE), ("warning", WITH_CARE)):
        rows = decisive[decisive["level"] == level]
        if len(rows):
            of_headline = rows[rows["finding"].isin(HEADLINE)]
            gravest = of_headline if len(of_headline) else rows
            return Soundness(verdict, str(gravest["message"].iloc[0]), level, len(rows))
    why = "no reason to doubt these numbers was found"
    if len(decisive) < len(findings):
        why = "no reason to doubt the native RTT was found; of the bare-metal RTT see the findings"
    return Soundness(SOUND, why, "", 0)
