"""Which places are there: what came, what left, and what came back as something else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from maceproc.capture import Link
from maceproc.errors import TargetError, TracingError
from maceproc.recording.bpf import memory
from maceproc.recording.bpf.devices import devices_beneath, inner_device, outer_device
from maceproc.recording.bpf.echo_tracer import Watched, _table
from maceproc.recording.engines import Container
from maceproc.recording.sites import pid_site
from maceproc.watching import places as places_module
from maceproc.watching.places import Places, Wanted, _namespaces_in_use

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NAME = f"maceproc-test-{os.getpid()}"


@contextmanager
def namespace() -> Iterator[int]:
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    try:
        yield Path("/run/netns", NAME).stat().st_ino
    finally:
        subprocess.run(["ip", "netns", "delete", NAME], check=True)


@needs_root
def test_a_namespace_that_is_made_again_is_another_place() -> None:
    places = Places(Wanted(netns=(NAME,)))
    assert places.find() == {}
    assert len(places.notes) == 1
    with namespace() as first:
        before = places.find()
        assert set(before) == {first}
        assert places.find() == before
    assert places.find() == {}
    with namespace() as second:
        after = places.find()
    # The kernel may give the same number again.
    assert (second, after[second].life) != (first, before[first].life)
    assert f"{NAME} is there again" in places.notes


def test_an_engine_that_did_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no namespace comes or goes: its containers may have gone on without it."""
    answers, clock = [TargetError("docker: no answer")] * 3, [100.0]

    def running(engine: str) -> list[str]:
        if answers:
            raise answers.pop()
        return []

    monkeypatch.setattr(places_module, "ENGINES", ("docker",))
    monkeypatch.setattr(places_module, "_running", running)
    monkeypatch.setattr(places_module, "_namespaces_in_use", lambda: {1: 1})
    monkeypatch.setattr(places_module, "SETTLING_S", (0.0,))
    monkeypatch.setattr(places_module.shutil, "which", lambda engine: engine)
    monkeypatch.setattr(places_module.time, "monotonic", lambda: clock[0])
    places = Places(Wanted(every_container=True))
    asked = []
    for _ in range(60):
        before = len(answers)
        places.find()
        asked += [clock[0] - 100] * (before - len(answers))
        clock[0] += 1
    assert asked == [0, 2, 6]
    assert places.notes[-1] == "docker is there again"
    assert len(places.notes) == 2


def test_a_container_whose_engine_fails_is_followed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is what is told; only what has ended is told to be gone."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        container = Container("docker", "0" * 64, "web", process.pid)
        site = replace(pid_site(process.pid), container=container)
        inode, changes = site.inside.inode, count()
        answers = True

        def find(name: str) -> Container:
            if not answers:
                raise TargetError(f"no container {name!r} (docker: no answer)")
            return container

        monkeypatch.setattr(places_module, "find_container", find)
        monkeypatch.setattr(places_module, "container_site", lambda _: site)
        monkeypatch.setattr(places_module, "_namespaces_in_use", lambda: {inode: next(changes)})
        places = Places(Wanted(containers=("web",)))
        found = places.find()
        assert set(found) == {inode}
        answers = False
        assert places.find() == found
        answers = True
        assert places.find() == found
        process.communicate()
    answers = False
    assert places.find() == {}
    assert places.notes == [
        "no container 'web' (docker: no answer); what is followed is followed on",
        "web: there is an answer again",
        "no container 'web' (docker: no answer); it is watched as soon as it is there",
    ]


@needs_root
def test_a_process_tells_its_namespace_as_long_as_it_lives() -> None:
    argv = ["unshare", "--net", sys.executable, "-c", "print(1, flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        places = Places(Wanted(pids=(process.pid,)))
        found = places.find()
        (inode,) = found
        assert _namespaces_in_use()[inode] == process.pid
        assert found[inode].life.split()[0] == str(process.pid)
        process.communicate(b"\n")
    assert places.find() == {}


def link(name: str, ifindex: int, kind: str, **more: object) -> Link:
    return Link(name=name, ifindex=ifindex, kind=kind, **more)  # type: ignore[arg-type]


def test_no_more_tracepoints_than_a_device_needs() -> None:
    off, on = {"generic-receive-offload": False}, {"generic-receive-offload": True}
    veth = link("eth0", 2, "veth", offloads=off, qdisc="noqueue")
    assert inner_device(1, veth).roles == memory.INNER_QUEUED | memory.INNER_RX
    assert outer_device(1, veth).roles == memory.OUTER_QUEUED | memory.OUTER_RX
    tap = link("tap0", 3, "tun", qdisc="fq_codel")
    queued = memory.OUTER_QUEUED | memory.OUTER_SENT
    assert outer_device(1, tap).roles == queued | memory.OUTER_RECEIVE
    unknown = link("eth0", 2, "veth", offloads=on, qdisc="noqueue")
    assert inner_device(1, unknown).roles == (
        memory.INNER_QUEUED | memory.INNER_RX | memory.INNER_RECEIVE
    )


def test_packets_of_a_vlan_on_a_bond_come_in_by_the_cards() -> None:
    cards = [link("eno1", 2, "", master="bond0"), link("eno2", 3, "", master="bond0")]
    bond = link("bond0", 4, "bond")
    vlan = link("bond0.7", 5, "vlan", peer_ifindex=4)
    other = link("eno3", 6, "")
    found = devices_beneath(1, [*cards, bond, vlan, other], vlan)
    assert {device.ifindex for device in found} == {2, 3, 4}
    assert all(not device.roles & memory.OUTER_QUEUED for device in found)
    assert devices_beneath(1, [*cards, bond, vlan, other], other) == set()


def test_every_device_is_found_in_its_chain() -> None:
    many = [Watched(4026531840 + n % 7, n, 1, n) for n in range(1, 1500)]
    table, chains = _table([*many, many[3]._replace(roles=2)])
    for device in many:
        place = chains[device.ifindex % 256]
        while (table[place].netns, table[place].ifindex) != (device.netns, device.ifindex):
            place = table[place].next
            assert place
        assert table[place].roles == (3 if device == many[3] else 1)
        assert table[place].container == device.container
    with pytest.raises(TracingError, match="too many devices"):
        _table([Watched(4026531840, number, 1) for number in range(5000)])
    with pytest.raises(TracingError, match="too many devices"):
        _table([Watched(number, 7, 1) for number in range(40)])
