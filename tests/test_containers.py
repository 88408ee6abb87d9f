"""Real containers of a real engine, recorded and analyzed."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import maceproc
from maceproc.capture import Sidecar
from maceproc.capture_files import load_sidecar, sidecar_path
from tests.engine import BUSYBOX_IMAGE, IMAGE, Engine, Podman

pytestmark = pytest.mark.kernel

REMOTE = "192.0.2.2"
REMOTE_IPV6 = "fd6d:6163:6500:2::2"
PING = ("ping", "-i", "0.005", "-c", "20")


@pytest.fixture(scope="module")
def web(engine: Engine) -> Iterator[str]:
    """A container on the default bridge."""
    with engine.container("web") as name:
        yield name


def record(engine: Engine, trace: Path, *words: str, env: dict[str, str] | None = None) -> Sidecar:
    """Record on the engine's host; return the sidecar."""
    done = engine.maceproc("record", "--rounds", "1", "-o", trace, "--force", *words, env=env)
    assert done.returncode == 0, done.stderr
    return load_sidecar(sidecar_path(trace))


def refused(engine: Engine, tmp_path: Path, *words: str) -> str:
    """Record what cannot be recorded; return the one line that says why."""
    done = engine.maceproc("record", "--rounds", "1", "-o", tmp_path / "refused.dat", *words)
    assert done.returncode
    assert done.stderr.startswith("maceproc: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "refused.dat").exists()
    return done.stderr


def analyze(engine: Engine, trace: Path) -> dict[str, Any]:
    done = engine.maceproc("analyze", "--json", trace)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_corrected(engine: Engine, trace: Path, pings: int = 20) -> None:
    """Every traced ping of the container is corrected, by a crossing that took time."""
    rtts = [r for r in analyze(engine, trace)["rtts"] if r["arm"] == "container traced"]
    assert [(r["status"], r["reason"]) for r in rtts] == [("corrected", "")] * pings
    assert all(r["outbound_ns"] > 0 and r["inbound_ns"] > 0 for r in rtts)
    assert all(r["bare_metal_rtt_ns"] < r["rtt_ns"] for r in rtts)


def assert_left_alone(engine: Engine, trace: Path, sidecar: Sidecar) -> None:
    """No ping is corrected, and nobody calls that a problem."""
    analysis = analyze(engine, trace)
    rtts = [r for r in analysis["rtts"] if r["arm"] == "container traced"]
    assert rtts
    assert {(r["status"], r["reason"]) for r in rtts} == {
        ("uncrossed", "its path has no crossing that can be seen")
    }
    assert all(r["bare_metal_rtt_ns"] is None for r in rtts)
    assert "no crossing" in {finding["finding"] for finding in analysis["findings"]}
    assert "problem" not in {finding["level"] for finding in analysis["findings"]}
    assert "RTTs stay as ping prints them" in " ".join(sidecar.target.notes)


def devices(sidecar: Sidecar) -> str:
    """The path, with the engine's random names made plain."""
    return re.sub(r"\b(veth|br-)[0-9a-f]{7,12}\b", r"\1N", sidecar.target.route)


def notes(sidecar: Sidecar) -> list[str]:
    """What was noted, except that somebody else traces on this machine."""
    noted = (*sidecar.target.notes, *sidecar.notes)
    return [note for note in noted if "by somebody else" not in note]


def sender(trace: Path, sidecar: Sidecar) -> set[int]:
    """The pids of all pings that sent anything in traced runs, as trace-cmd reads the file."""
    argv = ["trace-cmd", "report", "-t", str(trace)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    sends = re.findall(r"ping-(\d+)\s+\[\d+\].*: sys_enter_sendto:", text)
    return {int(pid) for pid in sends}


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The default bridge


def test_default_bridge_with_nat(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    made = record(engine, trace, "--container", web, "--", *PING, REMOTE)
    assert devices(made) == "web:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
    assert [run.arm for run in made.runs] == [
        "container traced", "container untraced", "native traced", "native untraced",
    ]  # fmt: skip
    assert made.target.kind == "container"
    assert notes(made) == []
    assert_corrected(engine, trace)


def test_the_pid_is_the_one_in_the_events(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    made = record(engine, trace, "--container", web, "--no-baseline", "--", *PING, REMOTE)
    assert sender(trace, made) >= {made.runs[0].pid}


def test_the_path_is_told_before_anything_runs(engine: Engine, web: str, tmp_path: Path) -> None:
    done = engine.maceproc(
        "record", "--rounds", "1", "-o", tmp_path / "a.dat", "--container", web, "--", *PING, REMOTE
    )
    assert re.match(r"path: web:eth0 -> host:veth\w+ -> docker0 -> \(NAT\) -> eth0\n", done.stderr)


def native_finding(engine: Engine, trace: Path) -> tuple[str, str]:
    """The level and the words of what is found about the native runs' program."""
    findings = analyze(engine, trace)["findings"]
    (found,) = (finding for finding in findings if finding["finding"] == "native program")
    return found["level"], found["message"]


def test_the_native_control_is_this_machine_s_ping(
    engine: Engine, web: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.dat"
    done = engine.maceproc(
        "record", "--rounds", "1", "-o", trace, "--container", web, "--", *PING, REMOTE
    )
    assert done.returncode == 0, done.stderr
    native = load_sidecar(sidecar_path(trace)).native
    assert native is not None
    assert (native.by, native.program) == ("host", shutil.which("ping"))
    assert native.same_file  # it was copied into the image
    assert "iputils" in native.version
    assert native.version == native.container_version
    assert f"native: this machine's {native.program} ({native.version})" in done.stderr
    assert native_finding(engine, trace) == ("note", f"the native runs are of {native.sentence}")


def test_the_native_control_of_another_program_is_told(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("tiny", image=BUSYBOX_IMAGE) as tiny:
        before = engine.docker("ps", "--all", "--quiet")
        ping = ("--container", tiny, "--", "ping", "-c", "3", "-A", REMOTE)
        made = record(engine, trace, *ping)
        assert [("seq=0" in run.output) for run in made.runs] == [True, True, False, False]
        level, message = native_finding(engine, trace)
        assert level == "warning"
        assert "not the file that the container has (BusyBox" in message
        made = record(engine, trace, "--native", "image", *ping)
        for run in made.runs:
            assert run.argv == ["ping", "-c", "3", "-A", REMOTE]  # this one knows no -D
            assert "seq=0" in run.output  # and counts from 0
        assert made.runs[-1].arm == "native untraced"
        assert_corrected(engine, trace, pings=3)
        assert native_finding(engine, trace)[0] == "note"
        assert engine.docker("ps", "--all", "--quiet") == before


def test_what_this_machine_s_programs_cannot_stand_for(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("tiny", image=BUSYBOX_IMAGE) as tiny:
        sleep = ("sh", "-c", "sleep 0.1", REMOTE)  # a word that tells the path
        for words, reason in [
            (sleep, "sh is not a ping, so this machine's sh is not run"),
            # To this machine's ping, a pattern consists of digits.
            (("ping", "-c", "3", "-p", "0x1f", REMOTE), "cannot run these words"),
        ]:
            made = record(engine, trace, "--container", tiny, "--", *words)
            assert [run.arm for run in made.runs] == ["container traced", "container untraced"]
            assert reason in made.notes[0]
            assert made.native is None
        made = record(engine, trace, "--container", tiny, "--native=host", "--", *sleep)
        assert made.runs[-1].arm == "native untraced"


def test_published_ports_change_nothing(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("server", "--publish", "8080:80") as server:
        made = record(engine, trace, "--container", server, "--", *PING, REMOTE)
    assert devices(made) == "server:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
    assert_corrected(engine, trace)


def test_ipv6(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    made = record(engine, trace, "--container", web, "--", *PING, REMOTE_IPV6)
    assert devices(made) == "web:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
    assert made.runs[-1].arm == "native untraced"
    assert_corrected(engine, trace)


def test_two_containers_ping_at_once(engine: Engine, web: str, tmp_path: Path) -> None:
    ping = ("--", "ping", "-i", "0.005", "-c", "200", REMOTE)
    with engine.container("db") as db:
        recordings = {
            name: subprocess.Popen(
                engine.maceproc_argv("record", "--rounds", "1", "--no-baseline",
                                     "--container", name, "-o", tmp_path / f"{name}.dat", *ping),
                env=engine.env, stderr=subprocess.PIPE, text=True,
            )
            for name in (web, db)
        }  # fmt: skip
        errors = [recording.communicate()[1] for recording in recordings.values()]
    assert all(recording.returncode == 0 for recording in recordings.values()), errors
    both = {name: maceproc.analyze(tmp_path / f"{name}.dat") for name in recordings}
    first, second = (analysis.capture.sidecar.runs[0] for analysis in both.values())
    assert min(first.end_ns, second.end_ns) > max(first.start_ns, second.start_ns)
    for analysis in both.values():
        own = analysis.capture.sidecar.target.path[1].dev
        corrected = analysis.rtts[analysis.rtts["status"] == "corrected"]
        # The other's packets are as long as ours, to the same address, on devices of one name.
        assert len(corrected) >= 0.99 * len(analysis.rtts)
        journeys = [*corrected["outbound_journey"], *corrected["inbound_journey"]]
        followed = analysis.crossings[analysis.crossings["journey"].isin(journeys)]
        assert set(followed["peer"]) == {own}


def test_ping_over_a_datagram_and_over_a_raw_socket(engine: Engine, tmp_path: Path) -> None:
    datagram = ("--cap-drop=ALL", "--sysctl=net.ipv4.ping_group_range=0 2147483647")
    raw = ("--cap-drop=ALL", "--cap-add=NET_RAW", "--sysctl=net.ipv4.ping_group_range=1 0")
    for kind, options in (("icmp", datagram), ("raw", raw)):
        trace = tmp_path / f"{kind}.dat"
        with engine.container(kind, *options) as name:
            record(engine, trace, "--container", name, "--", *PING, REMOTE)
            assert socket_of_ping(engine, name) == kind
        assert_corrected(engine, trace)


def socket_of_ping(engine: Engine, container: str) -> str:
    """Return the kind of socket that a container's ping uses: icmp (datagram) or raw."""
    engine.docker("exec", "--detach", container, "ping", "-c", "100", REMOTE)
    net = Path(f"/proc/{engine.pid(container)}/net")
    sockets: list[str] = []
    while not sockets:
        # The first line is a heading.
        sockets = [k for k in ("icmp", "raw") if len((net / k).read_text().splitlines()) > 1]
    return " ".join(sockets)


# Other networks


SERVICE = (
    "--label",
    "com.docker.compose.project=shop",
    "--label",
    "com.docker.compose.service=web",
)


def test_the_container_of_a_compose_service(engine: Engine, tmp_path: Path) -> None:
    trace, ping = tmp_path / "trace.dat", ("--", *PING, REMOTE)
    with engine.container("shop-web-1", *SERVICE) as first:
        made = record(engine, trace, "--no-baseline", "--compose", "web", *ping)
        assert (made.target.kind, made.target.name) == ("container", first)
        assert_corrected(engine, trace)
        record(engine, trace, "--no-baseline", "--compose", "shop/web", "--host-ping", *ping)
        said = refused(engine, tmp_path, "--compose", "other/web", *ping)
        assert "no container of service 'other/web' runs" in said
        with engine.container("shop-web-2", *SERVICE):
            said = refused(engine, tmp_path, "--compose", "web", *ping)
            assert "service 'web' has 2 containers; --container takes one: shop-web-" in said
        other = ("--label", "com.docker.compose.project=test", *SERVICE[2:])
        with engine.container("test-web-1", *other):
            said = refused(engine, tmp_path, "--compose", "web", *ping)
            assert "2 projects have a service 'web'; give one with its project: shop/web" in said
    said = refused(engine, tmp_path, "--", "docker", "compose", "exec", "web", *PING, REMOTE)
    assert "--compose [PROJECT/]SERVICE" in said


def test_user_defined_bridge(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with (
        engine.network("shop") as shop,
        engine.container("cart", "--network", shop) as cart,
        engine.container("till", "--network", shop),
    ):
        made = record(engine, trace, "--container", cart, "--", *PING, REMOTE)
        assert devices(made) == "cart:eth0 -> host:vethN -> br-N -> (NAT) -> eth0"
        assert_corrected(engine, trace)
        # The engine resolves the names of containers for those on the network alone.
        made = record(engine, trace, "--container", cart, "--", *PING, "till")
        assert devices(made) == "cart:eth0 -> host:vethN -> br-N"
        assert made.target.address.startswith("172.29.")
        assert "no native ping: no outer device is known" in notes(made)
        assert_left_alone(engine, trace, made)


def test_a_container_behind_a_second_network(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with (
        engine.network("aside", "--internal", "--subnet=172.29.200.0/24") as aside,
        engine.container("both") as both,
        engine.container("far", "--network", aside, "--ip=172.29.200.7"),
    ):
        engine.docker("network", "connect", aside, both)
        try:
            made = record(engine, trace, "--container", both, "--", *PING, "172.29.200.7")
            assert devices(made) == "both:eth1 -> host:vethN -> br-N"
            assert_left_alone(engine, trace, made)
            made = record(engine, trace, "--container", both, "--", *PING, REMOTE)
            assert devices(made) == "both:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
            assert_corrected(engine, trace)
        finally:
            engine.docker("network", "disconnect", "--force", aside, both)


def test_host_network(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    engine.shell(f"ping -c 1 {REMOTE}")  # so that the first packet waits for no address
    with engine.container("bare", "--network", "host") as bare:
        made = record(engine, trace, "--container", bare, "--", *PING, REMOTE)
    assert devices(made) == "bare:eth0"
    assert [run.arm for run in made.runs] == ["native traced", "native untraced"]
    assert notes(made) == [
        "bare uses the host's network: nothing is crossed, its RTTs are native ones"
    ]
    traced = [r for r in analyze(engine, trace)["rtts"] if r["arm"] == "native traced"]
    assert {r["status"] for r in traced} == {"native"}
    assert all(0 < r["wire_rtt_ns"] < r["rtt_ns"] for r in traced)


def test_macvlan(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    options = ("--driver=macvlan", "--opt=parent=eth0", "--subnet=192.0.2.0/24")
    with (
        engine.network("wire", *options, "--gateway=192.0.2.2") as wire,
        engine.container("mac", "--network", wire, "--ip=192.0.2.77") as mac,
    ):
        made = record(engine, trace, "--container", mac, "--", *PING, REMOTE)
    assert devices(made) == "mac:eth0 -> host:eth0"
    assert "mac:eth0 is a macvlan on eth0" in made.target.notes[0]
    assert made.runs[-1].arm == "native untraced"
    assert_left_alone(engine, trace, made)


def test_no_network(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("alone", "--network", "none") as alone:
        done = engine.maceproc(
            "record", "--rounds", "1", "-o", trace, "--container", alone, "--", *PING, REMOTE
        )
        assert done.returncode == 1
        assert "alone has no route to 192.0.2.2" in done.stderr
        made = record(engine, trace, "--container", alone, "--", *PING, "127.0.0.1")
    assert "127.0.0.1 is alone itself" in made.target.notes[0]
    assert_left_alone(engine, trace, made)


def test_the_network_of_another_container(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("sidecar", "--network", f"container:{web}") as sidecar:
        made = record(engine, trace, "--container", sidecar, "--", *PING, REMOTE)
    assert devices(made) == "sidecar:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
    assert_corrected(engine, trace)


# What the image lacks, and what ends early


def test_without_a_ping_the_host_s_can_be_used(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("tiny", image=BUSYBOX_IMAGE) as tiny:
        asked = ("--container", tiny, "--", "fping", "-c", "3", REMOTE)
        why = refused(engine, tmp_path, "--container", tiny, "--", "ping6", "-c", "3", REMOTE_IPV6)
        assert "ping6: no such program in container 'tiny'; --host-ping runs" in why
        made = record(engine, trace, "--host-ping", *asked[:3], *PING, REMOTE)
    assert made.runs[0].argv[:2] == ["ping", "-D"]  # iputils: the host's
    assert made.runs[-1].arm == "native untraced"
    assert_corrected(engine, trace)


def test_a_container_killed_during_recording(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("doomed") as doomed:
        ping = ("--", "ping", "-i", "0.01", "-c", "3000", REMOTE)
        argv = engine.maceproc_argv(
            "record", "--rounds", "1", "-o", trace, "--container", doomed, *ping
        )
        with subprocess.Popen(argv, env=engine.env, stderr=subprocess.PIPE, text=True) as recording:
            wait_until(lambda: "ping -D" in engine.docker("top", doomed))
            time.sleep(0.5)
            engine.docker("kill", doomed)
            _, said = recording.communicate()
    assert recording.returncode == 68
    assert f"container 'doomed' ended during the recording; 1 run kept in {trace}" in said
    rtts = analyze(engine, trace)["rtts"]
    assert len(rtts) > 10
    assert {r["status"] for r in rtts[:10]} == {"corrected"}


# Commands that are the engine's own


def test_docker_exec(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    made = record(engine, trace, "--", "docker", "exec", "-it", "-e", "A=1", web, *PING, REMOTE)
    assert devices(made) == "web:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
    assert [run.arm for run in made.runs] == [
        "container traced", "container untraced", "native traced", "native untraced",
    ]  # fmt: skip
    assert made.runs[0].argv == ["ping", "-D", *PING[1:], REMOTE]
    assert sender(trace, made) >= {made.runs[0].pid}
    assert_corrected(engine, trace)


def test_docker_run(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    before = engine.docker("ps", "--all", "--quiet")
    ping = ("ping", "-i", "0.02", "-c", "20")  # long enough for its pid to be seen
    words = ("docker", "run", "-it", "--init", "--name", "once", IMAGE, *ping, REMOTE)
    made = record(engine, trace, "--rounds", "2", "--", *words)
    assert devices(made) == "once:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
    arms = ["container traced", "container untraced", "native traced", "native untraced"]
    assert [run.arm for run in made.runs] == [*arms, *reversed(arms)]
    assert made.runs[0].argv == ["ping", "-D", *ping[1:], REMOTE]
    assert sender(trace, made) >= {run.pid for run in made.runs if run.traced}
    assert_corrected(engine, trace, pings=40)
    assert engine.docker("ps", "--all", "--quiet") == before


def test_docker_run_of_an_image_that_pings_by_itself(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    words = (
        "docker",
        "run",
        "--entrypoint=ping",
        "--init",
        BUSYBOX_IMAGE,
        "-A",
        "-c",
        "20",
        REMOTE,
    )
    made = record(engine, trace, "--", *words)
    assert made.runs[0].argv == ["ping", "-A", "-c", "20", REMOTE]
    assert sender(trace, made) | {None} >= {made.runs[0].pid}  # it may have ended too soon
    assert_corrected(engine, trace)


def test_docker_run_on_networks(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    run = ("--", "docker", "run", "--rm")
    made = record(engine, trace, *run, "--network", "host", IMAGE, *PING, REMOTE)
    assert [run.arm for run in made.runs] == ["native traced", "native untraced"]
    shared = ("--net", f"container:{web}")
    made = record(engine, trace, *run, *shared, IMAGE, *PING, REMOTE)
    assert made.runs[-1].arm == "native untraced"
    assert_corrected(engine, trace)


def test_an_interrupted_docker_run_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    before = engine.docker("ps", "--all", "--quiet")
    words = ("docker", "run", "--rm", IMAGE, "ping", "-i", "0.05", "-c", "2987", REMOTE)
    argv = engine.maceproc_argv("record", "--rounds", "1", "-o", trace, "--", *words)
    with subprocess.Popen(argv, env=engine.env, stderr=subprocess.PIPE, text=True) as recording:
        wait_until(
            lambda: "ping -D -i 0.05 -c 2987" in engine.shell("ps -e -o args | grep ^ping || true")
        )
        time.sleep(0.5)
        recording.terminate()
        _, said = recording.communicate()
    assert "interrupted by SIGTERM; 1 run kept" in said
    assert engine.docker("ps", "--all", "--quiet") == before
    assert {r["status"] for r in analyze(engine, trace)["rtts"]} == {"corrected"}


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
def test_a_burst_of_signals_leaves_no_container(
    engine: Engine, tmp_path: Path, delay_s: float
) -> None:
    before = engine.docker("ps", "--all", "--quiet")
    words = ("docker", "run", IMAGE, "ping", "-i", "0.05", "-c", "2986", REMOTE)
    argv = engine.maceproc_argv(
        "record", "--rounds", "1", "-o", tmp_path / "trace.dat", "--", *words
    )
    with subprocess.Popen(argv, env=engine.env, stderr=subprocess.PIPE, text=True) as recording:
        wait_until(
            lambda: "ping -D -i 0.05 -c 2986" in engine.shell("ps -e -o args | grep ^ping || true")
        )
        for number in 4 * (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            recording.send_signal(number)
            time.sleep(delay_s)
        recording.communicate()
    assert recording.returncode > 128
    # The engine removes a container that was killed by itself, a moment later.
    wait_until(lambda: engine.docker("ps", "--all", "--quiet") == before)


def test_engine_commands_that_cannot_be_recorded(engine: Engine, web: str, tmp_path: Path) -> None:
    for words, reason in [
        (("run", "-d", IMAGE, *PING, REMOTE), "returns before anything is pinged"),
        (("run", "nosuch.invalid/image", "ping", REMOTE), "nosuch.invalid"),
        (("run", IMAGE, "fping", REMOTE), "fping"),
        (("run", BUSYBOX_IMAGE, "ping6", "-c", "3", REMOTE_IPV6), "no such program in image"),
        (("run", IMAGE, "true"), "ended before its network was looked at"),
        (("exec", "nosuch", *PING, REMOTE), "no container 'nosuch'"),
        (("compose", "exec", web, *PING, REMOTE), "only `docker run` and `docker exec`"),
    ]:
        assert reason in refused(engine, tmp_path, "--", "docker", *words), words
    both = ("--container", web, "--", "docker", "exec", web, *PING, REMOTE)
    assert "says by itself where" in refused(engine, tmp_path, *both)


# Podman, and engines without root


def test_podman(engine: Engine, podman: Podman, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    path = "host:vethN -> podman0 -> (NAT) -> eth0"
    with podman.container("pod") as pod:
        for where, words in [
            (pod, ("--container", pod, "--", *PING)),
            (pod, ("--", "podman", "exec", "-it", pod, *PING)),
            ("ping", ("--", "podman", "run", "--rm", IMAGE, *PING)),
        ]:
            made = record(engine, trace, *words, REMOTE, env=podman.env)
            assert devices(made).replace("cni-", "") == f"{where}:eth0 -> {path}"
            assert [run.arm for run in made.runs] == [
                "container traced", "container untraced", "native traced", "native untraced",
            ]  # fmt: skip
            assert_corrected(engine, trace)


@contextmanager
def rootless_network(engine: Engine, program: str) -> Iterator[str]:
    """Make a network as a rootless engine does, with this program; gives its namespace's name."""
    name = f"{engine.lab.name}-rootless"
    argv = {
        "slirp4netns": ["slirp4netns", "--configure", "--netns-type=path", f"/run/netns/{name}",
                        "tap0"],
        "pasta": ["pasta", "--foreground", "--config-net", "--runas=0", "--netns-only",
                  "--netns", name],
    }[program]  # fmt: skip
    # Both send what they are given by a socket for pings, from a network with a way out.
    engine.shell("""
        ip route add default via 192.0.2.2
        echo 0 0 > /proc/sys/net/ipv4/ping_group_range
    """)
    engine.shell(f"ip netns add {name}")
    in_host = ["nsenter", f"--net=/run/netns/{engine.host}", "--", *argv]
    with subprocess.Popen(in_host, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as tap:
        try:
            routes = ["ip", "-n", name, "-4", "route"]
            wait_until(
                lambda: tap.poll() is not None or b"default" in subprocess.check_output(routes)
            )
            if tap.poll() is not None:
                assert tap.stdout is not None
                pytest.skip(f"{program}: {tap.stdout.read().decode(errors='replace')}")
            yield name
        finally:
            tap.kill()
            engine.shell(f"ip netns delete {name}")
            engine.shell("""
                ip route delete default
                echo 1 0 > /proc/sys/net/ipv4/ping_group_range
            """)


@pytest.mark.parametrize("program", ["slirp4netns", "pasta"])
def test_a_rootless_network_is_explained(engine: Engine, program: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with rootless_network(engine, program) as name:
        made = record(engine, trace, "--netns", name, "--", "ping", "-c", "2", "-i", "0.2", REMOTE)
    assert len(made.target.path) == 1
    assert "is served by a program" in made.target.notes[0]
    assert [run.arm for run in made.runs] == ["container traced", "container untraced"]
    assert_left_alone(engine, trace, made)


# The experiment


def test_the_experiment_in_a_container(engine: Engine, web: str, tmp_path: Path) -> None:
    directory = tmp_path / "experiment"
    options = ("--flows", "0,2", "--traffic", "flood:0.002", "--tracers", "minimal,mace")
    words = ("--container", web, *options, "--rounds", "3", "-o", directory)
    done = engine.maceproc("experiment", *words, "--", *PING, REMOTE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# What tracing and the container cost")
    results = json.loads((directory / "results.json").read_text())
    medians = {
        (row["flows"], row["series"]): row
        for row in results["series"]
        if row["statistic"] == "median" and row["tracer"] in ("", "minimal")
    }
    for flows in (0, 2):
        assert medians[flows, "native untraced"]["used"] == 3 * 20
        assert medians[flows, "container corrected"]["used"] >= 0.9 * 3 * 20
        monitored, corrected = (
            medians[flows, f"container {name}"]["estimate_ns"] for name in ("traced", "corrected")
        )
        assert corrected < monitored
    sent = {row["flows"]: row["packets_per_s"] for row in results["rates"]}
    assert sent[0] == 0
    assert sent[2] > 100
