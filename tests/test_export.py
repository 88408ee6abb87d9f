"""What is exported is read by the programs it is for, and says what the analysis says."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent

import maceproc
from maceproc.errors import AnalysisError, MaceprocError
from maceproc.reporting.export import export, tables
from maceproc.reporting.export.pcapng import Packet, echo, internet_checksum, packets_of
from maceproc.reporting.export.provenance import required
from maceproc.reporting.export.tables import TABLES, table_of
from maceproc.schema import rows_of
from tests import trace_processor
from tests.recorded import NAMES, analyzed, path_of

# Tables


@pytest.mark.parametrize("name", ["idle", "every_event"])
@pytest.mark.parametrize("table", TABLES)
def test_parquet_gives_the_same_table_back(name: str, table: str, tmp_path: Path) -> None:
    (path,) = export(analyzed(name), tmp_path / "t.parquet", table=table)
    _, frame = table_of(analyzed(name), table)
    read, expected = pd.read_parquet(path), frame.reset_index(drop=True)
    pd.testing.assert_frame_equal(read, expected, check_categorical=len(frame) > 0)


def test_parquet_has_units_and_provenance(tmp_path: Path) -> None:
    (path,) = export(analyzed("idle"), tmp_path / "rtts.parquet")
    schema = pq.read_schema(path)
    field = schema.field("outbound_ns")
    assert field.metadata == {b"unit": b"ns", b"meaning": b"outbound crossing"}
    assert field.type == pa.int64()
    about = json.loads(schema.metadata[b"maceproc"])
    capture = path_of("idle").read_bytes()
    assert about["capture_sha256"] == hashlib.sha256(capture).hexdigest()
    assert about["command"][0] == "ping"
    assert about["kernel"].startswith("6.")
    assert about["creator"].startswith("maceproc ")


@pytest.mark.parametrize("table", TABLES)
def test_csv_and_what_describes_it(table: str, tmp_path: Path) -> None:
    path, beside = export(analyzed("every_event"), tmp_path / "t.csv", table=table)
    declared, frame = table_of(analyzed("every_event"), table)
    document = json.loads(beside.read_text())
    assert document["url"] == path.name
    assert [c["name"] for c in document["tableSchema"]["columns"]] == declared.names
    units = {c["name"]: c.get("schema:unitText", "") for c in document["tableSchema"]["columns"]}
    assert units == {column.name: column.unit for column in declared.columns}
    dtypes = {c.name: c.dtype for c in declared.columns}
    read = pd.read_csv(
        path, dtype=dtypes, keep_default_na=False, na_values={c: [""] for c in dtypes}
    )
    assert len(read) == len(frame)
    for column in declared.columns:
        if column.dtype not in ("str", "category"):
            pd.testing.assert_series_equal(read[column.name], frame[column.name], rtol=1e-12)


def test_addresses_survive_every_format(tmp_path: Path) -> None:
    hops = analyzed("idle").hops
    assert (hops["skbaddr"] > 2**63).any()
    csv, _ = export(analyzed("idle"), tmp_path / "h.csv", table="hops")
    (as_json,) = export(analyzed("idle"), tmp_path / "h.json", table="hops")
    from_csv = pd.read_csv(csv, dtype={"skbaddr": "uint64"})["skbaddr"]
    rows = json.loads(as_json.read_text())["rows"]
    assert list(from_csv) == list(hops["skbaddr"])
    assert [int(row["skbaddr"], 16) for row in rows] == list(hops["skbaddr"])


@pytest.mark.parametrize("piece", [1, 7, 10**6])
@pytest.mark.parametrize("table", ["rtts", "lost"])
def test_pieces_of_text_are_those_of_the_whole_table(
    table: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PIECE", piece)
    _, frame = table_of(analyzed("idle"), table)
    text = "".join(tables.as_json(analyzed("idle"), table))
    document = json.loads(text)
    assert document["rows"] == rows_of(frame)
    assert text == json.dumps(document, indent=1)
    whole = tables.csv_ready(frame).to_csv(index=False)
    assert "".join(tables.as_csv(analyzed("idle"), table)) == whole


@pytest.mark.parametrize("ending", ["csv", "json", "parquet", "pftrace", "pcapng"])
def test_the_same_capture_gives_the_same_file(ending: str, tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        export(analyzed("every_event"), tmp_path / part / f"x.{ending}")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("name", "table", "says"),
    [
        ("x.doc", "rtts", "ends in '.doc'"),
        ("x.csv", "rtt", "no table 'rtt'"),
        ("no/x.csv", "rtts", "there is no directory"),
    ],
)
def test_what_cannot_be_written_says_why(name: str, table: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(MaceprocError, match=says):
        export(analyzed("every_event"), tmp_path / name, table=table)


def test_a_library_that_is_missing_is_named() -> None:
    with pytest.raises(AnalysisError, match=r"needs pyarrow; .*maceproc\[export\]"):
        required("no_such_module", "pyarrow")


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> maceproc.Analysis:
    """The analysis of a capture without its sidecar."""
    directory = tmp_path_factory.mktemp("by-hand")
    sidecar = analyzed("every_event").capture.sidecar
    assert sidecar is not None
    shutil.copy(path_of("every_event"), directory / "hand.dat")
    (directory / "ping.txt").write_text("".join(run.output for run in sidecar.runs))
    inner, outer = sidecar.target.path[0].dev, sidecar.target.path[-1].dev
    ping = directory / "ping.txt"
    return maceproc.analyze(directory / "hand.dat", ping=ping, inner=inner, outer=outer)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet", "pftrace", "pcapng"])
def test_a_trace_recorded_by_hand_is_exported_too(
    ending: str, by_hand: maceproc.Analysis, tmp_path: Path
) -> None:
    assert (by_hand.rtts["status"] == "corrected").any()
    assert all(path.stat().st_size for path in export(by_hand, tmp_path / f"x.{ending}"))


def test_without_a_sidecar_packets_are_on_the_trace_clock(
    by_hand: maceproc.Analysis,
) -> None:
    sent = sorted(by_hand.rtts["sent_ns"].dropna())
    shown = sorted(
        p.time_ns for p in packets_of(by_hand) if p.interface.startswith("ping:") and p.outbound
    )
    assert shown == sent


# Perfetto


@pytest.fixture(scope="module")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("perfetto") / "loaded.pftrace"
    export(analyzed("loaded"), path)
    return path


def packets(path: Path) -> list[TracePacket]:
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    return list(trace.packet)


def test_a_slice_for_every_hop(timeline: Path) -> None:
    hops = analyzed("loaded").hops
    begun = [
        packet
        for packet in packets(timeline)
        if packet.track_event.type in (TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_INSTANT)
        and any(a.name == "skbaddr" for a in packet.track_event.debug_annotations)
    ]
    assert sorted(p.timestamp for p in begun) == sorted(hops["time_ns"])
    assert {p.track_event.name for p in begun} == set(hops["event"])


def test_every_packet_has_an_arrow_of_its_own(timeline: Path) -> None:
    journeys: dict[int, set[int]] = {}
    for packet in packets(timeline):
        event = packet.track_event
        for annotation in event.debug_annotations:
            if annotation.name == "journey":
                journeys.setdefault(event.flow_ids[0], set()).add(annotation.int_value)
    assert all(len(found) == 1 for found in journeys.values())
    assert len(journeys) == analyzed("loaded").hops["journey"].nunique()


def test_slices_of_one_track_nest(timeline: Path) -> None:
    open_at: dict[int, int] = {}
    last_ns: dict[int, int] = {}
    for packet in packets(timeline):
        event = packet.track_event
        if event.type == TrackEvent.TYPE_UNSPECIFIED:
            continue
        assert packet.timestamp >= last_ns.get(event.track_uuid, 0)
        last_ns[event.track_uuid] = packet.timestamp
        step = {TrackEvent.TYPE_SLICE_BEGIN: 1, TrackEvent.TYPE_SLICE_END: -1}.get(event.type, 0)
        open_at[event.track_uuid] = open_at.get(event.track_uuid, 0) + step
        assert open_at[event.track_uuid] >= 0
    assert set(open_at.values()) == {0}


@pytest.fixture(scope="module")
def processor() -> None:
    """Perfetto's own trace processor; in CI it must be there wherever Node.js is."""
    try:
        trace_processor.prepare()
    except trace_processor.NotToBeHadError as error:
        pytest.skip(f"no trace processor: {error}")


