"""The networks of the bench, declared as data.

All have a container `ct`, a host `ho` and a remote `rm`, each a network namespace. The container's
eth0 leads to the host's bridge br0 by the veth vct, except where a scenario says otherwise; the
host's card is the veth nic0, whose other end rem0 is the remote's card.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

REMOTE = "10.92.0.2"
REMOTE_IPV6 = "fd92::2"


@dataclass(frozen=True)
class Scenario:
    """One network, and what is right in it.

    Attributes
    ----------
    title
        What the table calls it.
    modules
        Modules that the kernel must have; without one of them the scenario is not run.
    setup
        Commands of a shell; `BASE` or another beginning comes first.
    begins
        The commands that make container, host and card.
    outbound, inbound
        The devices at which the outbound crossing ends and the inbound one begins.
    corrected
        Which pings are to be corrected: all; none, since there is no crossing to see; or any: a
        kernel may copy the packet on its way, then it is to be refused.
    added_ns
        Delays that netem adds: to the outbound crossing, to the inbound crossing, and to the rest.
    """

    title: str
    setup: str
    outbound: str = "nic0"
    inbound: tuple[str, ...] = ("nic0",)
    modules: tuple[str, ...] = ()
    begins: str = ""
    target: str = REMOTE
    corrected: Literal["all", "none", "any"] = "all"
    options: tuple[str, ...] = ("--no-baseline",)
    programs: tuple[str, ...] = ()
    added_ns: tuple[int, int, int] = field(default=(0, 0, 0))


NAMESPACES = """
for ns in ct ho rm; do ip netns add $ns; ip -n $ns link set lo up; done
ip netns exec ho sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip -n ho link add nic0 type veth peer name rem0 netns rm
"""

BASE = (
    NAMESPACES
    + """
ip -n ho link add br0 type bridge
ip -n ct link add eth0 type veth peer name vct netns ho
ip -n ho link set vct master br0
ip -n ho addr add 10.91.0.1/24 dev br0
ip -n ct addr add 10.91.0.2/24 dev eth0
ip -n ho link set vct up; ip -n ho link set br0 up; ip -n ct link set eth0 up
ip -n ct route add default via 10.91.0.1
"""
)

UP = "ip -n ho link set nic0 up; ip -n rm link set rem0 up\n"


def addresses(host: str, remote: str, last: str = "10.92.0") -> str:
    """Return the commands that give the outer devices their addresses, and the remote its route."""
    return f"""
ip -n ho addr add {last}.1/24 dev {host}; ip -n rm addr add {last}.2/24 dev {remote}
ip -n ho link set {host} up; ip -n rm link set {remote} up
ip -n rm route add 10.91.0.0/24 via {last}.1
"""


UNDERLAY = (
    UP
    + """
ip -n ho addr add 10.93.0.1/24 dev nic0; ip -n rm addr add 10.93.0.2/24 dev rem0
"""
)

_BOND = """
ip -n ho link add nic1 type veth peer name rem1 netns rm
ip -n ho link add bond0 type bond mode {mode} miimon 100
ip -n ho link set nic0 master bond0; ip -n ho link set nic1 master bond0
ip -n ho link set bond0 up
"""
ACTIVE_BACKUP = (
    _BOND.format(mode="active-backup") + "ip -n rm link set rem0 up; ip -n rm link set rem1 up\n"
)
LACP = (
    _BOND.format(mode="802.3ad lacp_rate fast")
    + """
ip -n rm link add bond9 type bond mode 802.3ad lacp_rate fast miimon 100
ip -n rm link set rem0 master bond9; ip -n rm link set rem1 master bond9
ip -n rm link set bond9 up
sleep 5
"""
)

# teamd would choose the mode and the active port; teamnl is of the same package.
TEAM = """
ip -n ho link add nic1 type veth peer name rem1 netns rm
ip -n ho link add team0 type team
ip netns exec ho teamnl team0 setoption mode activebackup
ip -n ho link set nic0 master team0; ip -n ho link set nic1 master team0
ip -n ho link set team0 up; ip -n ho link set nic0 up; ip -n ho link set nic1 up
ip -n rm link set rem0 up; ip -n rm link set rem1 up
port=$(ip netns exec ho cat /sys/class/net/nic0/ifindex)
ip netns exec ho teamnl team0 setoption activeport $port
"""


def vlan(lower: str, tag: int, remote: str) -> str:
    """Return the commands that put a VLAN on a device of the host, and on one of the remote."""
    return f"""
