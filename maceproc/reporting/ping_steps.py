"""Every step of every ping's way, from one event of its packets to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from maceproc import ledger
from maceproc.following.crossings import INBOUND, OUTBOUND
from maceproc.schema import HOPS, PINGS, STEPS, Column, Table

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

PING_STEPS = Table(
    "ping_steps",
    "one step of one ping: from one event of its packet to the next",
    (
        *(PINGS[name] for name in ("round", "arm", "seq")),
        STEPS["direction"],
        Column("step", "int64", "", "position on the packet's way, from 0"),
        HOPS["journey"],
        STEPS["start"],
        STEPS["end"],
        Column("crossing", "bool", "", "part of the crossing; else before or after it"),
        Column("segment", "str", "", "segment of the ledger it is part of; empty if not known"),
        Column("began_ns", "int64", "ns", "time of the first event, trace clock"),
        Column("took_ns", "int64", "ns", "until the next event"),
    ),
)


def ping_steps(analysis: Analysis) -> pd.DataFrame:
    """Return PING_STEPS, in the order of RTTS; outbound before inbound, then in time.

    Of pings whose request or reply was found, the events between their send call and their receive
    stamp: a journey can go on, when the next packet gets the same address.
    """
    hops = _hops_of_pings(analysis)
    key = ["ping", "journey"]
    following = hops.groupby(key, sort=False)[["time_ns", "where", "place"]].shift(-1)
    last = following["time_ns"].isna()
    segment = _segments(hops)
    steps = hops.assign(
        step=hops.groupby(key, sort=False).cumcount(),
        start=hops["where"],
        end=following["where"],
        crossing=segment.isin([one.name for one in ledger.CROSSINGS]),
        segment=segment,
        began_ns=hops["time_ns"],
        took_ns=following["time_ns"].astype("Int64") - hops["time_ns"],
    )
    return PING_STEPS.frame(steps[~last].reset_index(drop=True))


def _segments(hops: pd.DataFrame) -> pd.Series:
    """Return the segment of the step that begins at each hop; empty where it is not known.

    The packet enters and leaves the crossing at one of its hops, so no step is in two segments.
    The outbound crossing ends where the packet is queued on the outer device. Its wait until the
    driver gets it is the outer queue, also where it goes down through a VLAN and a bond to a card.
    """
    segments = pd.Series("", index=hops.index, dtype=object)
    outbound = hops["direction"] == OUTBOUND
    way = (
        (outbound, "entered_ns", ledger.TX_STACK, "before"),
        (outbound, "entered_ns", ledger.OUTBOUND, "from"),
        (outbound, "left_ns", ledger.OUTER_QUEUE, "from"),
        (outbound, "wire_ns", ledger.WIRE, "from"),
        (~outbound, "entered_ns", ledger.WIRE, "before"),
        (~outbound, "entered_ns", ledger.INBOUND, "from"),
        (~outbound, "left_ns", ledger.DELIVERY, "from"),
    )
    for direction, column, segment, side in way:
        bound_ns = hops[column]
        there = hops["time_ns"] < bound_ns if side == "before" else hops["time_ns"] >= bound_ns
        segments[direction & there.fillna(False)] = segment.name
    return segments


def _hops_of_pings(analysis: Analysis) -> pd.DataFrame:
    """Return the hops of the pings' packets, with the ping's row, direction and crossing."""
    rtts, crossings = analysis.rtts, analysis.crossings
    of_pings = pd.concat(
        [
            rtts[["round", "arm", "seq", "sent_ns"]].assign(
                ping=range(len(rtts)),
                direction=direction,
                journey=rtts[column],
                end_ns=_end_ns(rtts),
            )
            for direction, column in (
                (OUTBOUND, "outbound_journey"),
                (INBOUND, "inbound_journey"),
            )
        ]
    ).dropna(subset="journey")
    of_pings["journey"] = of_pings["journey"].astype("int64")
    crossed = crossings[crossings["status"] == "complete"]
    crossed = crossed[["journey", "direction", "entered_ns", "left_ns", "wire_ns"]]
    crossed = crossed.astype({"direction": str})
    crossed = crossed.drop_duplicates(["journey", "direction"])
    of_pings = of_pings.merge(crossed, on=["journey", "direction"], how="left")
    hops = analysis.hops.assign(place=range(len(analysis.hops)))
    found = of_pings.merge(hops, on="journey", suffixes=("", "_hop"))
    within = (found["sent_ns"].isna() | (found["time_ns"] >= found["sent_ns"])) & (
        found["end_ns"].isna() | (found["time_ns"] <= found["end_ns"])
    )
    found = found[within.astype(bool)]
    order = found.assign(inbound=found["direction"] == INBOUND)
    found = found.loc[order.sort_values(["ping", "inbound", "place"], kind="stable").index]
    dev = found["dev"].astype(object).where(found["dev"].notna(), "?")
    netns = found["netns"].astype(object)
    place = (netns.astype(str) + ":" + dev).where(netns.notna(), dev)
    return found.assign(where=place + " " + found["event"].astype(str))


def _end_ns(rtts: pd.DataFrame) -> pd.Series:
    """Return the time at which a ping ended [ns]; missing when it is not known."""
    printed_ns = rtts["sent_ns"] + rtts["rtt_ns"] + rtts["rtt_resolution_ns"]
    return rtts["received_ns"].where(rtts["received_ns"].notna(), printed_ns)
