"""Packets that the kernel copies on their way: original and copy joined to one journey.

Where a device needs more room before an IPv6 packet than there is, the kernel goes on with a clone
and ends the original (`maceproc.uplinks.copying_device`). Both happen in one softirq, with nothing
in between (net/core/skbuff.c, skb_expand_head(), v6.1):

    netif_receive_skb   the original, at the host's end of the path
    consume_skb         the original
    net_dev_queue       the copy, on the device that needs room

So these three events must follow each other on one CPU, and none of another packet may be among
them. Two packets could still be taken for original and copy: the copy waits for the next hop's
Ethernet address, and something else is sent instead, at once. That is a neighbour solicitation,
which is told by its length, or a packet of a timer. In the latter case the copy is sent later, from
the softirq that got the address, and nothing is seen that it could be a copy of. A pair is given up
where such a packet is seen within the time that a copy can wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from maceproc.capture import Sidecar
from maceproc.following.crossings import NOT_SEEN, OUTBOUND
from maceproc.following.hop_arrays import Kind, hop_kinds
from maceproc.following.lengths import HEADER_LENGTHS
from maceproc.following.positions import Bools, Indices
from maceproc.schema import HOPS
from maceproc.uplinks import copying_device


class Copying(NamedTuple):
    """The device that packets are copied for, and those that they are sent on by behind it."""

    device: str
    behind: tuple[str, ...] = ()


def copying_of(sidecar: Sidecar | None) -> Copying | None:
    """Return where the packets of a capture are copied; None where they are not."""
    found = copying_device(sidecar.target, sidecar.link) if sidecar else None
    if sidecar is None or found is None:
        return None
    device, path = found[0], sidecar.target.path
    after = (*path[path.index(device) + 1 :], *sidecar.target.below)
    return Copying(device.dev, tuple(hop.dev for hop in after))


SOLICITATIONS = frozenset(range(64, 97, 8))
"""Lengths of a neighbour solicitation, without a device's header [bytes].

40 of IPv6, 24 of its own, and a link-layer address in units of 8 (RFC 4861, 4.3 and 4.6.1).
"""

LONGEST_WAIT_NS = 5_000_000_000
"""A packet waits for the next hop's address for 3 solicitations, one a second (RFC 4861, 10)."""


def join_copies(hops: pd.DataFrame, copying: Copying, lost: pd.DataFrame) -> pd.DataFrame:
    """Return HOPS in which the journey of an original goes on with the hops of its copy.

    `lost` is LOST. Journeys are numbered anew.
    """
    original, copy = copied_packets(hops, copying, lost)
    if not len(original):
        return hops
    journey, number = hops["journey"].to_numpy().copy(), hops["hop"].to_numpy().copy()
    last = len(hops)
    starts = np.append(np.flatnonzero(number == 0), last)
    ends = starts[np.searchsorted(starts, copy, side="right")]
    for end_of_original, first, end in zip(original, copy, ends, strict=True):
        journey[first:end] = journey[end_of_original]
        number[first:end] += number[end_of_original] + 1
    order = np.lexsort((number, journey))
    joined = hops.iloc[order].assign(
        journey=np.cumsum(number[order] == 0) - 1, hop=number[order].astype(np.int32)
    )
    return HOPS.frame(joined.reset_index(drop=True))


def journeys_of_copies(hops: pd.DataFrame) -> Indices:
    """Return the journeys that have hops of an original and of its copy."""
    address, number = hops["skbaddr"].to_numpy(), hops["hop"].to_numpy()
    changed = np.flatnonzero((address[1:] != address[:-1]) & (number[1:] > 0)) + 1
    return np.unique(hops["journey"].to_numpy()[changed])


def with_reasons(
    crossings: pd.DataFrame, copying: Copying, recorded: Collection[str]
) -> pd.DataFrame:
    """Return CROSSINGS that say of requests without a copy why none was found."""
    why = (
        "the event skb:consume_skb, which tells its copy, was not recorded"
        if "consume_skb" not in recorded
        else "it cannot be told for certain which packet is its copy"
    )
    uncopied = (crossings["direction"] == OUTBOUND) & (crossings["reason"] == NOT_SEEN)
    reason = f"{NOT_SEEN}: the kernel copies it for {copying.device}, and {why}"
    return crossings.assign(reason=crossings["reason"].mask(uncopied, reason))