ip -n ho link add link {lower} name {lower}.{tag} type vlan id {tag}
ip -n rm link add link {remote} name {remote}.{tag} type vlan id {tag}
"""


def tunnel(name: str, options: str) -> str:
    """Return the commands that make a tunnel between host and remote over their cards."""
    host = options.format(local="10.93.0.1", remote="10.93.0.2")
    remote = options.format(local="10.93.0.2", remote="10.93.0.1")
    return f"""{UNDERLAY}
ip -n ho link add {name} type {host}
ip -n rm link add {name} type {remote}
""" + addresses(name, name)


# As Cilium makes it, without its programs: the first device is the host's, its peer goes inside.
NETKIT = (
    NAMESPACES
    + """
ip -n ho link add vct type netkit
ip -n ho link set nk0 netns ct; ip -n ct link set nk0 name eth0
ip -n ho addr add 10.91.0.1/24 dev vct; ip -n ct addr add 10.91.0.2/24 dev eth0
ip -n ho link set vct up; ip -n ct link set eth0 up
ip -n ct route add default via 10.91.0.1
"""
    + UP
    + addresses("nic0", "rem0")
)

_XDP_PASS = Path(__file__).with_name("xdp_pass.bpf.c")
XDP = f"""
clang -O2 -target bpf -c {shlex.quote(str(_XDP_PASS))} -o /run/xdp_pass.o
for dev in vct nic0; do ip -n ho link set dev $dev xdp{{mode}} obj /run/xdp_pass.o sec xdp; done
"""

WIREGUARD = (
    UNDERLAY
    + """
for ns in ho rm; do wg genkey >/run/$ns.key; wg pubkey </run/$ns.key >/run/$ns.pub
    ip -n $ns link add wg0 type wireguard; done
ip netns exec ho wg set wg0 private-key /run/ho.key listen-port 51820 \\
    peer $(cat /run/rm.pub) allowed-ips 0.0.0.0/0 endpoint 10.93.0.2:51820
ip netns exec rm wg set wg0 private-key /run/rm.key listen-port 51820 \\
    peer $(cat /run/ho.pub) allowed-ips 0.0.0.0/0 endpoint 10.93.0.1:51820
"""
    + addresses("wg0", "wg0")
)

# As Docker Swarm makes it: bridge and VXLAN device are in a namespace of their own.
SWARM = (
    NAMESPACES
    + UNDERLAY
    + """
ip netns add ov; ip netns add ov2
ip -n ho link add vxlan0 type vxlan id 42 dstport 4789 remote 10.93.0.2 local 10.93.0.1
ip -n ho link set vxlan0 netns ov
ip -n rm link add vxlan0 type vxlan id 42 dstport 4789 remote 10.93.0.1 local 10.93.0.2
ip -n ov link add br0 type bridge
ip -n ct link add eth0 type veth peer name veth0 netns ov
for dev in veth0 vxlan0; do ip -n ov link set $dev master br0; ip -n ov link set $dev up; done
ip -n ov link set br0 up
ip -n ct addr add 10.92.0.1/24 dev eth0; ip -n ct link set eth0 up
ip -n rm addr add 10.92.0.2/24 dev vxlan0; ip -n rm link set vxlan0 up
"""
)

_IPVLAN = (
    NAMESPACES
    + UP
    + """
ip -n ho addr add 10.92.0.1/24 dev nic0; ip -n rm addr add 10.92.0.2/24 dev rem0
ip -n ho link add link nic0 name eth0 type {kind}
ip -n ho link set eth0 netns ct; ip -n ct link set eth0 up
ip -n ct addr add {address} dev eth0; ip -n ct route add default dev eth0
ip -n rm route add 10.91.0.0/24 via 10.92.0.1
"""
)

# As Cilium does it; the program is compiled and attached in the guest.
_PROGRAM = Path(__file__).with_name("redirect_peer.bpf.c")
REDIRECT = (
    """
for ns in ct ho rm; do ip netns add $ns; ip -n $ns link set lo up; done
ip netns exec ho sysctl -qw net.ipv4.ip_forward=1
ip -n ho link add nic0 index 70 type veth peer name rem0 netns rm
ip -n ho link add vct index 71 type veth peer name eth0 netns ct
ip -n ct link set eth0 address 02:00:00:00:00:02
ip -n ho addr add 10.91.0.1/24 dev vct; ip -n ct addr add 10.91.0.2/24 dev eth0
ip -n ho link set vct up; ip -n ct link set eth0 up
ip -n ct route add default via 10.91.0.1
"""
    + UP
    + addresses("nic0", "rem0")
    + f"""
clang -O2 -target bpf -c {shlex.quote(str(_PROGRAM))} -o /run/redirect_peer.o
for at in nic0/inbound vct/outbound; do
    ip netns exec ho tc qdisc add dev ${{at%/*}} clsact
    ip netns exec ho tc filter add dev ${{at%/*}} ingress \\
        bpf direct-action object-file /run/redirect_peer.o section tc_${{at#*/}}
