import ipaddress
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from maceproc.errors import TargetError
from maceproc.recording.explorer import Explorer
from maceproc.recording.lab import Lab
from maceproc.recording.sites import Netns, Site, here_site, lab_site, netns_site, pid_site
from maceproc.recording.survey import Survey, _covers, survey

pytestmark = pytest.mark.kernel

WAY_OUT = "container:eth0 host:veth1 host:br0 host:eth0"
REMOTES = ("192.0.2.2", "fd6d:6163:6500:2::2")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=2) as lab:
        yield lab


def plain(devices: str) -> str:
    """Take the lab's own part out of the names of its ports: veth3fa21 is veth1."""
    return re.sub(r"veth[0-9a-f]{4}(?=\d)", "veth", devices)


def path(found: Survey) -> str:
    return plain(" ".join(map(str, found.target.path)))


@pytest.mark.parametrize("address", REMOTES)
def test_path_out_of_the_lab(lab: Lab, address: str) -> None:
    found = survey(lab_site(lab), address)
    assert path(found) == WAY_OUT
    assert found.host is not None
    assert found.host.name == "host"
    assert found.target.nat
    assert found.target.notes == []


def test_lab_sidecar_names_every_peer(lab: Lab) -> None:
    found = survey(lab_site(lab), REMOTES[0])
    peers = {
        f"{space.name}:{plain(link.name)}": link.peer_netns
        for space in found.namespaces
        for link in space.links
        if link.kind == "veth"
    }
    assert peers == {
        "container:eth0": "host",
        "container2:eth0": "host",
        "host:veth1": "container",
        "host:veth2": "container2",
        "host:eth0": "remote",
        "remote:wire0": "host",
    }


def test_lab_sidecar_describes_links_addresses_routes_and_nat(lab: Lab) -> None:
    spaces = {space.name: space for space in survey(lab_site(lab), REMOTES[0]).namespaces}
    links = {plain(link.name): link for link in spaces["host"].links}
    assert links["veth1"].master == "br0"
    assert links["br0"].kind == "bridge"
    assert links["eth0"].mtu == 1500
    assert "172.17.0.2/16" in spaces["container"].addresses["eth0"]
    assert "default via 172.17.0.1 dev eth0" in spaces["container"].routes
    assert any("MASQUERADE" in rule for rule in spaces["host"].nat)
    assert len({space.inode for space in spaces.values()}) == 4


def test_a_namespace_by_name_finds_its_host_alone(lab: Lab) -> None:
    name = lab.netns("container")
    found = survey(netns_site(name), REMOTES[0])
    host = lab.netns("host")
    assert path(found) == f"{name}:eth0 {host}:veth1 {host}:br0 {host}:eth0"
    assert [space.name for space in found.namespaces] == [name, host]


def test_a_process_gives_its_namespace(lab: Lab) -> None:
    inside = ["nsenter", f"--net=/run/netns/{lab.netns('container2')}", "--", "sleep", "60"]
    with subprocess.Popen(inside) as process:
        try:
            while process.pid and not is_sleep(process.pid):
                pass
            found = survey(pid_site(process.pid), REMOTES[0])
        finally:
            process.kill()
    assert [plain(hop.dev) for hop in found.target.path] == ["eth0", "veth2", "br0", "eth0"]
    assert found.target.path[0].netns == f"pid {process.pid}"


def is_sleep(pid: int) -> bool:
    with open(f"/proc/{pid}/comm") as comm:  # noqa: PTH123
        return comm.read().strip() == "sleep"


@pytest.mark.parametrize("address", ["172.17.0.3", "172.17.0.1", "fd6d:6163:6500:17::3"])
def test_no_outer_device_on_the_way_to_the_bridge(lab: Lab, address: str) -> None:
    found = survey(lab_site(lab), address)
    assert path(found) == "container:eth0 host:veth1 host:br0"
    assert found.host is None
    assert len(found.target.notes) == 1
    assert found.target.notes[0].startswith(f"{address} is reached by br0: no outer device")
    assert not found.target.crossing