@pytest.mark.usefixtures("processor")
def test_perfettos_trace_processor_understands_it(timeline: Path) -> None:
    analysis = analyzed("loaded")
    hops, corrected = analysis.hops, analysis.rtts[analysis.rtts["status"] == "corrected"]
    wrong, slices, tracks, flows, pings = trace_processor.query(
        timeline,
        "select name, value from stats where severity in ('error', 'data_loss') and value > 0",
        "select count(*) as n from slice join args using (arg_set_id) where key = 'debug.skbaddr'",
        "select distinct p.name as netns, t.name as dev from track t join track p "
        "on t.parent_id = p.id",
        "select count(*) as n from flow",
        "select s.ts, s.dur, a.int_value as seq from slice s join args a using (arg_set_id) "
        "where s.name like 'icmp_seq%' and a.key = 'debug.seq' order by s.ts",
    )
    assert wrong == []
    assert slices == [{"n": len(hops)}]
    path = {tuple(str(hop).split(":")) for hop in analysis.capture.sidecar.target.path}
    assert path <= {(track["netns"], track["dev"]) for track in tracks}
    arrows_within_packets = len(hops) - hops["journey"].nunique()
    assert flows[0]["n"] >= arrows_within_packets + 2 * len(corrected)
    shown = {(p["ts"], p["dur"], p["seq"]) for p in pings}
    times = zip(corrected["sent_ns"], corrected["kernel_rtt_ns"], corrected["seq"], strict=True)
    assert set(times) <= shown


