"""The packets and system calls that can belong to one run of a ping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.crossings import NOT_SEEN, OUTBOUND
from maceproc.following.lengths import SHORTEST_PAYLOAD_BYTES
from maceproc.following.positions import FOREVER, Bools, Times
from maceproc.pings import ICMP_HEADER_BYTES, PingOutput

IP_HEADER_BYTES = (20, 40)  # version 4, version 6
ETHERNET_HEADER_BYTES = 14


@dataclass(frozen=True)
class RunPackets:
    """What the events know of one run: its send and receive calls, and packets of its length.

    Times in ns on the trace clock; everything in order of time.
    """

    send_ns: Times
    delivered_ns: Times
    outbound: pd.DataFrame  # CROSSINGS of what the ping's task queued
    inbound: pd.DataFrame  # CROSSINGS of what was received by the device it was queued on
    lost: pd.DataFrame  # LOST
    whole: bool  # no event was lost while the run lasted

    @property
    def received_ns(self) -> Times:
        """When each inbound packet was received on the container's device."""
        return self.inbound["left_ns"].to_numpy(dtype=np.int64)

    @property
    def stamped_after_ns(self) -> Times:
        """The earliest time of each inbound packet's receive stamp: see `with_earliest_stamps`."""
        known = "stamped_after_ns" in self.inbound
        return self.inbound["stamped_after_ns"].to_numpy() if known else self.received_ns


def packets_of_run(
    run: Run,
    printed: PingOutput,
    sends: pd.DataFrame,
    deliveries: pd.DataFrame,
    passages: pd.DataFrame,
    *,
    lost: pd.DataFrame,
    mtu: int = 1500,
) -> RunPackets:
    """Select what can belong to one run of a ping: its time, its task, its length, its device.

    `lost` is LOST; `mtu` is that of the first device: a longer echo is sent in fragments.
    """
    first_seen_ns = passages["entered_ns"].fillna(passages["left_ns"])
    in_run = first_seen_ns.between(run.start_ns, run.end_ns).fillna(False).astype(bool)
    passages = passages[in_run & _has_echo_length(passages, printed, mtu)]
    out = passages["direction"] == OUTBOUND
    pid = _task_of_run(run, passages[out])
    sends = sends[sends["time_ns"].between(run.start_ns, run.end_ns)]
    sends = echo_requests(_of_task(sends, pid), printed)
    received = _of_task(deliveries, pid)
    received = received[received["time_ns"].between(run.start_ns, run.end_ns)]
    # A packet that waits for the neighbour's link-layer address is queued in softirq when the
    # address arrives: such packets have no task.
    own = passages["softirq"] | ((passages["pid"] == pid) if pid is not None else False)
    outbound = passages[out & own].sort_values("entered_ns", ignore_index=True)
    known = passages["left_ns"].notna() & passages["peer"].isin(outbound["peer"].unique())
    known &= passages["len"].isin(_reply_lengths(outbound))
    inbound = passages[~out & known].sort_values("left_ns", ignore_index=True)
    whole = not meets_gap(np.array([run.start_ns]), np.array([run.end_ns]), lost).any()
    calls_ns = sends["time_ns"].to_numpy()
    replies = printed.received if whole else None
    return RunPackets(
        calls_ns,
        received["time_ns"].to_numpy(),
        outbound,
        _for_the_host(_from_outside(inbound, replies), calls_ns, replies),
        lost,
        whole=whole,
    )


def _from_outside(inbound: pd.DataFrame, received: int | None) -> pd.DataFrame:
    """Return the packets that can be the target's replies, of those that a device received.

    The host can have sent some to the container itself. `received` is how many replies came, where
    no event was lost: if as many packets or more came from the outer device, the replies did.
    """
    came = inbound["reason"] != NOT_SEEN
    if received is None or came.all() or came.sum() < received:
        return inbound
    return inbound[came].reset_index(drop=True)


def _for_the_host(inbound: pd.DataFrame, calls_ns: Times, received: int | None) -> pd.DataFrame:
    """Return the packets that can be a native ping's replies, of those that the outer device got.

    A packet that the host seems to have sent on to a container may be a reply, and what was sent
    another packet with its address. So it is kept if it was not sent on at once, or if no other
    packet came between two send calls. `received` is how many replies came, where no event was
    lost: if there are as many packets beside these, they are the replies.
    """
    if "sent_on" not in inbound or not inbound["sent_on"].any():
        return inbound
    sent_on = inbound["sent_on"].to_numpy()
    turn = np.searchsorted(calls_ns, inbound["left_ns"].to_numpy(np.int64), side="right")
    kept = ~sent_on
    if received is not None and not received == kept.sum() == len(np.unique(turn[kept])):
        kept |= ~inbound["at_once"].to_numpy() | ~np.isin(turn, turn[kept])
    return inbound[kept].reset_index(drop=True)


