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

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.matching import Matches, match_run
from maceproc.following.positions import Choice
from maceproc.following.rules import Case
from maceproc.following.run_packets import RunPackets, packets_of_run
from maceproc.following.several_targets import Joined, Part, join_targets, order_is_told
from maceproc.following.verdicts import fine, judge
from maceproc.pings import PingOutput
from maceproc.schema import RTTS


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
    by_run = dict(list(pings.groupby(["round", "arm", "target"], observed=True, sort=False)))

    def packets_of(run: Run, printed: PingOutput) -> RunPackets:
        return packets_of_run(
            run, printed, sends, deliveries, passages[run.place], lost=lost, mtu=mtu
        )

    tables = []
    for _, group in groupby(runs, key=lambda pair: (pair[0].round, pair[0].arm)):
        run, parts = _parts(list(group), by_run)
        if run.traced and len(parts) > 1:
            tables += _of_several_targets(run, parts, packets_of)
            continue
        for printed, rows in parts:
            matches = (
                match_run(rows, run, printed, packets_of(run, printed)) if run.traced else None
            )
            unsettled = _UNSEEN_TARGETS if printed.targets > 1 else ""
            tables.append(_judged(Case(run, rows, matches, unsettled)))
    if not tables:
        return RTTS.frame()
    rows = pd.concat(tables).loc[pings.index]
    return RTTS.frame(rows.assign(causes=""))


_UNSEEN_TARGETS = "nothing was read about the others"


def _parts(
    group: Sequence[tuple[Run, PingOutput]], by_run: Mapping[tuple[int, str, str], pd.DataFrame]
) -> tuple[Run, list[Part]]:
    """Return a run, and what it printed about every target with that target's rows of PINGS."""
    run = group[0][0]
    found = ((printed, by_run.get((run.round, run.arm, printed.target))) for _, printed in group)
    return run, [(printed, rows) for printed, rows in found if rows is not None]


def _of_several_targets(
    run: Run, parts: Sequence[Part], packets_of: Callable[[Run, PingOutput], RunPackets]
) -> list[pd.DataFrame]:
    """Return the rows of RTTS of a traced run of several targets."""
    joined = join_targets(run, parts)
    if isinstance(joined, Joined):
        packets = packets_of(run, joined.printed)
        matches = match_run(joined.pings, run, joined.printed, packets)
        told = order_is_told(joined, matches)
        unsettled = "" if told else "the printed RTTs do not tell one target from another"
        table = _judged(Case(run, joined.pings, matches, unsettled))
        seq = pd.concat([rows["seq"] for _, rows in parts])
        return [table.assign(seq=seq.loc[table.index])]
    return [
        _judged(Case(run, rows, match_run(rows, run, printed, packets_of(run, printed)), joined))
        for printed, rows in parts
    ]


def _judged(case: Case) -> pd.DataFrame:
    """Return the rows of RTTS of one run."""
    if case.matches is None:
        table = case.pings.reindex(columns=RTTS.names)
    else:
        table = _ledger(case.pings, case.matches)
    verdicts = judge(case)
    decided = {"status": verdicts.status, "reason": verdicts.reason, "rule": verdicts.rule}
    return _correct(table.assign(**decided))


def _ledger(pings: pd.DataFrame, matches: Matches) -> pd.DataFrame:
    """Cut every RTT into its segments; what is not known stays empty."""
    rows = pings.reindex(columns=RTTS.names)
    packets, replies = matches.packets, matches.replies
    sent_ns = pd.arrays.IntegerArray(matches.send.of(packets.send_ns, 0), ~matches.send.exists)
    queued_ns, out_ns, on_wire_ns, rows["outbound_journey"] = _times(
        packets.outbound, matches.request
    )
    back_ns, in_ns, off_wire_ns, rows["inbound_journey"] = _times(packets.inbound, matches.reply)
    delivered_ns = replies.delivery.of(packets.delivered_ns, 0)
    stamp_ns = np.where(replies.delivery.exists, delivered_ns, in_ns.to_numpy(np.int64, na_value=0))
    received_ns = pd.arrays.IntegerArray(stamp_ns, np.asarray(in_ns.isna()) | ~replies.stamp_known)
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


def _times(passages: pd.DataFrame, chosen: Choice) -> list[pd.arrays.IntegerArray]:
    """Return when packets entered, left and were on the wire, and their journey."""
    names = ["entered_ns", "left_ns", "wire_ns", "journey"]
    times = []
    for name in names:
        known = passages[name].notna().to_numpy()
        values = passages[name].to_numpy(dtype=np.int64, na_value=0)
        unknown = ~chosen.of(known, absent=False)
        times.append(pd.arrays.IntegerArray(chosen.of(values, 0), unknown))
    return times


def _correct(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the corrected RTT of every ping that has the status for it."""
    corrected = (rows["status"] == "corrected").to_numpy()
    native = (rows["status"] == "native").to_numpy()
    # Without a kernel RTT, the printed one is fine enough: verdicts.printed_is_enough().
    is_fine = fine(rows) | (corrected & rows["kernel_rtt_ns"].isna().to_numpy())
    basis = np.where(is_fine, "printed", "kernel").astype(object)
    rtt_ns = rows["rtt_ns"].where(is_fine, rows["kernel_rtt_ns"])
    bare_metal_ns = rtt_ns - rows["outbound_ns"] - rows["inbound_ns"]
    rows["rtt_basis"] = pd.Series(basis, index=rows.index).where(corrected)
    rows["bare_metal_rtt_ns"] = bare_metal_ns.where(corrected)
    if native.any():
        rows[["outbound_ns", "inbound_ns"]] = pd.NA
    return rows
