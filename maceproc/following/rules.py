"""A rule, and how an ordered list of rules decides about the pings of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Run
from maceproc.following.matching import Matches
from maceproc.following.positions import Bools

Words = str | npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """What is known of the pings of one run when they are judged.

    `pings` are its rows of PINGS; `matches` is None for a run that was not traced; `unsettled` says
    why the send calls of its several targets cannot be told apart, if so.
    """

    run: Run
    pings: pd.DataFrame
    matches: Matches | None
    unsettled: str = ""

    @property
    def traced(self) -> Matches:
        """The matches of a traced run; only rules for traced runs may ask."""
        if self.matches is None:
            raise ValueError("an untraced run has no matches")
        return self.matches


@dataclass(frozen=True)
class Rule:
    """One rule: of which pings of a run it holds, and what it says of them.

    Attributes
    ----------
    name
        Its name; `explain` and the column `rule` of RTTS tell it.
    status
        The status it gives.
    holds
        Tells of which pings it holds.
    says
        The reason, in words; by ping where it depends on that.
    """

    name: str
    status: str
    holds: Callable[[Case], Bools]
    says: str | Callable[[Case], Words]

    def words(self, case: Case) -> Words:
        """Return the reason for every ping of a run."""
        return self.says if isinstance(self.says, str) else self.says(case)


@dataclass(frozen=True)
class Verdicts:
    """Status, reason and deciding rule of every ping of a run; arrays of strings."""

    status: npt.NDArray[np.object_]
    reason: npt.NDArray[np.object_]
    rule: npt.NDArray[np.object_]


def decide(rules: Sequence[Rule], case: Case) -> Verdicts:
    """Apply an ordered list of rules: the first that holds of a ping gives its status and reason.

    The last rule must hold of every ping.
    """
    count = len(case.pings)
    status, reason, name = (np.full(count, "", dtype=object) for _ in range(3))
    open_ = np.full(count, True)
    for rule in rules:
        decided = open_ & rule.holds(case)
        if decided.any():
            words = rule.words(case)
            status[decided], name[decided] = rule.status, rule.name
            reason[decided] = words if isinstance(words, str) else words[decided]
            open_ &= ~decided
    return Verdicts(status, reason, name)