done
"""
)

OPENVSWITCH = (
    NAMESPACES
    + UP
    + """
mkdir -p /run/openvswitch /var/log/openvswitch /etc/openvswitch
ovsdb-tool create /run/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ip netns exec ho ovsdb-server /run/openvswitch/conf.db --detach --pidfile \\
    --remote=punix:/run/openvswitch/db.sock --log-file=/run/ovsdb.log
ip netns exec ho ovs-vsctl --no-wait init
ip netns exec ho ovs-vswitchd --detach --pidfile --log-file=/run/ovs.log
ip -n ct link add eth0 type veth peer name vct netns ho
ip netns exec ho ovs-vsctl add-br ovsbr0
ip netns exec ho ovs-vsctl add-port ovsbr0 vct
ip -n ho link set vct up; ip -n ct link set eth0 up
ip -n ho link set ovsbr0 up
ip -n ho addr add 10.91.0.1/24 dev ovsbr0; ip -n ct addr add 10.91.0.2/24 dev eth0
ip -n ct route add default via 10.91.0.1
"""
    + addresses("nic0", "rem0")
)

NAT = """
ip netns exec ho iptables -t nat -A POSTROUTING -s 10.91.0.0/24 ! -o br0 -j MASQUERADE
"""

NETEM_MS = {"ct eth0": 2, "ho vct": 3, "ho nic0": 4, "rm rem0": 1}
NETEM = "".join(
    f"ip netns exec {place.split()[0]} tc qdisc add dev {place.split()[1]} root netem "
    f"delay {delay}ms\n"
    for place, delay in NETEM_MS.items()
)


def ipv6(host: str, remote: str) -> str:
    """Return the commands that give container, outer devices and remote IPv6 addresses."""
    return f"""
