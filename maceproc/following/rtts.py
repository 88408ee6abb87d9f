"""Take the crossings out of the RTTs, and account for every nanosecond.

One ping, with kernel times on one clock:

    send call    queued         queued           received       received     program
       |----------|--------------|------ wire -----|--------------|------------|
        tx stack   outbound       outer queue       inbound        delivery
                   crossing                         crossing

Segments and residual add up to the printed RTT. The residual is what the events do not show: the
program's send stamp is taken in user space, a little before the send call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Run
from maceproc.following.matching import (
    NONE,
    Indices,
    Matches,
    Packets,
    Verdicts,
    at,
    match_run,
    packets_of_run,
)
from maceproc.pings import PingOutput
from maceproc.schema import RTTS
from maceproc.units import NS_PER_US

STATUSES: Mapping[str, str] = {
    "corrected": "both crossings were followed; the RTT is given without them",
    "native": "ran on the bare machine: nothing to correct; the wire RTT is given",
    "uncrossed": "its path has no crossing that can be seen; the RTT stays as printed",
    "untraced": "ran without tracing: there are no events to correct it with",
    "unanswered": "no reply was printed",
    "unprinted": "ping printed no line for it (-f, -q)",
    "duplicate": "a further reply to a request that was answered before",
    "error": "an ICMP error came instead of a reply",
    "incomplete": "an event that is needed was lost or not recorded",
    "ambiguous": "more than one packet could be this ping's",
}

NO_CROSSING = "its path has no crossing that can be seen"
"""The reason of what is `uncrossed`."""

FINE_STEP_NS = 1 * NS_PER_US
"""A printed RTT of larger steps is coarser than what is corrected: the kernel's RTT is used.

That has nanoseconds, and leaves out only the time from the send stamp to the send call.
"""


def rtts_table(
    pings: pd.DataFrame,
    runs: Iterable[tuple[Run, PingOutput]],
    sends: pd.DataFrame,
    deliveries: pd.DataFrame,
    passages: Mapping[str, pd.DataFrame],
    *,
    lost: pd.DataFrame,
    mtu: int = 1500,
) -> pd.DataFrame:
    """Return RTTS: a row for every row of PINGS, in the same order.

    `passages` gives CROSSINGS by place: between the container and the outer device for
    ``container``, at the outer device for ``native``. `lost` is LOST: what the ring buffers could
    not take. `mtu` is the first device's [bytes].
    """
    identity = ["round", "arm", "target"]
    by_run = dict(list(pings.groupby(identity, observed=True, sort=False)))
    tables = []
    for run, printed in runs:
        rows = by_run.get((run.round, run.arm, printed.target))
        if rows is None:
            continue
        verdicts = Verdicts(rows)
        if printed.targets > 1:
            verdicts.against(np.full(len(rows), True), "ambiguous", SEVERAL_TARGETS)
        if run.traced:
            packets = packets_of_run(
                run, printed, sends, deliveries, passages[run.place], lost=lost, mtu=mtu
            )
            matches = match_run(rows, run, printed, packets, verdicts)
            table = _ledger(rows, packets, matches)
            if run.place == "container":
                nothing_to_correct = (~_fine(rows)) & table["kernel_rtt_ns"].isna().to_numpy()
                verdicts.against(nothing_to_correct, "incomplete", NO_STAMP)
        else:
            table = rows.reindex(columns=RTTS.names)
        table["status"], table["reason"] = _settle(verdicts, run)
        tables.append(_correct(table))
    if not tables:
        return RTTS.frame()
    rows = pd.concat(tables).loc[pings.index]
    return RTTS.frame(rows.assign(causes=""))


SEVERAL_TARGETS = "its run had several targets: which send call was for which is not known"

NO_STAMP = "ping printed too coarsely, and when its reply was stamped is not known"


def _fine(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Tell which RTTs were printed finely enough to be corrected."""
    return (rows["rtt_resolution_ns"] <= FINE_STEP_NS).fillna(False).to_numpy(dtype=bool)


def _settle(verdicts: Verdicts, run: Run) -> tuple[object, object]:
    everything = np.full(len(verdicts.status), True)
    if not run.traced:
        verdicts.against(everything, "untraced", "no tracepoint was enabled")
    verdicts.against(everything, "corrected" if run.place == "container" else "native", "")
    return verdicts.status, verdicts.reason


def _ledger(pings: pd.DataFrame, packets: Packets, matches: Matches) -> pd.DataFrame:
    """Cut every RTT into its segments; what is not known stays empty."""
    rows = pings.reindex(columns=RTTS.names)
    sent_ns = pd.arrays.IntegerArray(at(packets.send_ns, matches.send), matches.send == NONE)
    queued_ns, out_ns, on_wire_ns, rows["outbound_journey"] = _times(
        packets.outbound, matches.request
    )
    back_ns, in_ns, off_wire_ns, rows["inbound_journey"] = _times(packets.inbound, matches.reply)
    delivered_ns = at(packets.delivered_ns, matches.delivery)
    stamp_ns = np.where(matches.on_delivery, delivered_ns, in_ns.to_numpy(np.int64, na_value=0))
    received_ns = pd.arrays.IntegerArray(stamp_ns, np.asarray(in_ns.isna()) | ~matches.stamp_known)
    rows["sent_ns"], rows["received_ns"] = sent_ns, received_ns
    rows["matched_by"] = matches.matched_by
    rows["kernel_rtt_ns"] = received_ns - sent_ns
    rows["tx_stack_ns"] = queued_ns - sent_ns
    rows["outbound_ns"] = out_ns - queued_ns
    rows["outer_queue_ns"] = on_wire_ns - out_ns
    rows["wire_rtt_ns"] = off_wire_ns - on_wire_ns
    rows["inbound_ns"] = in_ns - back_ns
    rows["delivery_ns"] = received_ns - in_ns
    rows["residual_ns"] = rows["rtt_ns"] - rows["kernel_rtt_ns"]
    return rows


def _times(passages: pd.DataFrame, positions: Indices) -> list[pd.arrays.IntegerArray]:
    """Pick when packets entered, left and were on the wire, and their journey."""
    names = ["entered_ns", "left_ns", "wire_ns", "journey"]
    picked = passages[names].astype("Int64").reindex(positions)  # NONE is in no index
    return [picked[name].array for name in names]


def _correct(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the corrected RTT of every ping that has the status for it."""
    corrected = (rows["status"] == "corrected").to_numpy()
    native = (rows["status"] == "native").to_numpy()
    fine = _fine(rows)
    basis = np.where(fine, "printed", "kernel").astype(object)
    rtt_ns = rows["rtt_ns"].where(fine, rows["kernel_rtt_ns"])
    bare_metal_ns = rtt_ns - rows["outbound_ns"] - rows["inbound_ns"]
    rows["rtt_basis"] = pd.Series(basis, index=rows.index).where(corrected)
    rows["bare_metal_rtt_ns"] = bare_metal_ns.where(corrected)
    if native.any():
        rows[["outbound_ns", "inbound_ns"]] = pd.NA
    return rows
