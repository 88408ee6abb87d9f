from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.errors import TraceFormatError
from maceproc.schema import EVENTS, LOST, Trace
from maceproc.tracedat import merge_events, read_events
from maceproc.tracetext import read_text
from tests.tracing import TRACEFS, can_record, instance, record, report

QUEUE = "net_dev_queue"
ADDRESS = 0xFFFF888107935200

# One event as each program and kernel prints it.
FIELDS = "net_dev_queue: dev=lo skbaddr={} len=98"
SPELLINGS = {
    "trace": "            ping-13895   [001] b..1.  8767.340191: " + FIELDS,
    "trace, kernel 3.10": "            ping-13895 [001] d..1  8767.340191: " + FIELDS,
    "trace, record-tgid": "       ping-13895   (  13895) [001] b..1.  8767.340191: " + FIELDS,
    "trace-cmd report": "            ping-13895 [001]  8767.340191: " + FIELDS,
    "trace-cmd report -t": "            ping-13895 [001]  8767.340191000: " + FIELDS,
    "trace-cmd report -R": "ping-13895 [001] 8767.340191: "
    "net_dev_queue:  skbaddr={} len=98 name=lo",
    "trace-cmd 3.3 report": "   ping-13895 [001] b..1.  8767.340191: " + FIELDS,
    "trace-cmd 3.3 report -R": "   ping-13895 [001]-0x80 8767.340191: "
    "net_dev_queue:         skbaddr={} len=98 name=lo",
    "trace-cmd 3.3 report -l -R": "   ping-13895   1-0x80 8767.340191: "
    "net_dev_queue:         skbaddr={} len=98 name=lo",
    "trace-cmd report -l": "    ping-13895   1b....  8767.340191: " + FIELDS,
    "trace-cmd report, an instance": "web:             ping-13895 [001]  8767.340191: " + FIELDS,
    "latency-format": "    ping-13895     1b.... 8767340191us+: " + FIELDS,
    "perf script": "            ping 13895 [001]  8767.340191:                net:" + FIELDS,
    "perf script, with a period": "ping 13895/13895 [001]  8767.340191:          1 net:" + FIELDS,
}
ADDRESSES = ["ffff888107935200", "0xffff888107935200", "0xffff888107935200x"]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "trace.txt"


def read(tmp_path: Path, *lines: str, end: str = "\n") -> Trace:
    path = tmp_path / "trace.txt"
    path.write_text("\n".join(lines) + end)
    return read_text(path)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_same_row(tmp_path: Path, spelling: str, address: str) -> None:
    trace = read(tmp_path, "cpus=2", "version = 6", SPELLINGS[spelling].format(address))
    row = trace.events[QUEUE].iloc[0]
    assert (row.time_ns, row.cpu, row.pid, row.comm) == (8767_340_191_000, 1, 13895, "ping")
    assert (row.skbaddr, row.len, row["name"]) == (ADDRESS, 98, "lo")
    assert trace.events[QUEUE].skbaddr.dtype == "uint64"
    assert list(trace.events[QUEUE].columns[:5]) == EVENTS.names
    relative = ("times of latency-format count from the start of the buffer",)
    assert trace.notes == (relative if spelling == "latency-format" else ())


def test_raw_flags_of_trace_cmd_3_3(tmp_path: Path) -> None:
    lines = [f"  ping-1 [001]-0x{flags} 5.0000{n}: {FIELDS}" for n, flags in enumerate(["90", "0"])]
    assert read(tmp_path, *lines).events[QUEUE]["flags"].tolist() == [0x90, 0]


@pytest.mark.parametrize(
    "comm", ["my task", "a-12", "kworker/1:1H", "tmux: server", "x-1-2", "<idle>", "it's [1]"]
)
def test_comms_keep_their_spaces_dashes_and_colons(tmp_path: Path, comm: str) -> None:
    for line in (
        f"{comm:>16}-44    [001] d.h1.  5.000001: netif_rx: dev=eth0 skbaddr=0xffff8881 len=84",
        f"{comm:>16}    44 [001]  5.000001:  net:netif_rx: dev=eth0 skbaddr=0xffff8881 len=84",
    ):
        row = read(tmp_path, line).events["netif_rx"].iloc[0]
        assert (row.comm, row.pid, row["name"]) == (comm, 44, "eth0")


def test_flags_are_read_from_their_letters(tmp_path: Path) -> None:
    line = "  ping-1   [000] {}  5.000001: netif_rx: dev=eth0 skbaddr=0xffff8881 len=84"
    letters = ["dN.1.", "b.s1.", "..H..", "....."]
    trace = read(tmp_path, *map(line.format, letters))
    assert trace.events["netif_rx"]["flags"].tolist() == [0x25, 0x90, 0x18, 0]