ip -n ho addr add fd91::1/64 dev br0 nodad; ip -n ct addr add fd91::2/64 dev eth0 nodad
ip -n ct -6 route add default via fd91::1
ip -n ho addr add fd92::1/64 dev {host} nodad; ip -n rm addr add fd92::2/64 dev {remote} nodad
ip -n rm -6 route add fd91::/64 via fd92::1
"""


CARDS = ("nic0", "nic1")
BOND_VLAN = ACTIVE_BACKUP + vlan("bond0", 5, "rem0") + addresses("bond0.5", "rem0.5")

SCENARIOS: dict[str, Scenario] = {
    "bridge-nat": Scenario(
        "bridge and NAT, as Docker makes them",
        UP + addresses("nic0", "rem0") + NAT,
        modules=("nft_chain_nat", "nf_nat", "xt_MASQUERADE"),
    ),
    "bond-vlan": Scenario(
        "VLAN on a bond, active-backup",
        BOND_VLAN,
        outbound="bond0.5",
        inbound=CARDS,
        modules=("bonding", "8021q"),
    ),
    "bond-vlan-ipv6": Scenario(
        "the same, IPv6",
        BOND_VLAN + ipv6("bond0.5", "rem0.5"),
        outbound="bond0.5",
        inbound=CARDS,
        modules=("bonding", "8021q"),
        target=REMOTE_IPV6,
    ),
    "lacp-vlan": Scenario(
        "VLAN on a bond, 802.3ad",
        LACP + vlan("bond0", 5, "bond9") + addresses("bond0.5", "bond9.5"),
        outbound="bond0.5",
        inbound=CARDS,
        modules=("bonding", "8021q"),
    ),
    "team-vlan": Scenario(
        "VLAN on a team, active backup",
        TEAM + vlan("team0", 5, "rem0") + addresses("team0.5", "rem0.5"),
        outbound="team0.5",
        inbound=CARDS,
        modules=("team", "team_mode_activebackup", "8021q"),
        programs=("teamnl",),
    ),
    "uplink-macvtap": Scenario(
        "macvtap on a card, as uplink",
        UP
        + "ip -n ho link add link nic0 name mvt0 type macvtap mode bridge\n"
        + addresses("mvt0", "rem0"),
        outbound="mvt0",
        modules=("macvtap",),
    ),
    "uplink-bridge": Scenario(
        "bridge with an enslaved card",
        UP
        + "ip -n ho link add br1 type bridge; ip -n ho link set nic0 master br1\n"
        + addresses("br1", "rem0"),
        outbound="br1",
    ),
    "bridge-on-bond": Scenario(
        "bridge on a VLAN on a bond",
        ACTIVE_BACKUP
        + vlan("bond0", 5, "rem0")
        + "ip -n ho link add br1 type bridge; ip -n ho link set bond0.5 master br1\n"
        + "ip -n ho link set bond0.5 up\n"
        + addresses("br1", "rem0.5"),
        outbound="br1",
        inbound=CARDS,
        modules=("bonding", "8021q"),
    ),
    "vlan-in-vlan": Scenario(
        "VLAN in a VLAN",
        UP
        + vlan("nic0", 10, "rem0")
        + "ip -n ho link set nic0.10 up; ip -n rm link set rem0.10 up\n"
        + vlan("nic0.10", 20, "rem0.10")
        + addresses("nic0.10.20", "rem0.10.20"),
        outbound="nic0.10.20",
        modules=("8021q",),
    ),
    "netem": Scenario(
        "known delays, by netem",
        UP + addresses("nic0", "rem0") + NETEM,
        modules=("sch_netem",),
        added_ns=(2_000_000, 3_000_000, 5_000_000),
    ),
    "vxlan": Scenario(
        "VXLAN, as flannel makes it",
        tunnel("vxlan0", "vxlan id 42 dstport 4789 local {local} remote {remote}"),
        modules=("vxlan",),
    ),
    "vxlan-ipv6": Scenario(
        "the same, IPv6 in it",
        tunnel("vxlan0", "vxlan id 42 dstport 4789 local {local} remote {remote}")
        + ipv6("vxlan0", "vxlan0"),
        modules=("vxlan",),
        target=REMOTE_IPV6,
    ),
    "vxlan-own-namespace": Scenario(
        "VXLAN in a namespace of its own, as Docker Swarm makes it",
        "",
        begins=SWARM,
        modules=("vxlan",),
    ),
    "geneve": Scenario(
        "Geneve", tunnel("gnv0", "geneve id 42 remote {remote}"), modules=("geneve",)
    ),
    "ipip": Scenario(
        "IPIP", tunnel("tun4", "ipip local {local} remote {remote}"), modules=("ipip",)
    ),
    "gre": Scenario(
        "GRE", tunnel("gre4", "gre local {local} remote {remote}"), modules=("ip_gre",)
    ),
    "wireguard": Scenario(
        "WireGuard, up to its device",
        WIREGUARD,
        outbound="wg0",
        inbound=("wg0",),
        modules=("wireguard",),
        programs=("wg",),
    ),
    "openvswitch": Scenario(
        "Open vSwitch",
        "",
        begins=OPENVSWITCH,
        modules=("openvswitch",),
        programs=("ovs-vsctl", "ovs-vswitchd"),
    ),
    "ipvlan-l3": Scenario(
        "ipvlan, L3",
        "",
        begins=_IPVLAN.format(kind="ipvlan mode l3", address="10.91.0.2/32"),
        modules=("ipvlan",),
        corrected="none",
    ),
    "ipvlan-l2": Scenario(
        "ipvlan, L2",
        "",
        begins=_IPVLAN.format(kind="ipvlan mode l2", address="10.92.0.3/24"),
        modules=("ipvlan",),
        corrected="none",
    ),
    "macvlan": Scenario(
        "macvlan",
        "",
        begins=_IPVLAN.format(kind="macvlan mode bridge", address="10.92.0.3/24"),
        modules=("macvlan",),
        corrected="none",
    ),
    "macvtap": Scenario(
        "macvtap",
        "",
        begins=_IPVLAN.format(kind="macvtap mode bridge", address="10.92.0.3/24"),
        modules=("macvtap",),
        corrected="none",
    ),
    "netkit": Scenario("netkit, without a program", "", begins=NETKIT, modules=("netkit",)),
    "xdp-generic": Scenario(
        "XDP programs that pass packets on, generic mode, at the veth and the card",
        UP + addresses("nic0", "rem0") + XDP.format(mode="generic"),
        programs=("clang",),
        corrected="any",
    ),
    "xdp-driver": Scenario(
        "the same in driver mode, which copies packets",
        UP + addresses("nic0", "rem0") + XDP.format(mode="drv"),
        programs=("clang",),
        corrected="any",
    ),
    "redirect-peer": Scenario(
        "eBPF that redirects past the host's end of the veth pair, as Cilium's",
        "",
        begins=REDIRECT,
        modules=("cls_bpf", "sch_ingress"),
        programs=("clang",),
        corrected="any",
    ),
}

SMOKE = ("bond-vlan", "uplink-bridge", "netem")
"""What a run in continuous integration records, on one kernel."""

HERE = ("bridge-nat", "uplink-bridge", "vxlan", "vxlan-ipv6", "vxlan-own-namespace", "macvlan")
"""What most kernels can do without further modules: recorded on the running one."""
