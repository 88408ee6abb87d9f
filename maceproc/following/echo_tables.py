"""HOPS and CROSSINGS of echoes, made directly from what the tracer in the kernel has written.

A row of the tracer is an echo: its request is journey 2n, its reply journey 2n + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maceproc.capture import Sidecar
from maceproc.echo_rows import ANSWERED, NATIVE, RECEIVED
from maceproc.echoes import sent_ns
from maceproc.pairing import Rows
from maceproc.schema import CROSSINGS, HOPS

NOT_RECEIVED = "not received on the container's device"
UNKNOWN_CPU = -1


def request_journey(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the journeys of the requests of rows, by the rows' places."""
    return rows * 2


def reply_journey(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the journeys of the replies of rows, by the rows' places."""
    return rows * 2 + 1


def hops_of_echoes(rows: Rows, sidecar: Sidecar) -> pd.DataFrame:
    """Return HOPS: up to three events of every request, and two of its reply, by journey and hop.

    An echo of the host itself has only the events of the outer device. The rows do not tell CPU and
    length. Received packets count as handled in softirq.
    """
    path = sidecar.target.path
    inner, outer = path[0], path[-1]
    places = np.arange(len(rows), dtype=np.int64)
    received = [_receive_event(sidecar, position) for position in (-1, 0)]
    # what, of the reply, journey's hop, event, device
    points = (
        ("queued_ns", False, 0, "net_dev_queue", inner),
        ("outer_queued_ns", False, 1, "net_dev_queue", outer),
        ("sent_ns", False, 2, "net_dev_start_xmit", outer),
        ("outer_received_ns", True, 0, received[0], outer),
        ("received_ns", True, 1, received[1], inner),
    )
    tables = []
    native = (rows["flags"] & NATIVE) > 0
    for name, of_reply, hop, event, device in points:
        chosen = (rows[name] > 0) & ~(native & (device is inner))
        there = places[chosen]
        tables.append(
            pd.DataFrame(
                {
                    "journey": (reply_journey if of_reply else request_journey)(there),
                    "hop": np.int32(hop),
                    "skbaddr": rows["reply_skb" if of_reply else "request_skb"][chosen],
                    "event": event,
                    "dev": device.dev,
                    "netns": device.netns,
                    "time_ns": rows[name][chosen].astype(np.int64),
                    "cpu": np.int32(UNKNOWN_CPU),
                    "pid": 0 if of_reply else rows["pid"][chosen].astype(np.int32),
                    "softirq": of_reply,
                    "len": np.int64(0),
                }
            )
        )
    whole = pd.concat(tables, ignore_index=True)
    order = np.lexsort((whole["hop"], whole["journey"]))
    return HOPS.frame(whole.iloc[order].reset_index(drop=True))


def crossings_of_echoes(rows: Rows, hops: pd.DataFrame, sidecar: Sidecar) -> pd.DataFrame:
    """Return CROSSINGS by the time of entry: an answered echo has two, any other echo has one.

    An echo of the host itself has none.
    """
    places = np.flatnonzero((rows["flags"] & NATIVE) == 0).astype(np.int64)
    rows = rows[places]
    answered = (rows["flags"] & ANSWERED) > 0
    received = (rows["flags"] & RECEIVED) > 0
    outbound = _crossings(
        request_journey(places),
        "outbound",
        [_ns(rows, "queued_ns"), _ns(rows, "outer_queued_ns"), _known(sent_ns(rows))],
        rows["pid"].astype(np.int32),
    )
    back = rows[answered]
    inbound = _crossings(
        reply_journey(places[answered]),
        "inbound",
        [_ns(back, name) for name in ("outer_received_ns", "received_ns", "outer_received_ns")],
        np.zeros(len(back), np.int32),
    )
    stuck = ~received[answered]
    inbound.loc[stuck, ["status", "reason"]] = ["incomplete", NOT_RECEIVED]
    table = pd.concat([outbound, inbound], ignore_index=True)
    table["peer"] = sidecar.target.path[1].dev
    begin, end = _hop_range(hops, table["journey"].to_numpy(np.int64))
    table["first_hop"], table["last_hop"] = begin, end
    order = np.argsort(table["entered_ns"].to_numpy(np.int64), kind="stable")
    return CROSSINGS.frame(table.iloc[order].reset_index(drop=True))


def _crossings(
    journey: NDArray[np.int64],
    direction: str,
    times: Sequence[pd.arrays.IntegerArray],
    pid: NDArray[np.int32],
) -> pd.DataFrame:
    entered_ns, left_ns, wire_ns = times
    return pd.DataFrame(
        {
            "journey": journey,
            "direction": direction,
            "entered_ns": entered_ns,
            "left_ns": left_ns,
            "latency_ns": left_ns - entered_ns,
            "wire_ns": wire_ns,
            "len": np.int64(0),
            "pid": pid,
            "softirq": direction == "inbound",
            "status": "complete",
            "reason": "",
        }
    )


def _hop_range(
    hops: pd.DataFrame, journeys: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of HOPS where journeys begin and end."""
    sorted_journeys = hops["journey"].to_numpy(np.int64)
    begin = np.searchsorted(sorted_journeys, journeys, side="left")
    end = np.searchsorted(sorted_journeys, journeys, side="right") - 1
    return begin, end


def _receive_event(sidecar: Sidecar, position: int) -> str:
    """Return the event by which a device of the path receives, as far as that is known."""
    link = sidecar.link(sidecar.target.path[position])
    return "netif_receive_skb" if link and link.uses_netif_rx is False else "netif_rx"


def _ns(rows: Rows, name: str) -> pd.arrays.IntegerArray:
    """Return times [ns]; 0 is unknown."""
    return _known(rows[name].astype(np.int64))


def _known(times: NDArray[np.int64]) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(times, times == 0)
