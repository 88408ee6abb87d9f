"""Give every ping its echo, as the content of the packets identifies it.

A run's echoes are those of its process's ICMP identifier, in the run's time, to its target. Within
the run the sequence number tells the ping; where it wraps at 65536, the order of time counts on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maceproc.capture import Run, Sidecar
from maceproc.capture_files import Capture
from maceproc.echo_rows import NATIVE, RECEIVED
from maceproc.echoes import AMBIGUOUS, REASONS, judge, read_echo_file, sent_ns
from maceproc.errors import AnalysisError
from maceproc.following.echo_tables import (
    crossings_of_echoes,
    hops_of_echoes,
    reply_journey,
    request_journey,
)
from maceproc.following.follow import Followed
from maceproc.pairing import Rows
from maceproc.pings import PingOutput, parse_runs, pings_table
from maceproc.schema import LOST, RTTS, Trace

SEQ_WRAP = 1 << 16
COARSE_NS = 1_000
"""A printed RTT of larger steps is coarser than what is corrected: the kernel's RTT is used."""
STAMP_ERROR_NS = 2_000
"""A printed RTT may be shorter than the kernel's by this: it is cut, from two clock readings."""

NO_ROW = "the tracer has no row for it"
SEVERAL_IDS = "several programs of the container pinged its target at that time"
SAME_NUMBER = "several echoes of its run carry its number"
TOO_SHORT = "the printed RTT is shorter than the way of the packets with its number"


@dataclass(frozen=True)
class Found:
    """For every ping of a run: the place of its row (-1: none), and why the row is not certain."""

    place: NDArray[np.int64]
    doubt: NDArray[np.object_]


def follow_echoes(capture: Capture) -> tuple[Trace, Followed]:
    """Follow the pings of a capture by the tracer in the kernel: its rows are the packets.

    Raises TraceFormatError when it cannot be read, AnalysisError when it has no sidecar.
    """
    sidecar = capture.sidecar
    if sidecar is None:
        raise AnalysisError(
            f"{capture.trace}: has no sidecar, which tells what ping printed",
            hint=f"put {capture.trace.name}.json beside it",
        )
    file = read_echo_file(capture.trace)
    rows = file.rows
    notes = (f"its last point is cut: {file.cut_bytes} bytes left out",) if file.cut_bytes else ()
    trace = Trace({}, LOST.frame(), "mono", {"tracer": "bpf", "echoes": len(rows)}, notes)
    hops = hops_of_echoes(rows, sidecar)
    crossed = crossings_of_echoes(rows, hops, sidecar)
    runs = list(parse_runs(sidecar.runs))
    printed = pings_table(runs)
    rtts = rtts_by_identity(printed, runs, rows, sidecar)
    return trace, Followed(hops, crossed, printed, rtts, runs)


def rtts_by_identity(
    pings: pd.DataFrame, runs: Iterable[tuple[Run, PingOutput]], rows: Rows, sidecar: Sidecar
) -> pd.DataFrame:
    """Return RTTS: a row for every row of PINGS, in the same order.

    The tracer sees neither the send call nor the delivery: these segments stay empty, and are part
    of the residual. `kernel_rtt_ns` is from the container's device and back to it.
    """
    by_run = dict(list(pings.groupby(["round", "arm"], observed=True, sort=False)))
    tables = []
    for run, _ in runs:
        of_run = by_run.get((run.round, run.arm))
        if of_run is None:
            continue
        table = of_run.reindex(columns=RTTS.names)
        if run.traced:
            found = find_echoes(of_run, run, rows, sidecar)
            table = _ledger(table, rows, found)
            status, reason, rule = _judge(table, rows, found, followed_as(run))
        else:
            status, reason, rule = _as_printed(of_run, "untraced", "no tracer was on", "untraced")
        table = table.assign(status=status, reason=reason, **_rule(rule))
        tables.append(_correct(table))
    if not tables:
        return RTTS.frame()
    whole = pd.concat(tables).loc[pings.index]
    return RTTS.frame(whole.assign(causes=""))


def find_echoes(pings: pd.DataFrame, run: Run, rows: Rows, sidecar: Sidecar) -> Found:
    """Find the echo of every ping of a traced run."""
    mine, doubt = _rows_of_run(run, rows, sidecar)
    seq = _count_on(rows["seq"][mine].astype(np.int64))
    order = np.argsort(seq, kind="stable")
    sorted_seq = seq[order]
    wanted = pings["seq"].to_numpy(np.int64)
    left = np.searchsorted(sorted_seq, wanted, side="left")
    right = np.searchsorted(sorted_seq, wanted, side="right")
    place = np.full(len(wanted), -1, np.int64)
    there = right > left
    place[there] = mine[order[left[there]]]
    doubts = np.full(len(wanted), doubt, object)
    doubts[right - left > 1] = doubt or SAME_NUMBER
    return Found(place, doubts)


def followed_as(run: Run) -> str:
    """Return the status of a ping of a traced run whose packets were followed."""
    return "native" if run.place == "native" else "corrected"


def _rows_of_run(run: Run, rows: Rows, sidecar: Sidecar) -> tuple[NDArray[np.int64], str]:
    """Return the places of a run's echoes, by time, and why they are not certain."""
    queued_ns = rows["queued_ns"].astype(np.int64)
    inside = (queued_ns >= run.start_ns) & (queued_ns <= run.end_ns)
    native = run.place == "native"
    place = sidecar.target.path[-1 if native else 0].netns
    netns = {n.inode for n in sidecar.namespaces if n.name == place}
    inside &= np.isin(rows["netns"], list(netns)) & (((rows["flags"] & NATIVE) > 0) == native)
    if sidecar.target.address:
        inside &= _sent_to(rows, sidecar.target.address)
    # A request that waited for a neighbour's address is sent in softirq, where the pid is that of
    # another task. So the pid tells only the identifier, and the identifier tells the echoes.
    ids = np.unique(rows["id"][inside & (rows["pid"] == (run.pid or 0))])
    doubt = ""
    if len(ids) == 0:
        ids = np.unique(rows["id"][inside])
    if len(ids) > 1:
        doubt = SEVERAL_IDS
    mine = np.flatnonzero(inside & np.isin(rows["id"], ids))
    return mine[np.argsort(queued_ns[mine], kind="stable")], doubt