@pytest.mark.usefixtures("processor")
def test_the_segments_of_a_ping_are_its_ledger(timeline: Path) -> None:
    ping = analyzed("loaded").rtts.query("status == 'corrected'").iloc[3]
    (rows,) = trace_processor.query(
        timeline,
        "select s.name, s.dur from slice s join slice p on s.parent_id = p.id "
        f"where p.ts = {ping['sent_ns']} order by s.ts",
    )
    assert {row["name"]: row["dur"] for row in rows} == {
        name: ping[column]
        for name, column in {
            "tx stack": "tx_stack_ns",
            "outbound crossing": "outbound_ns",
            "wire": "wire_rtt_ns",
            "inbound crossing": "inbound_ns",
        }.items()
    }


# pcapng


def tshark(path: Path, *fields: str) -> pd.DataFrame:
    """Return fields of every packet, as tshark reads them."""
    argv = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=\t"]
    argv += [word for field in fields for word in ("-e", field)]
    quiet = {**os.environ, "HOME": "/nonexistent"}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=quiet)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return pd.DataFrame(rows, columns=list(fields))


@pytest.mark.parametrize("name", NAMES)
def test_tshark_reads_every_ping_with_its_results(name: str, tmp_path: Path) -> None:
    analysis = analyzed(name)
    (path,) = export(analysis, tmp_path / "pings.pcapng")
    fields = ("frame.interface_name", "icmp.type", "icmp.ident", "icmp.seq", "frame.comment")
    rows = tshark(path, *fields, "frame.time_epoch", "icmp.checksum.status", "_ws.malformed")
    assert (rows["icmp.checksum.status"] == "1").all()
    assert (rows["_ws.malformed"] == "").all()
    rtts = analysis.rtts
    replies = rows[
        rows["frame.interface_name"].str.startswith("ping: ") & (rows["icmp.type"] == "0")
    ]
    key = replies["frame.interface_name"].str.removeprefix("ping: ")
    keys = set(
        zip(key, replies["icmp.ident"].astype(int), replies["icmp.seq"].astype(int), strict=True)
    )
    answered = rtts[rtts["rtt_ns"].notna()]
    assert keys == set(zip(answered["arm"], answered["round"], answered["seq"], strict=True))
    for ping in answered.sort_values("round").head(3).itertuples():
        ours = replies[
            (key == ping.arm)
            & (replies["icmp.ident"] == str(ping.round))
            & (replies["icmp.seq"] == str(ping.seq))
        ]
        comment = ours["frame.comment"].iloc[0]
        assert f"status={ping.status} " in comment
        assert f" rtt_ns={ping.rtt_ns} " in f"{comment} "
        if pd.notna(ping.bare_metal_rtt_ns):
            for column in ("outbound_ns", "inbound_ns", "bare_metal_rtt_ns"):
                assert f" {column}={getattr(ping, column)} " in f"{comment} "


