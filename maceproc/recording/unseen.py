"""What on a path hides packets from the events: eBPF programs that move them, and copies.

What moves past the events is refused in the analysis, ping by ping; some copies are followed
(`maceproc.following.copies`). What can be known beforehand is said before recording.
"""

from __future__ import annotations

import shutil

from maceproc.capture import Link, PathDevice, Target
from maceproc.recording.bpf.device_programs import devices_with_links
from maceproc.recording.explorer import Explorer
from maceproc.recording.ip_answers import printed_json
from maceproc.recording.sites import Netns
from maceproc.uplinks import copying_device

DRIVER_MODE = 1
"""XDP_ATTACHED_DRV, include/uapi/linux/if_link.h, v6.8.

A veth then copies a packet that has too little room before it, as a ping's has (drivers/net/veth.c,
veth_convert_skb_to_xdp_buff(), v6.8).
"""


def unseen_notes(explorer: Explorer, target: Target) -> list[str]:
    """Return what to say of a path before recording: what may hide packets on it, and why."""
    return [*_program_notes(explorer, target), *_copy_notes(explorer, target)]


def _copy_notes(explorer: Explorer, target: Target) -> list[str]:
    """Return a note where the kernel copies the packets that it forwards."""
    found = copying_device(target, lambda hop: _link(explorer, hop))
    if found is None:
        return []
    routed, needing = found
    return [
        f"{routed}: the kernel copies IPv6 packets that it forwards there, to make room for the "
        f"header of {needing.name} ({needing.kind}): requests are followed from the original to "
        "its copy by the event skb:consume_skb, and refused where that is not certain"
    ]


def _link(explorer: Explorer, hop: PathDevice) -> Link | None:
    return explorer.link(explorer.named(hop.netns), hop.dev)


def _program_notes(explorer: Explorer, target: Target) -> list[str]:
    """Return notes on the eBPF programs of the path's devices."""
    programs, copying = [], []
    linked = devices_with_links()
    for name in dict.fromkeys(hop.netns for hop in target.path):
        netns = explorer.named(name)
        hops = [hop for hop in (*target.path, *target.below) if hop.netns == name]
        filtered = tc_programs(netns, [hop.dev for hop in hops])
        by_xdp = devices_with_xdp(netns)
        for hop in hops:
            link = _link(explorer, hop)
            kinds = [filtered[hop.dev]] if hop.dev in filtered else []
            kinds += ["XDP"] if hop.dev in by_xdp else []
            kinds += ["netkit"] if link and link.kind == "netkit" else []
            kinds += linked.get(link.ifindex, []) if link and not kinds else []
            programs += [f"{hop} ({', '.join(kinds)})"] if kinds else []
            if link and link.kind == "veth" and by_xdp.get(hop.dev) == DRIVER_MODE:
                copying.append(str(hop))
    if not programs:
        return []
    return [
        *(
            f"{dev}: the veth driver copies packets for its XDP program: no event shows that, so "
            "pings will be refused"
            for dev in copying
        ),
        f"eBPF programs see packets at {', '.join(programs)}: one that redirects them "
        "(bpf_redirect_peer, as in Cilium) moves them past devices without an event; such pings "
        "will be refused, others are corrected",
    ]


def tc_programs(netns: Netns, devices: list[str]) -> dict[str, str]:
    """Return the eBPF programs that tc(8) shows on devices of a namespace, by device."""
    found = {}
    classified = _classified(netns) if shutil.which("tc") else set()
    for dev in devices:
        if dev.startswith("-") or dev not in classified:
            continue
        names = []
        for side in ("ingress", "egress"):
            answer = printed_json(netns.enter(["tc", "-json", "filter", "show", "dev", dev, side]))
            shown = [entry.get("options", {}) for entry in answer if entry.get("kind") == "bpf"]
            names += [f"tc {side} {o['bpf_name']}" for o in shown if o.get("bpf_name")]
        if names:
            found[dev] = ", ".join(dict.fromkeys(names))
    return found


def devices_with_xdp(netns: Netns) -> dict[str, int]:
    """Return the mode of the XDP program of each device that has one, however it was attached."""
    shown = printed_json(netns.enter(["ip", "-json", "link", "show"]))
    found = {str(link.get("ifname")): link.get("xdp") for link in shown}
    return {name: int(xdp.get("mode", 0)) for name, xdp in found.items() if isinstance(xdp, dict)}


def _classified(netns: Netns) -> set[str]:
    """Return the devices of a namespace that filters can be attached to."""
    answer = printed_json(netns.enter(["tc", "-json", "qdisc", "show"]))
    return {str(q.get("dev")) for q in answer if q.get("kind") in ("clsact", "ingress")}
