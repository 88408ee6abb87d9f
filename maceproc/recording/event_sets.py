"""Which events are recorded: the smallest set, everything, or those that were named."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Literal

from maceproc.capture import Link, find_link
from maceproc.errors import TracingError
from maceproc.recording.survey import Survey
from maceproc.uplinks import copying_device

EventSet = Literal["minimal", "full", "list", "bpf"]

# `minimal` is the smallest set that gives the whole ledger. These increases of the median RTT of
# `ping -i 0.02` were measured in the lab, over 24 interleaved rounds: net:* 18 us; the minimal set
# 6.5 us; with net_dev_start_xmit in addition 8.5 us; with netif_receive_skb as well 11 us; with
# skb_copy_datagram_iovec instead of the receive calls 11 us. Tracing the return of the receive call
# lowers the increase: this event precedes the time stamp that ping takes when it sends, so it is
# not part of an RTT, and it warms the caches for the events that are. Therefore it is not filtered
# either: with the filter `ret > 0` the increase is 7.5 us.
MINIMAL_EVENTS = {
    "syscalls:sys_enter_sendto": "the ledger begins: the ping enters the kernel",
    "syscalls:sys_enter_sendmsg": "the same, of programs that use it",
    "net:net_dev_queue": "outbound point of both the inner and the outer device",
    "net:netif_rx": "receive event of a veth, where the kernel takes the receive stamp",
    "syscalls:sys_exit_recvmsg": "the reply reaches the ping: the ledger ends",
    "syscalls:sys_exit_recvfrom": "the same, of programs that use it",
}
QUEUE_EVENTS = {"net:net_dev_start_xmit": "the packet leaves the outer device's queue"}
DRIVER_EVENTS = {"net:netif_receive_skb": "receive event of any other device, or with GRO"}
COPY_EVENTS = {
    "net:netif_receive_skb": "the last event of a packet that is copied on its way",
    "skb:consume_skb": "its end, which comes right before its copy is queued",
}
FULL_EVENTS = {
    "net:*": "every step through the network devices",
    "skb:*": "birth, copy and end of every skb",
    "napi:napi_poll": "when the receive softirq polls a device",
    "neigh:*": "address resolution, which delays a first packet",
    "qdisc:qdisc_enqueue": "waiting in the outer device's queue begins",
    "qdisc:qdisc_dequeue": "and ends",
    "irq:softirq_*": "delay between a packet's arrival and the softirq that handles it",
    "syscalls:sys_*_sendto": "a datagram's way into the kernel",
    "syscalls:sys_*_sendmsg": "the same",
    "syscalls:sys_*_recvmsg": "its way out",
    "syscalls:sys_*_recvfrom": "the same",
}


def path_links(surveyed: Survey) -> list[Link | None]:
    """Return the devices of a survey's path, from the inner to the card; None for an unknown."""
    hops = [*surveyed.target.path, *surveyed.target.below]
    return [find_link(surveyed.namespaces, hop) for hop in hops]


def minimal_events(path: Sequence[Link | None]) -> list[str]:
    """Return the smallest set of events that gives the whole ledger along these devices.

    A device without a queue gets a packet in the call that queues it (net/core/dev.c,
    __dev_queue_xmit(), v6.8); a veth whose GRO is off receives by netif_rx(). For an empty path,
    all events that may be needed are returned.
    """
    events = list(MINIMAL_EVENTS)
    inner, outer = (path[0], path[-1]) if path else (None, None)
    veths = [link for link in path[1:-1] if link and link.kind == "veth"]
    if outer is None or outer.qdisc != "noqueue":
        events += QUEUE_EVENTS
    if not all(link and link.uses_netif_rx for link in (inner, *veths, outer)):
        events += DRIVER_EVENTS
    return events


def events_needed(surveyed: Survey) -> list[str]:
    """Return the smallest set of events for a survey's path: see `minimal_events`.

    Where the path's packets are copied on their way, the events that show this are among them.
    """
    events = minimal_events(path_links(surveyed))
    if copying_device(surveyed.target, lambda hop: find_link(surveyed.namespaces, hop)):
        events += [name for name in COPY_EVENTS if name not in events]
    return events


def choose_events(
    spec: str, available: list[str], minimal: list[str]
) -> tuple[list[str], EventSet, list[str]]:
    """Return the events that a specification names, its set's name, and notes on what is missing.

    Raises TracingError when this kernel lacks one of `minimal` or of a list.
    """
    sets: dict[str, EventSet] = {"minimal": "minimal", "full": "full"}
    event_set = sets.get(spec, "list")
    wanted = {"minimal": minimal, "full": list(FULL_EVENTS)}.get(spec)
    patterns = wanted or [word.strip() for word in spec.split(",") if word.strip()]
    missing = [p for p in patterns if not any(fnmatch(event, p) for event in available)]
    chosen = [event for event in available if any(fnmatch(event, p) for p in patterns)]
    if (missing and event_set != "full") or not chosen:
        close = [name for one in missing for name in get_close_matches(one, available, 2)]
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise TracingError(
            f"this kernel has no event {', '.join(missing) or repr(spec)}",
            hint=f"{meant}`trace-cmd list -e` shows those it has; name some with --events "
            "SYSTEM:EVENT,...",
        )
    return chosen, event_set, [f"this kernel has no event {name}" for name in missing]
