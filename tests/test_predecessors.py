"""The predecessors' files: read whole, nothing guessed, and their series drawn again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from maceproc.cli import cli
from maceproc.errors import CaptureError
from maceproc.predecessors.formats import Name, name_of, nanoseconds, read_costs, read_latencies
from maceproc.predecessors.importing import import_files, is_import, load_import
from maceproc.predecessors.matching import latency_by_authors, latency_for_certain
from maceproc.predecessors.report import BY_AUTHORS, BY_US, summarize

START = 1_700_000_000


def ping_text(rtts_us: list[int], *, start: int = START, every_s: float = 1.0) -> str:
    lines = ["PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data."]
    for n, rtt in enumerate(rtts_us, 1):
        stamp = start + n * every_s
        lines.append(
            f"[{stamp:.6f}] 64 bytes from 192.0.2.2: icmp_seq={n} ttl=64 time={rtt / 1000:.3f} ms"
        )
    count = len(rtts_us)
    lines += ["", "--- 192.0.2.2 ping statistics ---"]
    lines.append(f"{count} packets transmitted, {count} received, 0% packet loss, time 9ms")
    return "\n".join(lines) + "\n"


def traced_text(latencies_us: list[int], *, offset_s: float = 0.0001, every_s: float = 1.0) -> str:
    lines = ["trace_clock: global", "out_inner_dev:  eth0", "Listening for events. . . will report"]
    for n, value in enumerate(latencies_us, 1):
        stamp = START + n * every_s + offset_s
        lines.append(
            f"[{stamp:.6f}] rtt raw_latency: {value}, events_overhead: 1.500000, "
            f"adj_latency: {value - 1.5:.6f}"
        )
    return "\n".join([*lines, "Latency stats:", "rtt  mean: 50.0 usec", "Done.", ""])


def mace_text(pairs_ns: list[tuple[int, int]], first: int = 1) -> str:
    return "".join(
        f"[{START + n}.000001] ({n}) egress: {out}\n[{START + n}.000050] ({n}) ingress: {inbound}\n"
        for n, (out, inbound) in enumerate(pairs_ns, first)
    )


# --- lines ----------------------------------------------------------------------------------------


def test_every_form_of_latency_is_read_in_ns() -> None:
    mace = read_latencies(mace_text([(12345, 6789)]))
    assert mace.format == "MACE's latencies"
    assert [(r["direction"], r["latency_ns"], r["seq"]) for r in mace.rows] == [
        ("outbound", 12345, 1),
        ("inbound", 6789, 1),
    ]
    assert mace.rows[0]["at_ns"] == (START + 1) * 10**9 + 1000
    traced = read_latencies(traced_text([108]))
    assert traced.rows[0]["latency_ns"] == 108_000
    assert traced.rows[0]["tracer_ns"] == 1500
    assert traced.settings["trace_clock"] == "global"
    daemon = read_latencies("send latency: 0.000070\nrecv latency: 0.000046\ndiscarded recv: 0.1\n")
    assert [(r["direction"], r["latency_ns"]) for r in daemon.rows] == [
        ("outbound", 70_000),
        ("inbound", 46_000),
    ]
    assert daemon.settings["discarded by its program"] == "1"
    captured = read_latencies("seq: 7, outbound: 0.000054, inbound: 0.000032\n")
    assert [(r["seq"], r["latency_ns"]) for r in captured.rows] == [(7, 54_000), (7, 32_000)]
    assert sum(each.not_understood for each in (mace, traced, daemon, captured)) == 0


def test_what_is_not_understood_is_counted_and_kept() -> None:
    cut = mace_text([(1, 2)]) + "[1700000002.0000\n"
    read = read_latencies(cut)
    assert (len(read.rows), read.not_understood, read.not_understood_first) == (
        2,
        1,
        ["[1700000002.0000"],
    )
    costs = read_costs("120\n130\nno such file\n")
    assert [row["cost_ns"] for row in costs.rows] == [120, 130]
    assert costs.not_understood == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("d/container_monitored_10.10.1.2_100M.latency", Name("container monitored", "100M")),
        ("d/native_control_10.10.1.2_nop.ping", Name("native control", "nop")),
        ("d/12/mace_native_monitored.ping", Name("native mace monitored", "12")),
        ("d/native_net_dev_start_xmit.pert", Name("native", "", "net_dev_start_xmit")),
        ("d/other.ping", Name("", "")),
    ],
)
def test_a_name_says_arm_and_traffic(path: str, name: Name) -> None:
    assert name_of(Path(path)) == name


def test_numbers_are_not_rounded() -> None:
    assert nanoseconds("1537861262.939182", "s") == (1537861262939182000, 1000)
    assert nanoseconds("0.279", "ms") == (279_000, 1000)


# --- matching -------------------------------------------------------------------------------------


def tables(tmp_path: Path, ping: str, latency: str, suffix: str) -> tuple[pd.DataFrame, ...]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "container_monitored.ping").write_text(ping)
    (tmp_path / "in" / f"container_monitored{suffix}").write_text(latency)
    imported = import_files([tmp_path / "in"], tmp_path / "out")
    return imported.tables["pings"], imported.tables["latencies"]


def test_a_missing_latency_is_never_another_ping_s(tmp_path: Path) -> None:
    """The authors give a ping without a latency its neighbour's; we give it none."""
    text = traced_text([50, 60, 70, 80, 90])
    lines = [line for line in text.splitlines() if "latency: 70" not in line]
    pings, latencies = tables(tmp_path, ping_text([200] * 5), "\n".join(lines), ".latency")
    ours = latency_for_certain(pings, latencies)
    assert np.isnan(ours).tolist() == [False, False, True, False, False]
    assert ours[~np.isnan(ours)].tolist() == [50_000, 60_000, 80_000, 90_000]
    assert latency_by_authors(pings, latencies)[2] in (60_000, 80_000)