def test_system_calls_have_their_events_names_whoever_printed_them(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        "  ping-7   [000] .....  1.000001: sys_sendto(fd: 3, buff: 55e8, len: 0x40, flags: 0)",
        "  ping-7   [000] .....  1.000002: sys_sendto -> 0x40",
        "  ping-7   [000]  1.000003: sys_enter_sendto:  fd: 0x3, buff: 0x55e8, len: 0x40, flags: 0",
        "  ping-7   [000]  1.000004: sys_exit_sendto:      0xffffffffffffffea",
    )
    assert trace.events["sys_enter_sendto"].fd.tolist() == [3, 3]
    assert trace.events["sys_exit_sendto"].ret.tolist() == [64, -22]


def test_lost_events_are_counted_between_their_neighbours(tmp_path: Path) -> None:
    line = "  ping-7   [00{}] .....  1.00000{}: netif_rx: dev=lo skbaddr=0xffff8881 len=84"
    trace = read(
        tmp_path,
        "CPU:1 [LOST 12 EVENTS]",
        line.format(1, 1),
        "CPU:1 [3 EVENTS DROPPED]",
        "CPU:0 [EVENTS DROPPED]",
        line.format(0, 2),
        line.format(1, 3),
        "CPU:0 [LOST 4 EVENTS]",
    )
    unknown = pd.NA
    expected = [
        ["", 1, unknown, 1000001000, 12],
        ["", 1, 1000001000, 1000003000, 3],
        ["", 0, unknown, 1000002000, unknown],
        ["", 0, 1000002000, unknown, 4],
    ]
    assert trace.lost.astype(object).fillna(-1).to_numpy().tolist() == [
        [-1 if value is unknown else value for value in row] for row in expected
    ]


def test_a_cut_line_is_left_out_with_a_note(tmp_path: Path) -> None:
    line = SPELLINGS["trace"].format("0xffff888107935200")
    trace = read(tmp_path, line, line, line[:-10], line[:-20], end="")
    assert len(trace.events[QUEUE]) == 2
    assert trace.notes == ("the last line is cut, left out", "1 lines are cut short, left out")


def test_a_hidden_address_is_missing_and_a_nil_one_zero(tmp_path: Path) -> None:
    line = (
        "  a-7   [001]  1.000001: kfree_skb: skbaddr={} rx_sk=(nil) protocol=2048 reason: NO_SOCKET"
    )
    trace = read(tmp_path, line.format("(____ptrval____)"), line.format("00000000d1c5a490"))
    frame = trace.events["kfree_skb"]
    assert frame.skbaddr.tolist() == [pd.NA, 0xD1C5A490]
    assert frame.rx_sk.tolist() == [0, 0]
    assert frame.reason.tolist() == ["NO_SOCKET", "NO_SOCKET"]


def test_a_missing_value_makes_no_floats_of_addresses(tmp_path: Path) -> None:
    line = "  a-7   [001]  1.00000{}: {}: skbaddr={} location=0xffff888107935201"
    text = [line.format(1, "kfree_skb", "0xffff888107935201")]
    text += [line.format(2, "kfree_skb", "(____ptrval____)"), line.format(3, "consume_skb", "0x1")]
    merged = merge_events(read(tmp_path, *text))
    assert merged.skbaddr.tolist() == [0xFFFF888107935201, pd.NA, 1]
    assert merged.skbaddr.dtype == "UInt64"


def test_a_count_longer_than_any_is_none(tmp_path: Path) -> None:
    header = f"# entries-in-buffer/entries-written: 5/{'9' * 14_000}   #P:2"
    line = SPELLINGS["trace"].format("0xffff8881")
    assert read(tmp_path, header, line).notes == read(tmp_path, line).notes


def test_overwritten_events_are_noted(tmp_path: Path) -> None:
    header = "# entries-in-buffer/entries-written: 5/12   #P:2"
    line = SPELLINGS["trace"].format("0xffff8881")
    assert "7 events were overwritten" in read(tmp_path, header, line).notes[0]


def test_text_without_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="no event in 2 lines"):
        read(tmp_path, "PING 127.0.0.1", "64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.03 ms")
    with pytest.raises(TraceFormatError, match="No such file"):
        read_text(tmp_path / "none.txt")