def _sent_to(rows: Rows, address: str) -> NDArray[np.bool_]:
    packed = ipaddress.ip_address(address.partition("%")[0]).packed.ljust(16, b"\0")
    words = np.frombuffer(packed, "<u8")
    return np.asarray((rows["target"] == words).all(axis=1))


def _count_on(seq: NDArray[np.int64]) -> NDArray[np.int64]:
    """Continue the count where sequence numbers wrap at 65536; they are in the order of time."""
    back = np.diff(seq, prepend=seq[:1]) < -SEQ_WRAP // 2
    return seq + SEQ_WRAP * np.cumsum(back)


def _ledger(table: pd.DataFrame, rows: Rows, found: Found) -> pd.DataFrame:
    """Fill in the segments that the tracer saw."""
    place = found.place
    there = rows[np.maximum(place, 0)] if len(rows) else np.zeros(len(place), rows.dtype)
    none = place < 0

    def at(name: str) -> Any:
        times = there[name].astype(np.int64)
        return pd.arrays.IntegerArray(times, none | (times == 0))

    queued, outer_queued = at("queued_ns"), at("outer_queued_ns")
    sent = pd.arrays.IntegerArray(sent_ns(there), none)
    outer_received, received = at("outer_received_ns"), at("received_ns")
    table["sent_ns"], table["received_ns"] = queued, received
    table["outbound_ns"] = outer_queued - queued
    table["outer_queue_ns"] = sent - outer_queued
    table["wire_rtt_ns"] = outer_received - sent
    table["inbound_ns"] = received - outer_received
    table["kernel_rtt_ns"] = received - queued
    table["residual_ns"] = table["rtt_ns"] - table["kernel_rtt_ns"]
    table["outbound_journey"] = pd.arrays.IntegerArray(request_journey(place), none)
    table["inbound_journey"] = pd.arrays.IntegerArray(
        reply_journey(place), np.asarray(outer_received.isna())
    )
    table["matched_by"] = pd.Series("identity", index=table.index).where(~none)
    return table


def _judge(table: pd.DataFrame, rows: Rows, found: Found, as_: str) -> tuple[Any, Any, Any]:
    """Return status, reason and rule of the pings of a traced run."""
    status, reason, rule = _as_printed(table, as_, "", as_)
    open_ = status == as_
    place = np.maximum(found.place, 0)
    row_status, row_reason = judge(rows)
    missing = found.place < 0
    if len(rows):
        doubtful = ~missing & (row_status[place] == AMBIGUOUS)
        received = ~missing & ((rows["flags"][place] & RECEIVED) > 0)
        why = np.array(REASONS, object)[row_reason[place]]
    else:
        doubtful = received = np.zeros(len(table), bool)
        why = np.full(len(table), "", object)
    short = (table["residual_ns"] < -STAMP_ERROR_NS - table["rtt_resolution_ns"]).fillna(False)
    for name, kind, holds, words in (
        ("no-row", "incomplete", missing, np.full(len(table), NO_ROW, object)),
        ("same-number", "ambiguous", found.doubt != "", found.doubt),
        ("not-certain", "ambiguous", doubtful, why),
        ("reply-not-followed", "incomplete", ~received, why),
        (
            "rtt-too-short",
            "ambiguous",
            short.to_numpy(bool),
            np.full(len(table), TOO_SHORT, object),
        ),
    ):
        decided = open_ & holds
        status[decided], reason[decided], rule[decided] = kind, words[decided], name
        open_ &= ~decided
    return status, reason, rule


def _as_printed(pings: pd.DataFrame, otherwise: str, why: str, rule: str) -> tuple[Any, Any, Any]:
    """Return the verdicts that ping's own output gives; answered pings get the verdict given."""
    printed = pings["status"].to_numpy(object)
    said = np.isin(printed, ["duplicate", "unanswered", "error"])
    messages = pings["message"].to_numpy(object) if "message" in pings else ""
    status = np.where(said, printed, otherwise).astype(object)
    reason = np.where(said, messages, why).astype(object)
    named = np.array([f"printed-{text}" for text in printed], object)
    return status, reason, np.where(said, named, rule).astype(object)


def _rule(rule: NDArray[np.object_]) -> dict[str, Any]:
    return {"rule": rule} if "rule" in RTTS.names else {}


def _correct(table: pd.DataFrame) -> pd.DataFrame:
    """Give the corrected RTT of every ping that has the status for it; natives cross nothing."""
    corrected = (table["status"] == "corrected").to_numpy(bool)
    table.loc[(table["arm"] == "native traced").to_numpy(), ["outbound_ns", "inbound_ns"]] = pd.NA
    fine = (table["rtt_resolution_ns"] <= COARSE_NS).fillna(False).to_numpy(bool)
    basis = pd.Series(np.where(fine, "printed", "kernel"), index=table.index, dtype=object)
    rtt_ns = table["rtt_ns"].where(fine, table["kernel_rtt_ns"])
    table["rtt_basis"] = basis.where(corrected)
    bare_metal_ns = rtt_ns - table["outbound_ns"] - table["inbound_ns"]
    table["bare_metal_rtt_ns"] = bare_metal_ns.where(corrected)
    return table