def test_no_route_is_a_note(lab: Lab) -> None:
    found = survey(lab_site(lab), "203.0.113.1")  # the host has no default route
    assert path(found) == "container:eth0 host:veth1 host:br0"
    assert found.target.notes == ["host has no route to 203.0.113.1"]


def test_the_outer_device_can_be_named(lab: Lab) -> None:
    assert path(survey(lab_site(lab), "203.0.113.1", outer="eth0")) == WAY_OUT
    with pytest.raises(TargetError, match=r"no device 'eth9' in host.*veth\w+1, .*br0"):
        survey(lab_site(lab), "203.0.113.1", outer="eth9")


def test_a_named_device_that_is_not_there_is_refused_where_the_path_ends_before_it(
    lab: Lab,
) -> None:
    native = here_site("host")
    for site, where in ((native, "host"), (lab_site(lab), "any of the namespaces")):
        address = "127.0.0.1" if site is native else "172.17.0.2"  # its own: no device is left by
        with pytest.raises(TargetError, match=rf"^no device 'eth9' in {where}.* ha(s|ve) .*lo"):
            survey(site, address, outer="eth9")


def test_a_native_ping_leaves_by_the_named_device() -> None:
    assert path(survey(here_site("host"), "203.0.113.1", outer="lo")) == "host:lo"


def test_policy_routing_decides_by_the_packet_s_source(lab: Lab) -> None:
    host = lab.netns("host")
    commands = f"""
        ip -n {host} link add vpn0 type veth peer name vpn1
        ip -n {host} link set vpn0 up
        ip -n {host} route add 192.0.2.0/24 dev vpn0 table 77
        ip -n {host} rule add from 172.17.0.0/16 table 77
    """
    undo = f"ip -n {host} rule del table 77; ip -n {host} link del vpn0"
    subprocess.run(["sh", "-ec", commands], check=True)
    try:
        found = survey(lab_site(lab), REMOTES[0])
    finally:
        subprocess.run(["sh", "-c", undo], check=True)
    assert path(found) == "container:eth0 host:veth1 host:br0 host:vpn0"


def test_macvlan_leads_straight_to_its_parent(lab: Lab) -> None:
    space = f"{lab.name}-mac"
    commands = f"""
        ip netns add {space}
        ip -n {lab.netns("host")} link add mac0 netns {space} link eth0 type macvlan
        ip -n {space} link set mac0 up
        ip -n {space} address add 192.0.2.7/24 dev mac0
    """
    try:
        subprocess.run(["sh", "-ec", commands], check=True)
        found = survey(netns_site(space), REMOTES[0])
    finally:
        subprocess.run(["ip", "netns", "delete", space], check=True)
    assert path(found) == f"{space}:mac0 {lab.netns('host')}:eth0"
    assert "is a macvlan on eth0" in found.target.notes[0]


@pytest.mark.parametrize(
    ("rule", "translates"),
    [
        ("-A POSTROUTING -s 172.17.0.0/16 ! -o br0 -j MASQUERADE", True),
        ("-A POSTROUTING -s 10.0.0.0/8 -j SNAT --to-source 192.0.2.1", False),
        ("-A POSTROUTING -o eth0 -j MASQUERADE", True),
        ("-A POSTROUTING ! -s 10.0.0.0/8 -j MASQUERADE", True),
        ("ip saddr 172.17.0.2 counter masquerade", True),
        ("ip saddr != 10.0.0.0/8 masquerade", True),
        ("ip6 saddr fd00::/8 masquerade", False),
    ],
)
def test_which_rules_translate_a_source(rule: str, translates: bool) -> None:
    assert _covers(rule, [ipaddress.ip_address("172.17.0.2")]) is translates


def test_a_native_ping_has_one_hop(lab: Lab) -> None:
    found = survey(here_site(), "127.0.0.1")
    assert path(found) == "host:lo"
    assert found.host is None
    assert not found.target.nat


