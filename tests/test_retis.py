"""retis' events as a witness: what they say of packets confirms or refutes each match."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import maceproc
from maceproc.cli import cli
from maceproc.errors import AnalysisError, CaptureError
from maceproc.following.sightings import REFUTED, check_by_sightings, place_of_hops
from maceproc.retis import echo_of, read_retis
from maceproc.schema import HOPS
from tests.recorded import analyzed, path_of
from tests.test_by_identity import capture_of, rows_of, run_of

CAPTURE = "every_event"
ID = 0x4A1
ETHERNET = bytes(12)


def icmp(request: bool, number: int, id_: int = ID, *, ipv6: bool = False) -> bytes:
    kinds = (128, 129) if ipv6 else (8, 0)
    return struct.pack("!BBHHH", kinds[not request], 0, 0, id_, number) + bytes(16)


def ipv4(payload: bytes, *, options: int = 0, fragment: int = 0, protocol: int = 1) -> bytes:
    head = struct.pack("!BBHHHBBH8x", 0x45 + options, 0, 0, 0, fragment, 64, protocol, 0)
    return ETHERNET + b"\x08\x00" + head + bytes(4 * options) + payload


def event(
    time_ns: int, skb: int, name: str, dev: str, packet: bytes, **more: Any
) -> dict[str, Any]:
    """Return an event as retis writes it; made by hand."""
    return {
        "common": {
            "timestamp": time_ns,
            "smp_id": 1,
            "task": {"pid": more.get("pid", 1), "tgid": more.get("pid", 1), "comm": "ping"},
        },
        "kernel": {"symbol": f"net:{name}", "probe_type": more.get("probe", "raw_tracepoint")},
        "skb-tracking": {"orig_head": 1, "timestamp": time_ns, "skb": skb},
        "dev": {"name": dev, "ifindex": 2},
        "netns": {"cookie": 3, "inum": 4026532741},
        "packet": {"len": len(packet), "capture_len": len(packet),
                   "data": base64.b64encode(packet).decode()},
    }  # fmt: skip


def older(found: dict[str, Any]) -> dict[str, Any]:
    """Return an event as older versions of retis write it."""
    packet = found.pop("packet")
    packet["packet"] = packet.pop("data")
    netns = {"netns": found.pop("netns")["inum"]}
    return {**found, "skb": {"dev": found.pop("dev"), "ns": netns, "packet": packet}}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


Change = Callable[[int, bool], tuple[int, int]]


def seen_by_retis(change: Change | None = None) -> list[dict[str, Any]]:
    """Return what retis would have seen of the pings of a capture; `change` alters seq and id."""
    analysis = analyzed(CAPTURE)
    assert analysis.capture.sidecar is not None
    pids = {run.round: run.pid for run in analysis.capture.sidecar.runs if run.arm == ARM}
    hops = analysis.hops[analysis.hops["dev"].notna()]
    by_journey = dict(list(hops.groupby("journey")))
    found = []
    for ping in corrected(analysis).itertuples():
        for request, journey in ((True, ping.outbound_journey), (False, ping.inbound_journey)):
            number, id_ = change(ping.seq, request) if change else (ping.seq, ID)
            packet = ipv4(icmp(request, number & 0xFFFF, id_))
            found += [
                event(hop.time_ns + 900, hop.skbaddr, hop.event, hop.dev, packet,
                      pid=pids[ping.round])
                for hop in by_journey[journey].itertuples()
            ]  # fmt: skip
    return found


ARM = "container traced"


def corrected(analysis: maceproc.Analysis) -> Any:
    rtts = analysis.rtts
    return rtts[(rtts["arm"] == ARM) & (rtts["status"] == "corrected")]


def told(analysis: maceproc.Analysis) -> list[str]:
    findings = analysis.findings[analysis.findings["finding"] == "witness"]
    return [
        f"{level}: {text}" for level, text in zip(findings.level, findings.message, strict=True)
    ]


def test_right_matches_are_confirmed(tmp_path: Path) -> None:
    events = write(tmp_path / "events.json", seen_by_retis())
    analysis = maceproc.analyze(path_of(CAPTURE), witness=events)
    count = 2 * len(corrected(analyzed(CAPTURE)))
    assert count > 10
    assert told(analysis) == [
        f"note: of {count} matches of pings with packets the witness confirmed {count}, "
        "refuted 0 and did not see 0"
    ]
    assert analysis.rtts.equals(analyzed(CAPTURE).rtts)


@pytest.mark.parametrize("off", [0, 1])
def test_the_explanation_of_a_ping_says_what_the_witness_saw(tmp_path: Path, off: int) -> None:
    seq = int(corrected(analyzed(CAPTURE))["seq"].iloc[3])
    lines = seen_by_retis(
        lambda number, request: (number + off * (number == seq and not request), ID)
    )
    events = str(write(tmp_path / "events.json", lines))
    words = ["explain", str(path_of(CAPTURE)), str(seq), "--witness", events]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "witness: of " in done.output
    assert (REFUTED in " ".join(done.output.split())) == bool(off)


def test_older_versions_and_sorted_series_say_the_same(tmp_path: Path) -> None:
    events = seen_by_retis()
    plain = read_retis(write(tmp_path / "a.json", events))
    series = [events[at : at + 7] for at in range(0, len(events), 7)]
    assert read_retis(write(tmp_path / "b.json", series)).sightings.equals(plain.sightings)
    old = read_retis(write(tmp_path / "c.json", [older(each) for each in events]))
    assert old.sightings.equals(plain.sightings)
    assert plain.events == old.events == len(events) == len(plain.sightings)


@pytest.mark.parametrize("what", ["number", "identifier of the request", "kind"])
def test_a_refuted_ping_is_ambiguous(tmp_path: Path, what: str) -> None:
    chosen = int(corrected(analyzed(CAPTURE))["seq"].iloc[3])
    rounds = (corrected(analyzed(CAPTURE))["seq"] == chosen).sum()

    def change(seq: int, request: bool) -> tuple[int, int]:
        if seq == chosen and what == "number" and not request:
            return seq + 1, ID
        return seq, ID + (seq == chosen and what == "identifier of the request" and request)

    lines = seen_by_retis(change)
    if what == "kind":
        other = ipv4(icmp(True, chosen))
        for line in lines:
            packet = base64.b64decode(line["packet"]["data"])
            if packet == ipv4(icmp(False, chosen)):
                line["packet"]["data"] = base64.b64encode(other).decode()
    analysis = maceproc.analyze(path_of(CAPTURE), witness=write(tmp_path / "e.json", lines))
    refuted = analysis.rtts[analysis.rtts["reason"] == REFUTED]
    assert refuted["seq"].tolist() == [chosen] * rounds
    assert (refuted["status"] == "ambiguous").all()
    gone = ["bare_metal_rtt_ns", "native_rtt_ns", "wire_rtt_ns", "outbound_ns", "inbound_journey"]
    assert refuted[gone].isna().all(axis=None)
    assert refuted["rtt_ns"].notna().all()
    assert f"refuted {rounds} and" in told(analysis)[-1]
    assert told(analysis)[0].startswith(f"problem: the events' analysis gave {rounds} pings")
    assert len(corrected(analysis)) == len(corrected(analyzed(CAPTURE))) - rounds


def test_what_is_not_certain_is_not_seen(tmp_path: Path) -> None:
    def none_right(_seq: int, _request: bool) -> tuple[int, int]:
        return 999, 1

    # Packets are seen at another time; or near another echo; or by a probe that is no tracepoint.
    lines = seen_by_retis(none_right)
    for line in lines[: len(lines) // 2]:
        line["common"]["timestamp"] += 10**6
    packet = {"data": base64.b64encode(ipv4(icmp(True, 1))).decode()}
    lines += [{**line, "packet": packet} for line in lines[len(lines) // 2 :]]
    lines += [event(1, 2, "ip_rcv", "eth0", ipv4(icmp(True, 1)), probe="kprobe")]
    analysis = maceproc.analyze(path_of(CAPTURE), witness=write(tmp_path / "e.json", lines))
    count = 2 * len(corrected(analyzed(CAPTURE)))
    assert f"confirmed 0, refuted 0 and did not see {count}" in told(analysis)[0]
    assert told(analysis)[0].startswith("warning")
    assert analysis.rtts.equals(analyzed(CAPTURE).rtts)


@pytest.mark.parametrize(
    ("hop_times", "times", "expected"),
    [
        ([], [5], []),
        ([100_000], [], [-1]),
        ([100_000], [101_000], [0]),
        ([100_000], [99_000], [0]),
        ([100_000], [150_001], [-1]),  # too far
        ([100_000, 110_000], [111_000, 101_000], [1, 0]),  # the address is used again at once
        ([100_000, 110_000], [111_000], [-1, 0]),  # the first was lost
        ([100_000, 110_000], [105_000, 111_000], [-1, 1]),  # the first may be of either
        ([100_000], [101_000, 102_000], [-1]),  # the hop of the second was lost
        ([100_000, 110_000, 120_000], [109_000, 111_000, 121_000], [-1, -1, 2]),  # an interrupt
    ],
)
def test_the_sighting_of_a_hop_is_clearly_the_nearest(
    tmp_path: Path, hop_times: list[int], times: list[int], expected: list[int]
) -> None:
    packet = ipv4(icmp(True, 1))
    lines = [event(time, 64, "netif_rx", "eth0", packet) for time in times]
    others = [event(100_000, 128, "netif_rx", "eth0", packet),
              event(100_000, 64, "netif_rx", "eth1", packet),
              event(100_000, 64, "net_dev_queue", "eth0", packet)]  # fmt: skip
    found = read_retis(write(tmp_path / "e.json", lines + others)).sightings
    hops = HOPS.frame(
        pd.DataFrame({
            "time_ns": np.array(hop_times, np.int64), "skbaddr": np.uint64(64),
            "event": "netif_rx", "dev": "eth0", "journey": 0, "hop": 0, "netns": "host",
            "cpu": 0, "pid": 0, "softirq": False, "len": 84,
        })
    )  # fmt: skip
    assert place_of_hops(hops, found).tolist() == expected


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (ipv4(icmp(True, 7)), (True, ID, 7)),
        (ipv4(icmp(False, 65535), options=3), (False, ID, 65535)),
        (ETHERNET + b"\x81\x00\x00\x05" + ipv4(icmp(True, 7))[12:], (True, ID, 7)),
        (ipv4(icmp(True, 7), fragment=0x2000), (True, ID, 7)),
        (ipv4(icmp(True, 7), fragment=185), None),
        (ipv4(icmp(True, 7), protocol=17), None),
        (ipv4(b"\3\1" + bytes(6)), None),
        (ipv4(icmp(True, 7))[:41], None),
        (ETHERNET + b"\x08\x06" + bytes(28), None),
        (b"", None),
    ],
)
def test_echoes_in_packets(packet: bytes, expected: tuple[bool, int, int] | None) -> None:
    assert echo_of(packet) == expected


@pytest.mark.parametrize("offset", [None, 0, 8])
def test_echoes_in_ipv6(offset: int | None) -> None:
    fragment = b"" if offset is None else struct.pack("!BBHI", 58, 0, offset, 1)
    head = struct.pack("!IHBB32x", 6 << 28, 0, 58 if offset is None else 44, 64)
    packet = ETHERNET + b"\x86\xdd" + head + fragment + icmp(False, 9, ipv6=True)
    assert echo_of(packet) == (None if offset else (False, ID, 9))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "none of its 0 events shows a packet with an ICMP echo"),
        ('{"common":{"timestamp":1}}\n', "none of its 1 events"),
        ("what\n", "line 1: not an event of retis"),
        ('{"common":{"timestamp":1}}\n{"common":1}\n', "line 2: not an event of retis"),
        ("[" * 100_000 + "\n", "line 1: not an event of retis"),
        (" " * (1 << 24) + "{\n", "line 1 is longer than 16 MiB"),
    ],
)
def test_what_is_no_file_of_retis_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "events.json"
    path.write_text(text)
    with pytest.raises(CaptureError, match=words):
        read_retis(path)
    done = CliRunner().invoke(cli, ["analyze", str(path_of(CAPTURE)), "--witness", str(path)])
    assert isinstance(done.exception, CaptureError) or done.exit_code == 1


def test_strange_values_are_passed_over_and_a_cut_end_is_told(tmp_path: Path) -> None:
    good = event(5, 2**64 - 64, "netif_rx", "eth0", ipv4(icmp(True, 1)), pid=-1)
    strange = [
        event(-1, 1, "netif_rx", "eth0", ipv4(icmp(True, 1))),
        event(2**63, 1, "netif_rx", "eth0", ipv4(icmp(True, 1))),
        event(1, 2**64, "netif_rx", "eth0", ipv4(icmp(True, 1))),
        event(1, 1, "netif_rx", "eth0", b""),
    ]
    path = write(tmp_path / "events.json", [*strange, good])
    found = read_retis(path)
    assert (found.events, len(found.sightings), found.cut) == (5, 1, False)
    assert found.sightings["skbaddr"].tolist() == [2**64 - 64]
    path.write_bytes(path.read_bytes() + b'{"common": {"timest')
    assert read_retis(path).cut
    assert read_retis(path).sightings.equals(found.sightings)


def test_a_trace_of_another_clock_is_refused(tmp_path: Path) -> None:
    analysis = analyzed(CAPTURE)
    seen = read_retis(write(tmp_path / "e.json", seen_by_retis()[:5]))
    other = analysis.trace.__class__(**{**vars(analysis.trace), "clock": "boot"})
    with pytest.raises(AnalysisError, match="CLOCK_MONOTONIC, the trace those of 'boot'"):
        check_by_sightings(None, other, seen)  # type: ignore[arg-type]


def test_a_trace_recorded_by_hand_is_checked_too(tmp_path: Path) -> None:
    capture = analyzed(CAPTURE).capture
    assert capture.sidecar is not None
    trace, ping = tmp_path / "trace.dat", tmp_path / "ping.txt"
    trace.write_bytes(path_of(CAPTURE).read_bytes())
    (run,) = (run for run in capture.sidecar.runs if run.arm == ARM)
    ping.write_text(run.output)
    events = write(tmp_path / "e.json", seen_by_retis(lambda seq, _: (seq + (seq == 4), ID)))
    analysis = maceproc.analyze(trace, ping=ping, inner="eth0", outer="eth0", witness=events)
    assert len(corrected(analysis)) > 5
    assert analysis.rtts.set_index("seq")["reason"][4] == REFUTED


def test_a_capture_of_the_tracer_in_the_kernel_needs_no_witness(tmp_path: Path) -> None:
    path = capture_of(tmp_path, rows_of(3), run_of(3))
    with pytest.raises(AnalysisError, match="its tracer wrote itself which packets are whose"):
        maceproc.analyze(path, witness=write(tmp_path / "e.json", seen_by_retis()))
