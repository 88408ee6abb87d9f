"""What on a path hides packets from the events: eBPF programs that move them, and copies.

Such packets are refused in the analysis, ping by ping. What can be known beforehand is said before
recording.
"""

from __future__ import annotations

import shutil

from maceproc.capture import Link, PathDevice, Target
from maceproc.recording.bpf.device_programs import devices_with_links
from maceproc.recording.explorer import Explorer
from maceproc.recording.ip_answers import printed_json
from maceproc.recording.sites import Netns
from maceproc.uplinks import TUNNELS

NEEDING_ROOM = frozenset({*TUNNELS, "vlan", "macsec", "wireguard"})
"""Kinds of devices that want more room before a packet than an Ethernet card.

Seen on 6.1 and 6.12, with a probe on skb_expand_head(): VLAN, bridge on a VLAN, VXLAN, Geneve,
gretap, sit, macsec, WireGuard. No copy was made for a card, a bond, a bridge on a card, tap, tun.
"""

DRIVER_MODE = 1
"""XDP_ATTACHED_DRV, include/uapi/linux/if_link.h, v6.8.

A veth then copies a packet that has too little room before it, as a ping's has (drivers/net/veth.c,
veth_convert_skb_to_xdp_buff(), v6.8).
"""


def unseen_notes(explorer: Explorer, target: Target) -> list[str]:
    """Return what to say of a path before recording: what may hide packets on it, and why."""
    return [*_program_notes(explorer, target), *_copy_notes(explorer, target)]


def _copy_notes(explorer: Explorer, target: Target) -> list[str]:
    """Return a note where the kernel copies the IPv6 packets that it forwards.

    ip6_forward() makes room for the next device's Ethernet header only; ip6_finish_output2() wants
    what that device says it needs, and skb_expand_head() clones a packet without a socket first
    (net/ipv6/ip6_output.c, net/core/skbuff.c, v6.1). IPv4's ip_forward() makes room for all of it.
    """
    routed = _routed_device(explorer, target)
    if routed is None or ":" not in target.address:
        return []
    links = [_link(explorer, hop) for hop in (routed, *target.below)]
    if links[0] is not None and links[0].kind != "bridge":
        links = links[:1]  # a bridge needs what its ports need; of a bond that is not known
    needing = next((link for link in links if link and link.kind in NEEDING_ROOM), None)
    if needing is None:
        return []
    return [
        f"{routed}: the kernel copies IPv6 packets that it forwards there, to make room for the "
        f"header of {needing.name} ({needing.kind}): no event shows that, so pings will be refused "
        "(not seen on the outer device); IPv4 packets are not copied"
    ]


def _routed_device(explorer: Explorer, target: Target) -> PathDevice | None:
    """Return the device that the host routes packets to; None where it does not route them."""
    if len(target.path) < 3:
        return None
    veth = _link(explorer, target.path[1])
    bridge = target.path[2].dev if veth and veth.master == target.path[2].dev else ""
    after = target.path[3 if bridge else 2 :]
    first = _link(explorer, after[0]) if after else None
    return after[0] if first is not None and not (bridge and first.master == bridge) else None


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