WORDS = [
    "ping-1", "[001]", "b..1.", "5.000001:", "99999999999999999999.999999999:", "net_dev_queue:",
    "dev=lo", "skbaddr=0xffff888107935200x", "skbaddr=(nil)", "len=-1", "len=0x", "len=", "=", ":",
    "len=99999999999999999999999", "time_ns=1", "cpu=lo", "buf=", "sys_sendto(fd: 3)", "-> 0x40",
    "sys_exit_sendto:", "print:", "CPU:1 [LOST 12 EVENTS]", "CPU:0 [EVENTS DROPPED]", "comm=", "\0",
    "# entries-in-buffer/entries-written: 5/12   #P:2", "net:net_dev_queue:", "12us+:", "1-0x80",
    "CPU:99999999999999999999999 [LOST 99999999999999999999999 EVENTS]", "[99999999999999999999]",
    "x-99999999999999999999", "\u0661", "\x85", "\u2028", "\r",
]  # fmt: skip
LINES = [
    *(s.format(a) for s in SPELLINGS.values() for a in ADDRESSES),
    "  ping-7   [000] .....  1.000001: sys_sendto(fd: 3, buff: 55e8, len: 0x40, flags: 0)",
    "  ping-7   [000] .....  1.000002: sys_sendto -> 0x40",
    "  ping-7   [000] .....  1.000003: tracing_mark_write: a marker",
    "  ping-7   [99999999999] .....  1.000003: netif_rx: dev=lo",
    "  ping-99999999999   [000] .....  1.000003: netif_rx: dev=lo",
    "  ping-7   [000] .....  99999999999.000003: netif_rx: dev=lo",
    "  ping-7   [000] -0xzz  1.000003: netif_rx: dev=lo",
    "  ping-7   [000]-0xfff  1.000003: netif_rx: dev=lo",
    "  ping-7   0b..1. 9999999999999999999999us: netif_rx: dev=lo",
    "CPU:99999999999 [LOST 99999999999999999999 EVENTS]",
    "CPU:1 [LOST 12 EVENTS]",
]


@st.composite
def damaged_lines(draw: st.DrawFn) -> str:
    """Return a line of somebody's, with words of others in it, or cut."""
    line = draw(st.one_of(st.sampled_from(LINES), st.just("  "), st.text(max_size=30)))
    for _ in range(draw(st.integers(0, 4))):
        at, end = sorted(draw(st.tuples(st.integers(0, 120), st.integers(0, 120))))
        word = draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=3), st.just(" ")))
        line = line[:at] + word + line[min(end, at + 8) :]
    return line


@given(lines=st.lists(damaged_lines(), max_size=12), end=st.sampled_from(["\n", ""]))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused(text_file: Path, lines: list[str], end: str) -> None:
    text_file.write_bytes(("\n".join(lines) + end).encode(errors="surrogatepass"))
    try:
        trace = read_text(text_file)
    except TraceFormatError:
        return
    merged = merge_events(trace)
    assert len(merged) == sum(map(len, trace.events.values()))
    assert merged.time_ns.is_monotonic_increasing
    assert list(trace.lost) == LOST.names


@given(data=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(text_file: Path, data: bytes) -> None:
    text_file.write_bytes(LINES[0].encode() + b"\n" + data)
    assert len(read_text(text_file).events[QUEUE]) >= 1


needs_tracing = pytest.mark.skipif(not can_record, reason="needs root, trace-cmd and tracefs")


@pytest.mark.kernel
@needs_tracing
@pytest.mark.parametrize("options", [["-t"], ["-t", "-R"], ["-t", "-l"], ["-t", "-N"]])
def test_report_of_a_recording_reads_as_the_recording(tmp_path: Path, options: list[str]) -> None:
    path = record(
        tmp_path / "trace.dat", ["net"], ["ping", "-q", "-c", "5", "-i", "0.002", "127.0.0.1"]
    )
    text = read(tmp_path, *report(path, *options))
    binary = read_events(path)
    assert set(text.events) == set(binary.events)
    for name, frame in binary.events.items():
        printed = text.events[name]
        common = [c for c in printed if c in frame and c != "flags"]
        assert len(common) >= 5
        for column in common:
            ours = frame[column].astype(int) if frame[column].dtype == bool else frame[column]
            if column == "comm" and "-l" in options:
                ours = ours.astype(str).str[:8].str.strip()  # no more is printed
            assert printed[column].tolist() == ours.tolist(), (name, column)


@pytest.mark.kernel
@needs_tracing
def test_the_running_kernels_own_output_is_read(tmp_path: Path) -> None:
    with instance() as name:
        place = TRACEFS / "instances" / name
        (place / "trace_marker").write_text("a marker: x=1\n")
        kept = (place / "trace").read_text()
    path = tmp_path / "trace"
    path.write_text(kept)
    frame = merge_events(read_text(path))
    assert frame.event.tolist() == ["print"]
    assert frame.buf.tolist() == ["a marker: x=1"]
