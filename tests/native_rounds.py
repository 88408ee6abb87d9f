"""RTTS of made-up rounds whose terms are known: for what is estimated from native pings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from maceproc.schema import RTTS

WIRE_NS, CROSSING_NS, OWN_NS = 20_000, 15_000, 12_000


def made_rtts(
    rounds: int = 12,
    pings: int = 20,
    *,
    host_ns: int | Sequence[int] = 5_000,
    tracing_ns: int = 1_500,
    wire_ns: int = 0,
    first_ns: int = 0,
    noise_ns: float = 300,
    arms: Sequence[str] = (
        "container traced", "container untraced", "native traced", "native untraced",
    ),
    seed: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """Return RTTS in which the terms are these, plus noise on the wire.

    The container's wire is `wire_ns` shorter than the native one. `host_ns` may be one per round.
    Of the first native ping of a run it is `first_ns` more.
    """
    random = np.random.default_rng(seed)
    hosts = np.broadcast_to(np.asarray(host_ns), rounds)
    parts = []
    for number, host in enumerate(hosts, start=1):
        level = random.normal(0, noise_ns)  # of the whole round, the same in all arms
        for arm in arms:
            native, traced = arm.startswith("native"), arm.endswith(" traced")
            jitter = np.round(level + random.normal(0, noise_ns, pings)).astype(int)
            wire = WIRE_NS + jitter - (0 if native else wire_ns)
            own = OWN_NS + (host if native else 0) - (0 if traced else tracing_ns)
            own = own + np.where(np.arange(pings) == 0, first_ns if native else 0, 0)
            crossing = 0 if native else 2 * CROSSING_NS
            rtt = own + wire + crossing
            table = pd.DataFrame({"seq": np.arange(1, pings + 1), "rtt_ns": rtt})
            table = table.reindex(columns=RTTS.names)
            table["round"], table["arm"] = number, arm
            table["rtt_resolution_ns"] = 1
            table["status"] = ("native" if native else "corrected") if traced else "untraced"
            if traced:
                table["wire_rtt_ns"], table["tx_stack_ns"] = wire, own - 2_000
                table["outer_queue_ns"], table["delivery_ns"], table["residual_ns"] = 500, 0, 1_500
            if traced and not native:
                table["outbound_ns"] = table["inbound_ns"] = CROSSING_NS
                table["bare_metal_rtt_ns"] = rtt - crossing
                table["rtt_basis"] = "printed"
            parts.append(table)
    text = {"reason": "", "causes": ""}
    return RTTS.frame(pd.concat(parts, ignore_index=True).assign(**text))