def test_two_latencies_at_one_ping_are_not_chosen_between(tmp_path: Path) -> None:
    text = traced_text([50, 60]) + traced_text([55, 65], offset_s=0.0001)
    pings, latencies = tables(tmp_path, ping_text([200] * 2), text, ".latency")
    ours = latency_for_certain(pings, latencies)
    assert np.isnan(ours).all()


def test_mace_s_latencies_belong_to_the_number_in_its_run(tmp_path: Path) -> None:
    text = mace_text([(10, 1), (20, 2)]) + mace_text([(30, 3)]) + mace_text([(40, 4)], first=2)
    ping = ping_text([100, 100]) + ping_text([100, 100], start=START + 100)
    pings, latencies = tables(tmp_path, ping, text, ".lat")
    assert pings["round"].tolist() == [1, 1, 2, 2]
    for match in (latency_by_authors, latency_for_certain):
        assert match(pings, latencies).tolist() == [11, 22, 33, 44]


# --- whole ----------------------------------------------------------------------------------------


def study(directory: Path) -> Path:
    rng = np.random.default_rng(1)
    for level in ("nop", "10M"):
        for arm, base in (("native_control", 100), ("container_control", 150)):
            values = (base + rng.integers(0, 9, 40)).tolist()
            (directory / f"{arm}_192.0.2.2_{level}.ping").write_text(ping_text(values))
        crossing = rng.integers(45, 55, 40)
        values = (100 + rng.integers(0, 9, 40) + crossing).tolist()
        name = f"container_monitored_192.0.2.2_{level}"
        (directory / f"{name}.ping").write_text(ping_text(values))
        (directory / f"{name}.latency").write_text(traced_text(crossing.tolist()))
    (directory / "native_sys_enter.pert").write_text("110\n120\n")
    (directory / "container_monitored.ping_raw").write_text("0.271\n")
    (directory / "native_monitored.trace").write_text("[4267.258653] exit_recvmsg\n")
    return directory


def test_the_authors_series_and_ours(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    source, output = study(tmp_path / "study"), tmp_path / "imported"
    done = CliRunner().invoke(cli, ["import", str(source), "-o", str(output)])
    assert done.exit_code == 0, done.output
    document = json.loads((output / "provenance.json").read_text())
    assert len(document["files"]) == len(list(source.iterdir()))
    for file in document["files"]:
        data = (source / file["file"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["imported"] == (not file["file"].endswith("_raw"))
        assert not file.get("not_understood")
    assert is_import(output)
    loaded = load_import(output)
    series = {(each.level, each.name): each for each in summarize(loaded)}
    for level in ("nop", "10M"):
        for name in (BY_AUTHORS, BY_US):
            corrected = series[level, f"container, {name}"]
            assert corrected.pings == 40
            assert abs(corrected.mean_beside_native_ns) < 3000
            low, high = corrected.beside_native.low_ns, corrected.beside_native.high_ns
            assert -5000 < low <= corrected.beside_native.estimate_ns <= high < 5000
        raw = pd.read_csv(output / "pings.csv").query("arm == 'native control' & level == @level")
        control = series[level, "native control"]
        assert control.mean_ns == pytest.approx(raw["rtt_ns"].mean())
        assert control.deviation_ns == pytest.approx(raw["rtt_ns"].std())
    pytest.importorskip("matplotlib")
    done = CliRunner().invoke(cli, ["experiment", "report", str(output)])
    assert done.exit_code == 0, done.output
    assert "corrected where certain" in done.output
    assert (output / "report.md").is_file()
    assert (output / "series.png").stat().st_size > 1000


def test_a_trace_as_text_is_kept_to_be_read(tmp_path: Path) -> None:
    line = (
        " ping-99 [000] .... 4267.258653: net_dev_queue: dev=eth0 skbaddr=ffff888100000000 len=98\n"
    )
    (tmp_path / "native_monitored.trace").write_text(line * 2)
    imported = import_files([tmp_path / "native_monitored.trace"], tmp_path / "out")
    assert imported.files[0]["format"] == "a trace as text"
    done = CliRunner().invoke(cli, ["events", str(tmp_path / "out" / "native_monitored.trace")])
    assert "net_dev_queue" in done.output


def test_nothing_is_overwritten_and_nothing_found_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptureError, match="nothing to import"):
        import_files([tmp_path / "empty"], tmp_path / "out")
    (tmp_path / "a.pert").write_text("1\n")
    with pytest.raises(CaptureError, match="exists"):
        import_files([tmp_path / "a.pert"], tmp_path / "empty")
    with pytest.raises(CaptureError, match="not a regular file"):
        import_files([tmp_path / "none.ping"], tmp_path / "other")
