"""Which pings' packets may be made up of the events of two packets.

Two packets can have the same address, one after the other. If events are lost, the remaining events
of both can look like one packet. So a crossing is only accepted if no packet that was not followed
can have contributed events to it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from maceproc.following.due import Due
from maceproc.following.positions import FOREVER, Bools, Choice
from maceproc.following.requests import Requests
from maceproc.following.run_packets import RunPackets


def complete(passages: pd.DataFrame) -> Bools:
    """Tell which of the CROSSINGS were followed from end to end."""
    return passages["status"].to_numpy() == "complete"


def outbound_mixtures(
    packets: RunPackets, requests: Requests, send: Choice, request: Choice
) -> Bools:
    """Tell which pings' requests may end with the events of another request of the same run.

    A later request that was not followed can have got the same address. So a request is not
    accepted if it was handed to the driver after the send call of such a later request.
    """
    followed = requests.request.of(complete(packets.outbound), absent=False)
    if not len(followed):
        return np.zeros(len(send), dtype=np.bool_)
    next_call_ns = np.append(packets.send_ns[1:], FOREVER)
    next_is_followed = np.append(followed[1:], True)
    unfollowed_ns = np.where(next_is_followed, FOREVER, next_call_ns)
    unfollowed_ns = np.minimum(unfollowed_ns, requests.lost_call_ns)
    bound_ns = np.minimum.accumulate(unfollowed_ns[::-1])[::-1]
    gone_ns = packets.outbound["wire_ns"].to_numpy(dtype=np.int64, na_value=-FOREVER)
    return np.asarray(request.of(gone_ns, -FOREVER) >= send.of(bound_ns, FOREVER))


def inbound_mixtures(due: Due, packets: RunPackets, reply: Choice) -> Bools:
    """Tell which pings' replies may begin with the events of another ping's reply.

    That is possible if a reply that was not followed can have arrived while this one crossed.
    """
    followed = reply.of(complete(packets.inbound), absent=False)
    unfollowed = due.answered & ~followed
    entered_ns = packets.inbound["entered_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    left_ns = reply.of(packets.received_ns, -FOREVER)
    begun = np.searchsorted(np.sort(due.earliest_ns[unfollowed]), left_ns)
    ended = np.searchsorted(np.sort(due.latest_ns[unfollowed]), reply.of(entered_ns, FOREVER))
    return np.asarray(followed & (begun > ended))


def contested(due: Due, packets: RunPackets, reply: Choice) -> Bools:
    """Tell which replies were chosen for another ping too, or may be another ping's.

    If the send call of an answered ping is not known, its reply can be any packet that came within
    the time that its printed line allows.
    """
    unknown = due.answered & ~due.known
    received_ns = packets.received_ns
    first = np.searchsorted(received_ns, due.earliest_ns[unknown], side="left")
    end = np.searchsorted(received_ns, due.latest_ns[unknown], side="right")
    edges = np.zeros(len(received_ns) + 1, dtype=np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, np.maximum(end, first), -1)
    wanted = np.cumsum(edges)[:-1] > 0
    return np.asarray(reply.shared | reply.of(wanted, absent=False))


def came_before_it_left(packets: RunPackets, request: Choice, reply: Choice) -> Bools:
    """Tell which replies were on the outer device before their request was."""
    sent_ns = packets.outbound["wire_ns"].to_numpy(dtype=np.int64, na_value=-FOREVER)
    came_ns = packets.inbound["wire_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    return np.asarray(reply.of(came_ns, FOREVER) <= request.of(sent_ns, -FOREVER))
