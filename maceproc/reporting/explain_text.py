"""One ping in detail, as text for a terminal: the answer, its events, its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

import pandas as pd

from maceproc.following.replies import MATCHED_BY
from maceproc.following.verdicts import STATUSES
from maceproc.units import format_us


def lines(
    ping: pd.Series, events: pd.DataFrame, ledger: pd.Series, candidates: pd.DataFrame
) -> Iterator[str]:
    """Yield the lines of the text: the answer first, then the events and the ledger.

    The tables are those of `maceproc.reporting.explain.Explanation`.
    """
    yield from _answer(ping, events, ledger)
    yield ""
    yield from _events(events)
    yield ""
    yield from _ledger(ping, ledger)
    yield ""
    yield "packets that came in while its reply was due [us after the send call]"
    for row in candidates.itertuples():
        taken = "taken" if row.taken else "not taken"
        yield f"{_us(row.after_ns):>10}  would leave a residual of {_us(row.residual_ns)}: {taken}"
    if candidates.empty:
        yield "         -  none"


def sentence(ping: pd.Series, ledger: pd.Series) -> str:
    """Say what RTT ping printed, what it is without the container, and the longest segment."""
    told = [f"icmp_seq {ping['seq']}, round {ping['round']}, {ping['arm']}: {ping['status']}."]
    if pd.notna(ping["rtt_ns"]):
        told.append(f"Ping printed {_us(ping['rtt_ns'])} us")
        if pd.notna(ping["bare_metal_rtt_ns"]) and ping["status"] != "native":
            told[-1] += f"; without the crossings it is {_us(ping['bare_metal_rtt_ns'])} us"
        if pd.notna(ping["native_rtt_ns"]):
            native = _us(ping["native_rtt_ns"])
            told[-1] += f", and this host's own ping would have printed {native} us"
        told[-1] += "."
    known = ledger.dropna()
    if len(known) and ping["status"] in SETTLED:
        segment, took_ns = known.idxmax(), known.max()
        told.append(f"Its longest segment is `{segment}`: {_us(took_ns)} us.")
    return " ".join(told)


SETTLED = ("corrected", "native")
WIDTH = 80


def _answer(ping: pd.Series, events: pd.DataFrame, ledger: pd.Series) -> Iterator[str]:
    yield from wrap(sentence(ping, ledger), WIDTH)
    verdict = "sound" if ping["status"] in SETTLED else "do not use"
    why = f"  {verdict}: {ping['reason'] or STATUSES[ping['status']]}"
    yield from wrap(why, WIDTH, subsequent_indent="    ")
    if ping["reason"]:
        yield f"  decided by the rule: {ping['rule']}"
    yield from _why(ping)
    yield from _ends(ping, events)
    if ping["causes"]:
        yield f"  shown by its events: {ping['causes']}"


def _events(events: pd.DataFrame) -> Iterator[str]:
    yield "events [us]: after the send call, after the event before"
    named = max((len(str(event)) for event in events["event"]), default=0)
    placed = max((len(_device(row)) for row in events.itertuples()), default=0)
    for row in events.itertuples():
        known = pd.notna(row.cpu) and row.cpu >= 0
        context = f"cpu {row.cpu:.0f}{_context(row)}" if known else ""
        times = f"{_us(row.after_ns):>10} {_us(row.step_ns):>8}"
        yield f"{times}  {row.event:<{named}}  {_device(row):<{placed}}  {context}".rstrip()


def _ledger(ping: pd.Series, ledger: pd.Series) -> Iterator[str]:
    yield "ledger [us]"
    for segment, time_ns in ledger.items():
        yield f"{_us(time_ns):>10}  {segment}"
    yield f"{_us(ping['rtt_ns']):>10}  RTT as printed, in steps of {_us(ping['rtt_resolution_ns'])}"
    yield f"{_us(ping['bare_metal_rtt_ns']):>10}  corrected: without the crossings"
    if pd.notna(ping["native_rtt_ns"]):
        yield f"{_us(ping['native_rtt_ns']):>10}  as this host's own ping would have printed it"


def _why(ping: pd.Series) -> Iterator[str]:
    """Yield why these packets were taken for the ping's request and reply."""
    if pd.notna(ping["outbound_journey"]) and ping["matched_by"] != "identity":
        yield "  request: it is the only packet that the send call of this icmp_seq queued"
    if pd.notna(ping["matched_by"]):
        what = "packets" if ping["matched_by"] == "identity" else "reply"
        why = f"  {what}: {MATCHED_BY[ping['matched_by']]}"
        yield from wrap(why, WIDTH, subsequent_indent="    ")


def _ends(ping: pd.Series, events: pd.DataFrame) -> Iterator[str]:
    """Say at which devices the crossings were seen to begin and to end."""
    out_ns = ping["tx_stack_ns"], ping["tx_stack_ns"] + ping["outbound_ns"]
    back_ns = out_ns[1] + ping["outer_queue_ns"] + ping["wire_rtt_ns"]
    ends = {"outbound": out_ns, "inbound": (back_ns, back_ns + ping["inbound_ns"])}
    for direction, times_ns in ends.items():
        if pd.isna(ping["sent_ns"]) or any(pd.isna(time_ns) for time_ns in times_ns):
            continue
        rows = [
            events[(events["after_ns"] == time_ns) & events["dev"].notna()] for time_ns in times_ns
        ]
        if all(len(found) for found in rows):
            first, last = (_device(found.iloc[0]) for found in rows)
            yield f"  {direction} crossing: from {first} to {last}"


def _device(row: Any) -> str:
    """Return a row's device, with its namespace where that is known."""
    return ":".join(str(part) for part in (row.netns, row.dev) if pd.notna(part))


def _context(row: Any) -> str:
    return ", softirq" if row.softirq is True else f", pid {row.pid:.0f}"


def _us(time_ns: object) -> str:
    return "-" if pd.isna(time_ns) else format_us(float(time_ns))  # type: ignore[arg-type]