def copy_findings(hops: pd.DataFrame, rtts: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    """Tell of how many pings the request was followed from an original to its copy."""
    corrected = rtts[rtts["status"] == "corrected"]
    copied = corrected["outbound_journey"].isin(journeys_of_copies(hops)).sum()
    if copied:
        yield (
            "copies",
            "note",
            f"{copied} of {len(corrected)} requests went on as a copy with another address: the "
            "kernel makes room for a header so (skb_expand_head()); each copy was queued right "
            "after its original had ended, with no other event between them on that CPU",
            "",
        )


def copied_packets(
    hops: pd.DataFrame, copying: Copying, lost: pd.DataFrame
) -> tuple[Indices, Indices]:
    """Return the rows of HOPS at which originals end, and at which their copies begin."""
    begins = _begins_in_softirq(hops, copying.device)
    received, ended, queued = _at_once(hops, begins)
    possible = _are_alike(hops, received, queued) & ~_across_a_gap(hops, received, queued, lost)
    received, ended, queued = received[possible], ended[possible], queued[possible]
    begins[queued] = False
    others = np.flatnonzero(begins & ~_goes_elsewhere(hops, copying))
    certain = ~_has_rival(hops, queued, others)
    return ended[certain], queued[certain]


def _begins_in_softirq(hops: pd.DataFrame, device: str) -> Bools:
    """Tell which hops are the first that was seen of a packet, on this device and in softirq."""
    here = (hops["dev"] == device).to_numpy(np.bool_) & (hops["hop"].to_numpy() == 0)
    return np.asarray(here & (hop_kinds(hops) == Kind.QUEUE) & hops["softirq"].to_numpy())


def _goes_elsewhere(hops: pd.DataFrame, copying: Copying) -> Bools:
    """Tell which hops are followed by one on a device that is not behind the one of the copies.

    Another namespace has a device of that name.
    """
    sends = hop_kinds(hops) == Kind.QUEUE
    known = hops["dev"].isin([copying.device, *copying.behind]).to_numpy(np.bool_)
    same_life = np.append(hops["hop"].to_numpy()[1:] > 0, False)
    return np.asarray(same_life & np.append((sends & ~known)[1:], False))


def _at_once(hops: pd.DataFrame, begins: Bools) -> tuple[Indices, Indices, Indices]:
    """Return where a packet was received and ended, and one of those that begin was queued.

    The three follow each other on their CPU, in one task's softirq, at times that tell their order.
    """
    time, cpu = hops["time_ns"].to_numpy(), hops["cpu"].to_numpy()
    order = np.lexsort((time, cpu))
    later = np.empty(len(order), np.bool_)  # than the event before on this CPU, or the first there
    later[:1] = True
    changed = cpu[order][1:] != cpu[order][:-1]
    later[1:] = changed | (time[order][1:] > time[order][:-1])
    alone = later & np.append(later[1:], True)
    place = np.flatnonzero(begins[order])
    place = place[place >= 2]
    received, ended, queued = order[place - 2], order[place - 1], order[place]
    kind, address = hop_kinds(hops), hops["skbaddr"].to_numpy()
    consumed = (hops["event"] == "consume_skb").to_numpy(np.bool_)
    at_once = alone[place - 2] & alone[place - 1] & alone[place]
    at_once &= (kind[received] == Kind.RECEIVE) & consumed[ended]
    at_once &= (ended == received + 1) & (hops["hop"].to_numpy()[ended] > 0)
    at_once &= address[queued] != address[ended]
    for name in ("cpu", "pid", "softirq"):
        values = hops[name].to_numpy()
        at_once &= (values[received] == values[queued]) & (values[ended] == values[queued])
    return received[at_once], ended[at_once], queued[at_once]


def _are_alike(hops: pd.DataFrame, received: Indices, queued: Indices) -> Bools:
    """Tell where what was queued is as long as what was received, but for a device's header."""
    length = hops["len"].to_numpy()
    header = length[queued] - length[received]
    solicits = np.isin(length[received], list(SOLICITATIONS))
    return np.isin(header, HEADER_LENGTHS) & ~solicits


def _across_a_gap(
    hops: pd.DataFrame, received: Indices, queued: Indices, lost: pd.DataFrame
) -> Bools:
    """Tell where events of the CPU were lost between the two."""
    time, cpu = hops["time_ns"].to_numpy(), hops["cpu"].to_numpy()[queued]
    across = np.zeros(len(queued), np.bool_)
    limits = np.iinfo(np.int64)
    after = lost["after_ns"].to_numpy(np.int64, na_value=limits.min)
    before = lost["before_ns"].to_numpy(np.int64, na_value=limits.max)
    for gap_cpu, after_ns, before_ns in zip(lost["cpu"], after, before, strict=True):
        across |= (cpu == gap_cpu) & (after_ns < time[queued]) & (before_ns > time[received])
    return across


def _has_rival(hops: pd.DataFrame, queued: Indices, others: Indices) -> Bools:
    """Tell which copies are followed by another packet of their length that comes from nowhere."""
    time, length = hops["time_ns"].to_numpy(), hops["len"].to_numpy()
    rival = np.zeros(len(queued), np.bool_)
    for own in np.unique(length[queued]):
        copies = length[queued] == own
        times = np.sort(time[others[length[others] == own]])
        since = time[queued[copies]]
        within = np.searchsorted(times, since + LONGEST_WAIT_NS) - np.searchsorted(times, since)
        rival[copies] = within > 0
    return rival
