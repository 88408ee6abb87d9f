"""What a calibration is valid for, and in what a capture differs from that.

How long the host's code takes depends on the machine, its kernel, its netfilter rules and its
devices. It also depends on how warm the caches are: on the time between pings, and on whether the
CPUs sleep. Where one of these conditions differs, a calibration is refused or doubted, and the
message names the condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from maceproc.calibration import Conditions
from maceproc.capture import Link, Sidecar
from maceproc.pings import parse_runs
from maceproc.units import NS_PER_S

SAME_INTERVAL = 1.5  # intervals count as the same up to this ratio
OTHER_INTERVAL = 5.0  # above this ratio a calibration is refused: the caches are colder or warmer


class Difference(NamedTuple):
    """One condition in which a capture differs from what a calibration was made for."""

    what: str
    refuses: bool
    message: str


# For each condition: its name for people, and whether a calibration is refused where it differs.
CONDITIONS = {
    "machine": ("the machine", True),
    "kernel": ("the kernel", True),
    "outer_device": ("the outer device", True),
    "nat": ("address translation", True),
    "rules": ("the host's netfilter rules", False),
    "network": ("the container network", False),
    "program": ("the ping program", True),
    "family": ("the address family", True),
    "size_bytes": ("the size of a ping", False),
    "awake": ("whether the CPUs were kept awake", True),
    "events": ("the recorded events", True),
}


def conditions_of(sidecar: Sidecar, rtts: pd.DataFrame) -> Conditions:
    """Return the conditions under which a capture was made."""
    path, target = sidecar.target.path, sidecar.target
    outer = sidecar.link(path[-1]) if path else None
    host = next((n for n in sidecar.namespaces if path and n.name == path[-1].netns), None)
    _, printed = next(iter(parse_runs([run for run in sidecar.runs if run.traced][:1])), (0, None))
    between = [sidecar.link(hop) for hop in path[1:-1]]
    return Conditions(
        machine=sidecar.machine.identity,
        kernel=sidecar.machine.kernel,
        outer_device=f"{outer.name} ({outer.kind or 'card'}, {outer.qdisc})" if outer else "",
        rules=host.rules if host else "",
        nat=target.nat,
        network=" -> ".join(_kind_of(link) for link in between if link),
        program=printed.flavour if printed else "",
        family="" if not target.address else "IPv6" if ":" in target.address else "IPv4",
        size_bytes=printed.payload_bytes if printed else None,
        interval_s=_interval_s(rtts),
        awake=sidecar.machine.awake,
        events=sorted(sidecar.tracing.events),
    )


def _kind_of(link: Link) -> str:
    """Return the kind of a device; for a bridge also its name, which netfilter rules refer to."""
    return f"bridge {link.name}" if link.kind == "bridge" else link.kind or link.name


def _interval_s(rtts: pd.DataFrame) -> float | None:
    """Return the median time between two requests of a traced run [s]."""
    sent = rtts[rtts["sent_ns"].notna()].sort_values("sent_ns")
    steps = sent.groupby(["round", "arm"], observed=True)["sent_ns"].diff().dropna()
    return round(float(steps.median()) / NS_PER_S, 4) if len(steps) else None


def differences(made_for: Conditions, found: Conditions) -> list[Difference]:
    """Return in what `found` differs from what a calibration was made for, refusals first."""
    listed = [*_unlike(made_for, found), *_other_interval(made_for, found)]
    return sorted(listed, key=lambda difference: not difference.refuses)


def _unlike(made_for: Conditions, found: Conditions) -> Iterator[Difference]:
    for name, (what, refuses) in CONDITIONS.items():
        mine, other = getattr(found, name), getattr(made_for, name)
        unknown: tuple[object, ...] = (None, "", [])
        if mine == other or mine in unknown or other in unknown:
            continue
        if isinstance(mine, list):
            mine, other = (", ".join(sorted(set(a) - set(b))) for a, b in _ways(mine, other))
        yield Difference(what, refuses, f"{what}: {_said(mine)} here, {_said(other)} there")


def _ways(mine: list[str], other: list[str]) -> list[tuple[list[str], list[str]]]:
    return [(mine, other), (other, mine)]


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "nothing else"


def _other_interval(made_for: Conditions, found: Conditions) -> Iterator[Difference]:
    mine, other = found.interval_s, made_for.interval_s
    if not mine or not other:
        return
    times = max(mine / other, other / mine)
    if times > SAME_INTERVAL:
        what = "the time between pings"
        message = f"{what}: {mine:.3g} s here, {other:.3g} s there"
        yield Difference(what, times > OTHER_INTERVAL, message)