def with_earliest_stamps(passages: pd.DataFrame, hops: pd.DataFrame) -> pd.DataFrame:
    """Return CROSSINGS with the column `stamped_after_ns`, from the HOPS they were found in.

    The kernel takes the receive stamp after the packet's previous event, and then calls the tracers
    of the receive event (net/core/dev.c, netif_rx_internal(), v6.8). An interrupt between the stamp
    and the tracers delays the recorded receive event. So the stamp can be as old as the previous
    event. If no previous event of the packet was recorded, the column has the time of the receive
    event.
    """
    last = passages["last_hop"].to_numpy(np.int64)
    time_ns, journey = hops["time_ns"].to_numpy(), hops["journey"].to_numpy()
    left_ns = passages["left_ns"].to_numpy(np.int64, na_value=-FOREVER)
    seen_before = (last > 0) & (journey[last - 1] == journey[last]) & (time_ns[last] == left_ns)
    return passages.assign(stamped_after_ns=np.where(seen_before, time_ns[last - 1], left_ns))


def meets_gap(start_ns: Times, end_ns: Times, lost: pd.DataFrame) -> Bools:
    """Tell which spans of time overlap a gap of LOST, in which a ring buffer lost events."""
    after_ns = np.sort(lost["after_ns"].to_numpy(np.int64, na_value=-FOREVER))
    before_ns = np.sort(lost["before_ns"].to_numpy(np.int64, na_value=FOREVER))
    # Count the gaps that began before the span ended, and those that ended before it began.
    begun = np.searchsorted(after_ns, end_ns, side="left")
    ended = np.searchsorted(before_ns, start_ns, side="right")
    return np.asarray(begun > ended)


def _task_of_run(run: Run, outbound: pd.DataFrame) -> int | None:
    """Return the pid of a run's ping; None when that is not known.

    A container's engine starts the ping, which may end before the recorder looks for it. Then the
    ping is the only task that queued packets of that length on that device, if there is only one.
    """
    if run.pid is not None:
        return run.pid
    tasks = outbound["pid"][~outbound["softirq"]].unique()
    return int(tasks[0]) if len(tasks) == 1 else None


def _of_task(calls: pd.DataFrame, pid: int | None) -> pd.DataFrame:
    return calls[calls["pid"] == pid] if pid is not None else calls[:0]


def echo_requests(sends: pd.DataFrame, printed: PingOutput) -> pd.DataFrame:
    """Return those of a task's SENDS that sent echo requests.

    A ping also sends DNS queries: those have another length, and go through another socket. A
    program that writes the IP header itself (IP_HDRINCL, as hping3) sends it, too.
    """
    if printed.payload_bytes is not None:
        message = printed.payload_bytes + ICMP_HEADER_BYTES
        lengths = [message, *(header + message for header in IP_HEADER_BYTES)]
        right = sends["len"].isin(lengths).fillna(False)
        sends = sends[right] if right.any() else sends[sends["len"].isna()]
    if sends.empty:
        return sends
    return sends[sends["fd"] == sends["fd"].mode().iloc[0]]


def _has_echo_length(passages: pd.DataFrame, printed: PingOutput, mtu: int) -> Bools:
    """Tell which packets are as long as the ping's echoes, with or without an Ethernet header.

    Of a fragmented echo only the last fragment counts: with it the echo is complete.
    """
    if printed.payload_bytes is None:
        return np.full(len(passages), True)
    message = printed.payload_bytes + ICMP_HEADER_BYTES
    packets = [header + _last_fragment(message, mtu - header) for header in IP_HEADER_BYTES]
    packets += [SHORTEST_PAYLOAD_BYTES] * (min(packets) < SHORTEST_PAYLOAD_BYTES)
    fits = passages["len"].isin([*packets, *(p + ETHERNET_HEADER_BYTES for p in packets)])
    return fits.to_numpy(dtype=np.bool_)


def _reply_lengths(requests: pd.DataFrame) -> list[int]:
    """Return the lengths a reply can have: the request's, with or without an Ethernet header."""
    if requests.empty:
        return []
    length = int(requests["len"].mode().iloc[0])
    lengths = [length, length - ETHERNET_HEADER_BYTES]
    return lengths + [SHORTEST_PAYLOAD_BYTES] * (min(lengths) < SHORTEST_PAYLOAD_BYTES)


def _last_fragment(message: int, room: int) -> int:
    """Return the length of a message's last fragment; others are multiples of 8, RFC 791."""
    if message <= room:
        return message
    return message % (room // 8 * 8) or room // 8 * 8