def test_timestamps_keep_every_nanosecond(tmp_path: Path) -> None:
    analysis = analyzed("idle")
    (path,) = export(analysis, tmp_path / "pings.pcapng")
    rows = tshark(
        path, "frame.interface_name", "icmp.type", "icmp.ident", "icmp.seq", "frame.time_epoch"
    )
    traced = rows[rows["frame.interface_name"] == "ping: container traced"]
    time_ns = traced["frame.time_epoch"].map(lambda text: int(text.replace(".", "")))
    by_ping = traced.assign(time_ns=time_ns).pivot(
        index=["icmp.ident", "icmp.seq"], columns="icmp.type", values="time_ns"
    )
    took = by_ping["0"] - by_ping["8"]
    corrected = analysis.rtts[analysis.rtts["status"] == "corrected"]
    for ping in corrected.itertuples():
        assert took[str(ping.round), str(ping.seq)] == ping.kernel_rtt_ns
    printed_ns = analysis.pings.loc[corrected.index, "received_at_ns"].astype("int64")
    assert (printed_ns - time_ns.max()).abs().min() < 1_000_000  # UTC, as ping printed it


def test_devices_see_what_the_crossing_says(tmp_path: Path) -> None:
    analysis = analyzed("idle")
    ping = analysis.rtts.query("status == 'corrected'").iloc[7]
    seen = [p for p in packets_of(analysis) if (p.round, p.seq) == (ping["round"], ping["seq"])]
    at = {p.interface: p.time_ns for p in seen if p.is_reply}
    inner, outer = (str(analysis.capture.sidecar.target.path[n]) for n in (0, -1))
    assert at[inner] - at[outer] == ping["inbound_ns"]
    ends = {p.interface: p.translated for p in seen}
    assert not ends[inner]
    assert ends[outer]


def test_unknown_times_are_counted_not_hidden(tmp_path: Path) -> None:
    analysis = analyzed("idle")
    (path,) = export(analysis, tmp_path / "pings.pcapng")
    argv = ["capinfos", "-k", str(path)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert f"0 of {len(analysis.rtts)} pings have no known time" in text


@given(
    st.booleans(), st.booleans(), st.integers(0, 70_000), st.integers(8, 3000), st.integers(1, 200)
)
def test_checksums_are_right(
    is_ipv6: bool, is_reply: bool, seq: int, size: int, number: int
) -> None:
    """Summed over with its checksum in it, what is covered gives nought: RFC 1071."""
    near, far = ("fd00::1", "fd00::2") if is_ipv6 else ("192.0.2.1", "192.0.2.2")
    source, destination = ipaddress.ip_address(near), ipaddress.ip_address(far)
    packet = Packet(0, "x", is_reply, True, number, seq, size, "")
    data = echo(packet, source, destination)
    start = 40 if is_ipv6 else 20
    assert len(data) == start + size
    pseudo = source.packed + destination.packed + np.array([size, 58], ">u4").tobytes()
    assert internet_checksum((pseudo if is_ipv6 else b"") + data[start:]) == 0
    if not is_ipv6:
        assert internet_checksum(data[:20]) == 0
