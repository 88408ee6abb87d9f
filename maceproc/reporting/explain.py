"""One ping in detail: its events, its ledger, and why these packets were taken to be its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.following.coverage import traced_pings
from maceproc.following.crossings import INBOUND
from maceproc.foreign_text import clean
from maceproc.ledger import COLUMNS
from maceproc.schema import SCHEMA_VERSION, Column, Table, rows_of
from maceproc.series import TRACED_ARMS

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

EVENTS = Table(
    "events",
    "one event of the ping",
    (
        Column("after_ns", "int64", "ns", "since the send call, or the first event seen"),
        Column("step_ns", "Int64", "ns", "since the event before"),
        Column("journey", "Int64", "", "its journey; unknown for a system call"),
        Column("event", "str", "", "the kernel's name of the event"),
        Column("dev", "category", "", "device name; unknown where the event names none"),
        Column("netns", "category", "", "namespace of the device; unknown when not known"),
        Column("cpu", "Int64", "", "CPU it was recorded on"),
        Column("pid", "Int64", "", "task that ran; in softirq, the task that was interrupted"),
        Column("softirq", "boolean", "", "in softirq, not in the task's own system call"),
        Column("len", "Int64", "byte", "skb->len"),
    ),
)
CANDIDATES = Table(
    "candidates",
    "one packet that came in while the reply was due",
    (
        Column("after_ns", "Int64", "ns", "since the send call"),
        Column("residual_ns", "Int64", "ns", "the residual it would leave"),
        Column("len", "int64", "byte", "skb->len"),
        Column("journey", "int64", "", "its journey"),
        Column("status", "str", "", "of its crossing: complete or incomplete"),
        Column("taken", "bool", "", "whether it was taken for the reply"),
    ),
)

SENDING = ("net_dev_queue", "net_dev_start_xmit", "net_dev_xmit")


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """What is known of one ping.

    Attributes
    ----------
    ping
        Its row of RTTS.
    events
        Its events in the order of time: the columns of `EVENTS`.
    ledger
        Segment and time [ns]; they add up to the RTT.
    candidates
        The packets that came in while its reply was due: the columns of `CANDIDATES`.
    """

    ping: pd.Series
    events: pd.DataFrame
    ledger: pd.Series
    candidates: pd.DataFrame

    def __repr__(self) -> str:
        ping = self.ping
        return f"<Explanation of icmp_seq {ping['seq']}, round {ping['round']}: {ping['status']}>"

    def __str__(self) -> str:
        from maceproc.reporting.explain_text import lines

        return "\n".join(map(clean, lines(self.ping, self.events, self.ledger, self.candidates)))

    def _repr_html_(self) -> str:
        from maceproc.reporting.notebook import explanation_html

        return explanation_html(self.ping, self.events, self.ledger, self.candidates)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``maceproc explain --json`` prints: unknown values are null, times in ns."""
        return {
            "schema_version": SCHEMA_VERSION,
            "ping": rows_of(self.ping.to_frame().T)[0],
            "events": rows_of(self.events),
            "ledger": rows_of(self.ledger.to_frame().T)[0],
            "candidates": rows_of(self.candidates),
        }

    def as_json(self) -> str:
        """Return `as_dict` as JSON text."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)


def explain(analysis: Analysis, seq: int, round: int | None = None) -> Explanation:  # noqa: A002
    """Explain one traced ping by its icmp_seq, and the round where several have it.

    Of a round's pings it is the container's; a native one where the round has no other.

    Raises AnalysisError when there is no such ping, and names those there are.
    """
    rtts = analysis.rtts
    traced = rtts[rtts["status"] != "untraced"]
    rows = traced[traced["arm"].isin(TRACED_ARMS)]
    if round is not None:
        rows = rows[rows["round"] == round]
    found = rows[rows["seq"] == seq]
    if found.empty:
        if round is not None and rows.empty and len(traced):
            raise AnalysisError(
                f"there is no traced ping in round {round}",
                hint=f"the rounds are {traced['round'].min()} to {traced['round'].max()}",
            )
        raise AnalysisError(
            f"no traced ping has icmp_seq {seq}" + (f" in round {round}" if round else ""),
            hint=f"there are {rows['seq'].min()} to {rows['seq'].max()}" if len(rows) else "",
        )
    ping = traced_pings(found).iloc[0]
    ledger = pd.Series({name: ping[column] for name, column in COLUMNS.items()}, name="time_ns")
    return Explanation(ping, _events(analysis, ping), ledger, _candidates(analysis, ping))


def _events(analysis: Analysis, ping: pd.Series) -> pd.DataFrame:
    """Return the hops of both journeys within the ping's time, with the calls around them."""
    hops = analysis.hops
    ours = hops[hops["journey"].isin(ping[["outbound_journey", "inbound_journey"]].dropna())]
    columns = ["time_ns", *EVENTS.names[2:]]
    rows = ours[columns].astype({"event": str, "dev": object, "netns": object})
    calls = []
    if pd.notna(ping["tx_stack_ns"]):  # otherwise the call was not seen
        calls.append({"time_ns": ping["sent_ns"], "event": "send call"})
        rows = rows[rows["time_ns"] >= ping["sent_ns"]]
    if pd.notna(ping["delivery_ns"]) and ping["delivery_ns"] > 0:
        calls.append({"time_ns": ping["received_ns"], "event": "receive call"})
    if calls:
        rows = pd.concat([pd.DataFrame(calls), rows], ignore_index=True)
    rows = _until_sent_again(rows.sort_values("time_ns", kind="stable", ignore_index=True), ping)
    start_ns = rows["time_ns"].min() if len(rows) else 0
    rows.insert(0, "after_ns", rows["time_ns"] - start_ns)
    rows.insert(1, "step_ns", rows["time_ns"].diff().astype("Int64"))
    return rows.drop(columns="time_ns")


def _until_sent_again(rows: pd.DataFrame, ping: pd.Series) -> pd.DataFrame:
    """Cut off what follows the delivery: a packet that was received is not sent again.

    Where the freeing of packets was not recorded, a journey continues with the next packet that
    uses the same address.
    """
    end_ns = ping["received_ns"]
    if pd.isna(end_ns):
        end_ns = ping["sent_ns"] + ping["rtt_ns"]
    if pd.isna(end_ns):
        return rows
    other = rows["event"].isin(SENDING) & (rows["time_ns"] > end_ns + ping["rtt_resolution_ns"])
    return rows[~other.cummax()]


def _candidates(analysis: Analysis, ping: pd.Series) -> pd.DataFrame:
    """Return the packets that came in while the ping's reply was due."""
    crossings = analysis.crossings
    if pd.isna(ping["sent_ns"]) or pd.isna(ping["rtt_ns"]):
        return pd.DataFrame(columns=CANDIDATES.names)
    inbound = crossings[(crossings["direction"] == INBOUND) & crossings["left_ns"].notna()]
    after_ns = inbound["left_ns"] - ping["sent_ns"]
    due = inbound[after_ns.between(0, ping["rtt_ns"] + ping["rtt_resolution_ns"])]
    after_ns = after_ns[due.index]
    taken = due["journey"] == ping["inbound_journey"]
    return due.assign(after_ns=after_ns, residual_ns=ping["rtt_ns"] - after_ns, taken=taken)[
        CANDIDATES.names
    ]