def test_a_process_of_the_host_crosses_nothing() -> None:
    found = survey(pid_site(os.getpid()), "")
    assert len(found.target.path) <= 1
    assert found.host is None
    if found.target.path:
        assert "in the network namespace of maceproc itself" in found.target.notes[0]


def test_a_container_called_host_is_not_taken_for_the_host(lab: Lab) -> None:
    alias = Netns("host", f"/run/netns/{lab.netns('container')}")
    host = Netns("host", f"/run/netns/{lab.netns('host')}")
    explorer = Explorer([alias])
    link = explorer.link(alias, "eth0")
    assert link is not None
    found = explorer.peer(alias, link)
    assert found is not None
    assert found[0].inode == host.inode
    assert found[0].name != alias.name


def test_a_namespace_that_has_ended_is_named() -> None:
    with pytest.raises(TargetError, match=r"gone: .*/run/netns/nosuch: No such file"):
        survey(Site("netns", "gone", Netns("gone", "/run/netns/nosuch")), "")


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(TargetError, match="no network namespace 'nosuch'"):
        netns_site("nosuch")
    with pytest.raises(TargetError, match="no process 4194305"):  # above PID_MAX_LIMIT
        pid_site(4194305)
    with pytest.raises(TargetError, match="lab 'nosuch' is not up"):
        lab_site(Lab("nosuch"))


def test_only_the_network_namespace_of_a_process_is_entered(lab: Lab) -> None:
    """Also where the process has files, mounts and processes of its own."""
    netns = f"/run/netns/{lab.netns('container')}"
    argv = ["nsenter", f"--net={netns}", "unshare", "--mount", "--pid", "--fork", "--uts",
            "--ipc", "--", "sleep", "60"]  # fmt: skip
    with subprocess.Popen(argv, process_group=0) as other:
        try:
            sleep = inner_process(other.pid)
            entrance = pid_site(sleep).entrance
            said = subprocess.check_output(entrance.enter(["readlink", *NAMESPACES]), text=True)
        finally:
            os.killpg(other.pid, signal.SIGKILL)
    net, *others = said.split()
    assert net == f"net:[{Path(netns).stat().st_ino}]"
    assert others == [str(Path(path).readlink()) for path in NAMESPACES[1:]]


NAMESPACES = [f"/proc/self/ns/{kind}" for kind in ("net", "mnt", "pid", "uts", "ipc", "user")]


def inner_process(pid: int) -> int:
    """Wait for the sleep that a process starts; return its pid."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found and Path(f"/proc/{found[0]}/comm").read_text() == "sleep\n":
            return int(found[0])
    raise AssertionError("it did not start")


@pytest.mark.parametrize(
    "name", [b"b\xe9d", b"[red]", b"\x1b[31mx", b"-k", b'a"b\\x41', b"\xe2\x80\xaex"]
)
def test_devices_of_any_name(name: bytes) -> None:
    netns = f"mptest-names-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        ip = ["ip", "-n", netns]
        subprocess.run([*ip, "link", "add", "name", name, "type", "veth", "peer", "p"], check=True)
        for words in (["link", "set", name, "up"], ["link", "set", "p", "up"],
                      ["route", "add", "default", "dev", name]):  # fmt: skip
            subprocess.run([*ip, *words], check=True)
        found = survey(netns_site(netns), "")
    finally:
        subprocess.run(["ip", "netns", "delete", netns], check=True)
    assert found.target.path[0].dev == name.decode("utf-8", "backslashreplace")
    msgspec.json.encode(found.target)
    msgspec.json.encode(found.namespaces)


def test_names_of_namespaces(tmp_path: Path) -> None:
    for name in ("a b", "[b]", "x\x1b[31m", "\udcff", "\u202e"):
        path = tmp_path / name
        path.touch()
        site = netns_site(str(path))
        assert site.inside.name.isprintable()
        msgspec.json.encode((site.name, site.inside.name))


def test_a_rule_whose_comment_looks_like_a_source() -> None:
    assert _covers('-A POSTROUTING -m comment --comment "-s :::: x" -j MASQUERADE', [])
