"""perf.data: written, read back, and compared with what perf script prints of recordings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import maceproc
from maceproc import read_events
from maceproc.cli import cli
from maceproc.errors import TraceFormatError
from maceproc.schema import EVENTS, Trace
from maceproc.tracedat import native
from maceproc.tracetext import read_text
from tests import perfdata_writer as w
from tests.perfdata_from_trace import converted
from tests.recorded import path_of
from tests.tracedat_samples import COMMON, field_line, sample_format, sample_payloads
from tests.tracedat_writer import Machine

TICK = f'name: tick\nID: 300\nformat:\n{COMMON}{field_line("u64 number", 8, 8, 0)}\nprint fmt: ""\n'
TOCK = TICK.replace("tick", "tock").replace("300", "301")
FORMATS = {"test": [TICK, TOCK]}
MACHINE = Machine()


def tick(number: int, machine: Machine = MACHINE, kind: int = 300) -> bytes:
    return machine.pack("HBBiQ", kind, 0, 0, 1, number)


def ticks(total: int, attr: w.Attr | None = None, machine: Machine = MACHINE) -> list[bytes]:
    attr = attr or w.Attr(300)
    return [
        w.Sample(attr, 1000 + n, tick(n, machine), cpu=n % 2).write(machine) for n in range(total)
    ]


def read(tmp_path: Path, data: bytes) -> Trace:
    path = tmp_path / "perf.data"
    path.write_bytes(data)
    return read_events(path)


# --- what is written is read back -----------------------------------------------------------------

SAMPLE_TYPES = st.integers(0, 2**9 - 1).map(lambda bits: bits << 1 | w.TIME | w.CPU | w.TID)


@st.composite
def files(draw: st.DrawFn) -> tuple[w.PerfData, list[dict[str, object]]]:
    """Return a file of one or two events, and its rows."""
    machine = Machine(draw(st.sampled_from("<>")), draw(st.sampled_from([4, 8])))
    groups = draw(st.sampled_from([0, w.GROUP]))
    read_format = groups | draw(st.integers(0, 31)) & ~w.GROUP
    several = draw(st.booleans())
    kinds = w.IDENTIFIER if draw(st.booleans()) else w.ID
    sample_type = draw(SAMPLE_TYPES) & ~(w.ID if kinds == w.IDENTIFIER else 0)
    sample_type = sample_type & 0x3FF | w.RAW | kinds
    attrs = [w.Attr(300, sample_type, read_format, ids=(5, 6))]
    if several:
        attrs.append(w.Attr(9, sample_type, read_format, ids=(7,), type=1))  # software
    records: list[bytes] = []
    rows: list[dict[str, object]] = []
    now = 1000
    for _ in range(draw(st.integers(0, 12))):
        now += draw(st.sampled_from([-3, 0, 1, 2**40]))
        payload, row = draw(sample_payloads(machine))
        attr = draw(st.sampled_from(attrs))
        sample = w.Sample(
            attr, now, payload, tid=draw(st.integers(0, 3)), cpu=draw(st.integers(0, 300)),
            id=draw(st.sampled_from(list(attr.ids))), chain=draw(st.integers(0, 3)),
            counters=draw(st.integers(0, 3)),
        )  # fmt: skip
        records.append(sample.write(machine))
        if attr.type == w.TRACEPOINT:
            rows.append({**row, "time_ns": now, "cpu": sample.cpu})
        if draw(st.booleans()):
            records.append(w.finished_round(machine))
    formats = {"test": [sample_format(machine)[0]]}
    file = w.PerfData(
        attrs, records, formats, machine,
        compressed=draw(st.sampled_from([0, 81, 83])), piece=draw(st.sampled_from([50, 900])),
        plain_between=draw(st.booleans()),
    )  # fmt: skip
    return file, rows


@pytest.mark.parametrize("reader", ["compiled", "numpy"])
@given(written=files(), form=st.sampled_from(["file", "pipe", "directory"]))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    reader: str,
    written: tuple[w.PerfData, list[dict[str, object]]],
    form: str,
) -> None:
    file, rows = written
    place = tmp_path_factory.mktemp("perf")
    path = place / "perf.data"
    if form == "directory":
        file.write_directory(path)
    else:
        path.write_bytes(file.write() if form == "file" else file.write_pipe())
    with pytest.MonkeyPatch.context() as patch:
        if reader == "numpy":
            patch.setattr(native, "loops", None)
        trace = read_events(path)
    rows.sort(key=lambda row: row["time_ns"])  # stable, as the reader: the order of the file
    if not rows:
        assert trace.events == {}
    else:
        table = trace.events["sample"]
        for name in rows[0]:
            assert table[name].tolist() == [row[name] for row in rows], name
        assert table.index.tolist() == list(range(len(rows)))
    others = [note for note in trace.notes if "are no tracepoints" not in note]
    assert others == []
    assert trace.clock == "mono"
    assert trace.info["uname"] == "6.18.0"
    assert trace.info["command"] == ["perf", "record"]
    shutil.rmtree(place)


@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("chain", [None, 0, 3])
@pytest.mark.parametrize("read_format", range(32))
def test_counters_of_every_read_format_are_stepped_over(
    tmp_path: Path, read_format: int, chain: int | None, byte_order: str
) -> None:
    # perf_output_read(), kernel/events/core.c: value, times, id and lost; of a group how many first
    machine = Machine(byte_order)
    chains = 0 if chain is None else w.CALLCHAIN
    attr = w.Attr(300, w.USUAL | w.IDENTIFIER | w.READ | chains, read_format, ids=(5,))
    payloads = [tick(number, machine) for number in range(4)]
    records = [
        w.Sample(attr, 1000 + n, payload, id=5, chain=chain or 0, counters=n).write(machine)
        for n, payload in enumerate(payloads)
    ]
    table = read(tmp_path, w.PerfData([attr], records, FORMATS, machine).write()).events["tick"]
    assert table.number.tolist() == [0, 1, 2, 3]
    assert table.time_ns.tolist() == [1000, 1001, 1002, 1003]


@pytest.mark.parametrize("counters", [2**16 - 1, 2**16, 2**63])
def test_more_counters_than_a_sample_has_room_for(tmp_path: Path, counters: int) -> None:
    attr = w.Attr(300, w.USUAL | w.READ, w.GROUP | w.READ_ID)
    first, second = (w.Sample(attr, 1000 + n, tick(n)).write(MACHINE) for n in (0, 1))
    one, many = MACHINE.pack("QQQ", 1, 8, 8), MACHINE.pack("QQQ", counters, 8, 8)
    assert first.count(one) == 1
    trace = read(tmp_path, w.PerfData([attr], [first.replace(one, many), second], FORMATS).write())
    assert trace.events["tick"].number.tolist() == [1]
    assert trace.notes == ("1 samples are too short for their fields, left out",)


def test_samples_of_several_events_are_told_by_their_ids(tmp_path: Path) -> None:
    usual = w.USUAL | w.IDENTIFIER
    attrs = [w.Attr(300, usual, ids=(5, 6)), w.Attr(301, usual | w.CALLCHAIN, ids=(7,))]
    records = [
        w.Sample(attrs[0], 3000, tick(1), id=6).write(MACHINE),
        w.Sample(attrs[1], 2000, tick(2, kind=301), id=7, chain=5).write(MACHINE),
        w.Sample(attrs[1], 4000, tick(3, kind=301), id=7, chain=0).write(MACHINE),
        w.Sample(attrs[0], 1000, tick(4), id=99).write(MACHINE),
    ]
    trace = read(tmp_path, w.PerfData(attrs, records, FORMATS).write())
    assert trace.events["tick"].number.tolist() == [1]
    assert trace.events["tock"].number.tolist() == [2, 3]
    assert trace.events["tock"].index.tolist() == [0, 2]
    assert trace.notes == ("1 samples have an id of no event, left out",)


def test_a_thread_has_the_command_it_ran_at_that_time(tmp_path: Path) -> None:
    attr = w.Attr(300)
    records = [
        w.comm(MACHINE, attr, 0, 7, "bash"),
        w.fork(MACHINE, attr, 1500, 8, 7),
        w.comm(MACHINE, attr, 2500, 8, "ping"),
    ]
    for time, tid in [(1000, 7), (1600, 8), (2600, 8), (2700, 7), (1100, 9), (1200, 0), (1400, 8)]:
        records.append(w.Sample(attr, time, tick(time), tid=tid).write(MACHINE))
    table = read(tmp_path, w.PerfData([attr], records, FORMATS).write()).events["tick"]
    assert dict(zip(table.time_ns.tolist(), table.comm.tolist(), strict=True)) == {
        1000: "bash", 1600: "bash", 2600: "ping", 2700: "bash", 1100: "<...>", 1200: "swapper",
        1400: "<...>",
    }  # fmt: skip


def test_lost_events_are_counted_between_their_neighbours(tmp_path: Path) -> None:
    attr = w.Attr(300)
    records = [
        *ticks(4),
        w.lost(MACHINE, attr, 1003, 1, 12),
        w.lost(MACHINE, attr, 900, 0, 3),
        w.lost_samples(MACHINE, attr, 20),
        w.lost_samples(MACHINE, attr, 7, misc=1 << 15),
    ]
    trace = read(tmp_path, w.PerfData([attr], records, FORMATS).write())
    assert trace.lost.astype(object).fillna(-1).to_numpy().tolist() == [
        ["", 1, 1001, 1003, 12],
        ["", 0, -1, 1000, 3],
        ["", -1, -1, -1, 5],
    ]
    assert trace.notes == ("7 samples were left out by perf record's filter",)


@pytest.mark.parametrize(
    ("clockid", "clock"), [(1, "mono"), (4, "mono_raw"), (7, "boot"), (11, "tai"), (None, "perf")]
)
def test_the_clock_is_named(tmp_path: Path, clockid: int | None, clock: str) -> None:
    attr = w.Attr(300, clockid=clockid)
    trace = read(tmp_path, w.PerfData([attr], ticks(1, attr), FORMATS).write())
    assert trace.clock == clock
    assert [n for n in trace.notes if "no place on UTC" in n] == list(trace.notes)
    assert len(trace.notes) == (clock == "perf")


def test_what_a_sample_does_not_have_is_said(tmp_path: Path) -> None:
    attr = w.Attr(300, w.USUAL & ~w.CPU)
    trace = read(tmp_path, w.PerfData([attr], ticks(2, attr), FORMATS).write())
    assert trace.events["tick"].cpu.tolist() == [-1, -1]
    assert "the samples have no CPU" in trace.notes[0]
    attr = w.Attr(300, w.USUAL & ~w.TIME)
    with pytest.raises(TraceFormatError, match="samples without a time"):
        read(tmp_path, w.PerfData([attr], ticks(2, attr), FORMATS).write())


def test_events_and_fields_and_a_span_are_selected(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData([w.Attr(300)], ticks(10), FORMATS).write())
    table = read_events(path, ["test:tick"], [], 1003, 1005).events["tick"]
    assert table.time_ns.tolist() == [1003, 1004]
    assert list(table) == EVENTS.names
    assert list(read_events(path, ["tock"]).events) == ["tock"]
    listed = CliRunner().invoke(cli, ["events", str(path)]).output
    assert "tick         10" in listed


# --- the same events as trace.dat and as perf.data ------------------------------------------------


@pytest.mark.parametrize("name", ["idle", "every_event"])
def test_the_tables_are_those_of_the_trace_dat(tmp_path: Path, name: str) -> None:
    ours, theirs = read(tmp_path, converted(path_of(name))), read_events(path_of(name))
    assert list(ours.events) == list(theirs.events)
    for event, table in theirs.events.items():
        own = ours.events[event]
        assert own.dtypes.drop("comm").equals(
            table.dtypes.drop(["comm", "buffer"], errors="ignore")
        )
        for column in own:
            expected = table[column].tolist()
            if column == "comm":
                expected = ["swapper" if name == "<idle>" else name for name in expected]
            assert own[column].tolist() == expected, (event, column)


def test_an_analysis_is_that_of_the_trace_dat(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    path.write_bytes(converted(path_of("idle")))
    shutil.copy(f"{path_of('idle')}.json", f"{path}.json")
    ours, theirs = maceproc.analyze(path), maceproc.analyze(path_of("idle"))
    assert (ours.rtts["status"] == "corrected").sum() > 100
    pd.testing.assert_frame_equal(ours.rtts, theirs.rtts)


def test_an_analysis_without_cpus_is_refused(tmp_path: Path) -> None:
    attr = w.Attr(300, w.USUAL & ~w.CPU)
    path = tmp_path / "perf.data"
    queue = {"net": [TICK.replace("tick", "net_dev_queue")]}
    path.write_bytes(w.PerfData([attr], ticks(2, attr), queue).write())
    (tmp_path / "ping.txt").write_text("PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.\n")
    with pytest.raises(maceproc.MaceprocError, match="on which CPU"):
        maceproc.analyze(path, ping=tmp_path / "ping.txt", inner="eth0", outer="eno1")


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [0, 81, 83])
@pytest.mark.parametrize("form", ["file", "pipe"])
def test_a_cut_file_gives_what_is_whole(tmp_path: Path, compressed: int, form: str) -> None:
    file = w.PerfData([w.Attr(300)], ticks(500), FORMATS, compressed=compressed)
    if form == "file":  # without the features at its end it has no formats
        data = file.write()
        with pytest.raises(TraceFormatError, match="no formats of their fields"):
            read(tmp_path, data[: data.rindex(b"tracing") - 500])
        return
    data = file.write_pipe()
    trace = read(tmp_path, data[: len(data) - len(file.stream()) // 2 - 3])
    table = trace.events["tick"]
    assert 0 < len(table) < 500
    assert table.number.tolist() == list(range(len(table)))
    assert len(trace.notes) == 1
    assert "are left out" in trace.notes[0]


def test_a_file_that_perf_did_not_end(tmp_path: Path) -> None:
    data = bytearray(w.PerfData([w.Attr(300)], ticks(3), FORMATS).write())
    data[48:56] = bytes(8)  # the size of the records
    with pytest.raises(TraceFormatError, match="perf writes them when it ends"):
        read(tmp_path, bytes(data))


def test_damaged_zstd_data_leaves_out_what_follows(tmp_path: Path) -> None:
    file = w.PerfData([w.Attr(300)], ticks(500), FORMATS, compressed=81)
    data = bytearray(file.write())
    stream = file.stream()
    place = data.index(stream) + len(stream) // 2
    data[place : place + 40] = bytes(40)
    trace = read(tmp_path, bytes(data))
    assert 0 < len(trace.events["tick"]) < 500
    assert trace.notes


@pytest.mark.parametrize("behind", [b"", b"round"])
def test_a_compressed_record_longer_than_its_size_can_say(tmp_path: Path, behind: bytes) -> None:
    attr = w.Attr(300)
    payloads = os.urandom(200_000)
    records = [
        w.Sample(attr, n, tick(n) + payloads[8000 * n : 8000 * n + 8000]).write(MACHINE)
        for n in range(20)
    ]
    file = w.PerfData([attr], records, FORMATS, compressed=81, piece=90_000)

    def overflowing(packed: bytes) -> bytes:
        return MACHINE.pack("IHH", 81, 0, (len(packed) + 8) % 65536) + packed

    file.packed_record = overflowing  # type: ignore[method-assign]
    file.plain_between = bool(behind)
    trace = read(tmp_path, file.write())
    assert trace.events["tick"].number.tolist() == list(range(20))
    assert len(trace.notes) == 1
    assert "2 compressed records are longer than the 65535 bytes" in trace.notes[0]


@pytest.mark.parametrize("version", ["0.5", "0.6"])
def test_formats_with_and_without_command_names(tmp_path: Path, version: str) -> None:
    file = w.PerfData([w.Attr(300)], ticks(3), FORMATS)
    features = {**file.features(), 1: w.tracing_data(FORMATS, MACHINE, version)}
    file.features = lambda: features  # type: ignore[method-assign]
    trace = read(tmp_path, file.write())
    assert len(trace.events["tick"]) == 3
    assert trace.notes == ()


@pytest.mark.parametrize("data", [b"PERFILE2", b"PERFILE2" + bytes(200), b"PERFFILE" + bytes(100)])
def test_what_is_no_perf_data_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TraceFormatError):
        read(tmp_path, data)


# --- recordings -----------------------------------------------------------------------------------

needs_perf = pytest.mark.skipif(
    not (
        shutil.which("perf") and os.geteuid() == 0 and Path("/sys/kernel/tracing/events").exists()
    ),
    reason="needs root and perf (Debian: linux-perf)",
)
PING = ["ping", "-q", "-c", "5", "-i", "0.002", "127.0.0.1"]
RECORDINGS = {
    "all CPUs": ["-a", "-k", "mono", "-e", "net:*", "-e", "skb:*", "-e", "raw_syscalls:*"],
    "the task": ["-k", "mono", "-e", "net:*", "-e", "syscalls:sys_enter_sendto"],
    "call chains": ["-a", "-k", "mono", "-g", "-e", "net:*"],
    "compressed": ["-a", "-k", "mono", "-z", "-e", "net:*", "-e", "sched:*"],
    "perf's clock": ["-a", "-e", "net:*", "-e", "cpu-clock"],
    "threads": ["-a", "-k", "mono", "--threads", "-e", "net:*"],
}


def perf(*arguments: str | Path) -> bytes:
    done = subprocess.run(
        ["perf", *map(str, arguments)], capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        pytest.skip(f"perf {arguments[0]}: {done.stderr.decode()[:200]}")
    return done.stdout


def assert_equal_to_script(
    path: Path, text: Path, left_out: Sequence[bytes] = (b"cpu-clock",)
) -> int:
    """Compare every field that perf script prints as a number or a name; return their number."""
    columns = "comm,tid,cpu,time,event,trace"
    lines = perf("script", "--ns", "-F", columns, "-i", path).splitlines(keepends=True)
    text.write_bytes(b"".join(line for line in lines if not any(name in line for name in left_out)))
    printed, ours = read_text(text), read_events(path)
    assert set(printed.events) == set(ours.events)
    compared = 0
    for event, table in ours.events.items():
        theirs = printed.events[event]
        assert theirs.index.tolist() == table.index.tolist()
        # Some print formats give fields other names: sched_process_fork's parent_comm is "comm".
        for name in set(theirs) & set(table) - {"flags"}:
            symbols = theirs[name].dtype == "category" and table[name].dtype != "category"
            if not symbols:
                own = table[name].astype(int) if table[name].dtype == bool else table[name]
                assert theirs[name].tolist() == own.tolist(), (event, name)
                compared += len(own)
    return compared


@pytest.mark.kernel
@needs_perf
@pytest.mark.parametrize("name", RECORDINGS)
def test_every_field_is_what_perf_script_prints(tmp_path: Path, name: str) -> None:
    path = tmp_path / "perf.data"
    perf("record", "-q", "-o", path, *RECORDINGS[name], "--", *PING)
    assert assert_equal_to_script(path, tmp_path / "script.txt") > 100
    assert read_events(path).clock == ("perf" if name == "perf's clock" else "mono")


@pytest.mark.kernel
@needs_perf
def test_of_a_group_the_leader_is_read(tmp_path: Path) -> None:
    # The members of a group are counted, not sampled. perf script prints the leader's sample once
    # more for each member whose counter grew (deliver_sample_group(), tools/perf/util/session.c).
    path = tmp_path / "perf.data"
    group = "{net:net_dev_queue,net:netif_rx,cpu-clock}:S"
    perf("record", "-q", "-o", path, "-a", "-k", "mono", "-g", "-e", group, "--", *PING)
    members = (b" cpu-clock:", b" net:netif_rx:")
    assert assert_equal_to_script(path, tmp_path / "script.txt", members) > 30
    assert list(read_events(path).events) == ["net_dev_queue"]


@pytest.mark.kernel
@needs_perf
def test_a_pipe_is_read_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    path.write_bytes(
        perf("record", "-q", "-a", "-k", "mono", "-e", "net:*", "-o", "-", "--", *PING)
    )
    assert assert_equal_to_script(path, tmp_path / "script.txt") > 100


@pytest.mark.kernel
@needs_perf
def test_lost_events_of_a_recording_are_those_that_perf_reports(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=40000"]
    perf(
        "record", "-q", "-m", "1", "-k", "mono", "-e", "raw_syscalls:*", "-o", path, "--", *command
    )
    said = perf("script", "--show-lost-events", "-i", path).decode().split()
    counts = [int(said[at + 2]) for at, word in enumerate(said) if word == "PERF_RECORD_LOST"]
    lost = read_events(path).lost
    assert lost["count"].tolist()[: len(counts)] == counts
    assert pd.api.types.is_integer_dtype(lost["count"])
