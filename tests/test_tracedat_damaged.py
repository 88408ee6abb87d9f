"""Files that are cut, damaged or something else: read as far as they are whole, or refused."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from maceproc.errors import TraceFormatError
from maceproc.schema import Trace
from maceproc.tracedat import native, onepass, read_events
from tests.tracedat_samples import COMMON, field_line
from tests.tracedat_writer import Buffer, File, Machine, Page, Record

MACHINE = Machine()


@pytest.fixture(autouse=True, scope="module")
def many_spans() -> Iterator[None]:
    """Cut also the smallest file into spans of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onepass, "PAGES_PER_SPAN", 1)
        patch.setattr(native, "WORKERS", 2)
        yield


FORMAT = (
    f'name: tick\nID: 300\nformat:\n{COMMON}{field_line("u64 number", 8, 8, 0)}\nprint fmt: ""\n'
)
CONTAINERS = [(6, "none"), (7, "none"), (7, "zstd"), (7, "zlib")]


def ticks(start: int, number: int, step: int = 1000) -> list[Page]:
    """Return pages with 100 events each, at `start` and every `step` [ns]."""
    records = [
        Record(start + step * n, MACHINE.pack("HBBiQ", 300, 0, 0, 1, n)) for n in range(number)
    ]
    return [Page(records[at].time, records[at : at + 100]) for at in range(0, len(records), 100)]


def two_cpus(version: int, compression: str) -> File:
    return File(
        [Buffer("", {0: ticks(5000, 3000), 1: ticks(5500, 3000)})],
        {"test": [FORMAT]},
        version=version,
        compression=compression,
        pages_in_chunk=3,
    )


def read(tmp_path: Path, data: bytes) -> Trace:
    path = tmp_path / "trace.dat"
    path.write_bytes(data)
    return read_events(path)


@pytest.mark.parametrize(("version", "compression"), CONTAINERS)
def test_a_cut_file_gives_what_is_whole(tmp_path: Path, version: int, compression: str) -> None:
    data = two_cpus(version, compression).write()
    whole = read(tmp_path, data).events["tick"]
    assert len(whole) == 6000
    assert whole.time_ns.tolist() == sorted(whole.time_ns)
    cut = len(data) // 2
    trace = read(tmp_path, data[:cut])
    assert trace.notes
    assert str(cut) in trace.notes[0]
    frame = trace.events["tick"]
    assert 0 < len(frame) < 6000
    for cpu, own in frame.groupby("cpu"):
        kept = whole[whole.cpu == cpu].number.tolist()[: len(own)]
        assert own.number.tolist() == kept


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_file_without_its_last_options_keeps_all_its_pages(
    tmp_path: Path, compression: str
) -> None:
    data = two_cpus(7, compression).write()
    end = data.rindex(b"mono\0")  # in the option that describes the buffer
    trace = read(tmp_path, data[: end - 31])
    assert len(trace.events["tick"]) == 6000
    assert trace.events["tick"].cpu.value_counts().to_dict() == {0: 3000, 1: 3000}
    assert "numbered in their order" in trace.notes[0]


def test_a_damaged_page_keeps_what_is_before_the_damage(tmp_path: Path) -> None:
    data = bytearray(two_cpus(7, "none").write())
    page = data.index(MACHINE.pack("Q", 5000), 4096)
    place = page + 16 + 20 * 30  # header of the 31st event: its size reaches behind the page
    data[place : place + 8] = MACHINE.pack("II", 0, 1 << 20)
    trace = read(tmp_path, bytes(data))
    assert len(trace.events["tick"]) == 6000 - 70
    assert "1 of 30 pages of CPU 0 are damaged" in trace.notes[0]


def test_records_without_a_format_are_left_out_with_a_note(tmp_path: Path) -> None:
    file = two_cpus(7, "none")
    file.buffers[0].cpus[0][0].records[5].payload = MACHINE.pack("HBBiQ", 999, 0, 0, 1, 0)
    trace = read(tmp_path, file.write())
    assert len(trace.events["tick"]) == 5999
    assert trace.notes == ("1 records left out: no format for type 999",)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "an empty file"),
        (b"PERFILE2" + bytes(100), "perf script"),
        (b"# tracer: nop\n", "the start of a trace.dat"),
        (b"\x17\x08\x44tracing0.6\0" + bytes(50), "version '0.6'"),
        (b"\x17\x08\x44tracing7\0\0\x08", "the page size"),
        (b"\x17\x08\x44tracing7\0\0\x08\0\x10\0\0zstd\0\0" + bytes(8), "no event formats"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    with pytest.raises(TraceFormatError, match=r"trace\.dat.*found.*expected") as error:
        read(tmp_path, data)
    assert complaint in str(error.value)


def test_other_paths_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.dat", Path("/dev/null")):
        with pytest.raises(TraceFormatError):
            read_events(path)


@pytest.mark.parametrize(
    ("place", "number", "complaint"),
    [
        (b"mono\0\0\x10\0\0", 3, "a page size of 3"),  # the buffer's page size
    ],
)
def test_a_wrong_number_is_named(tmp_path: Path, place: bytes, number: int, complaint: str) -> None:
    data = bytearray(two_cpus(7, "none").write())
    at = data.index(place) + 5
    data[at : at + 4] = MACHINE.pack("I", number)
    with pytest.raises(TraceFormatError, match=complaint):
        read(tmp_path, bytes(data))


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    data = two_cpus(7, "zstd").write().replace(b"zstd\0", b"lzma\0", 1)
    with pytest.raises(TraceFormatError, match=r"compression 'lzma'.*trace-cmd convert"):
        read(tmp_path, data)


def test_a_claim_of_gigabytes_is_refused(tmp_path: Path) -> None:
    data = bytearray(two_cpus(7, "zstd").write())
    chunk = 3 * 4096
    at = data.index(MACHINE.pack("I", chunk))
    data[at : at + 4] = MACHINE.pack("I", 0xFFFF_F000)
    with pytest.raises(TraceFormatError, match="unpacked bytes"):
        read(tmp_path, bytes(data))


@pytest.mark.parametrize("value", [1 << 63, (1 << 64) - 4096])
def test_an_offset_beyond_63_bits_is_no_data(tmp_path: Path, value: int) -> None:
    # Found by fuzzing: such an offset does not fit numpy's int64.
    file = two_cpus(6, "none")
    data = bytearray(file.write())
    table = data.index(b"flyrecord\0") + 10
    data[table + 16 : table + 24] = MACHINE.pack("Q", value)
    trace = read(tmp_path, bytes(data))
    assert len(trace.events["tick"]) == 3000
    assert "of CPU 1 are missing" in trace.notes[0]


@pytest.mark.parametrize(("version", "compression"), CONTAINERS)
def test_pages_outside_the_span_of_time_are_not_read(
    tmp_path: Path, version: str, compression: str
) -> None:
    data = bytearray(two_cpus(version, compression).write())
    span = {"start_ns": 1_500_000, "end_ns": 1_600_000}
    path = tmp_path / "trace.dat"
    path.write_bytes(data)
    whole = read_events(path, **span).events["tick"]
    assert len(whole) == 200
    if compression == "none":  # damage every page but the ones needed: its commit word
        start = data.index(MACHINE.pack("Q", 5000), 4096)
        for page in [*range(12), *range(18, 42), *range(48, 60)]:
            data[start + 4096 * page + 8] = 0xFF
            data[start + 4096 * page + 9] = 0xFF
    else:  # damage the second chunk: the search looks at few
        chunks = [at for at in range(len(data)) if data[at : at + 4] == MACHINE.pack("I", 3 * 4096)]
        data[chunks[1] + 4 : chunks[1] + 24] = bytes(20)
    path.write_bytes(data)
    pd.testing.assert_frame_equal(read_events(path, **span).events["tick"], whole)
    with pytest.raises((TraceFormatError, AssertionError)):
        assert read_events(path).notes == ()


def test_an_instance_that_was_not_written_is_noted(tmp_path: Path) -> None:
    file = two_cpus(6, "none")
    file.buffers.append(Buffer("web", {0: ticks(7000, 100)}))
    data = bytearray(file.write())
    place = data.index(b"web\0") - 8
    assert len(read(tmp_path, bytes(data)).events["tick"]) == 6100
    data[place : place + 8] = bytes(8)
    trace = read(tmp_path, bytes(data))
    assert len(trace.events["tick"]) == 6000
    assert trace.notes == ("the data of buffer 'web' is missing: it was not written",)


def test_formats_of_trace_printk_are_found_by_their_address(tmp_path: Path) -> None:
    fields = field_line("unsigned long ip", 8, 8, 0) + field_line("const char * fmt", 16, 8, 0)
    form = f"name: bprint\nID: 6\nformat:\n{COMMON}{fields}"
    form += field_line("u32 buf[]", 24, 0, 0) + '\nprint fmt: ""\n'
    payload = MACHINE.pack("HBBiQQII", 6, 0, 0, 1, 0xFFFF0000, 0xFFFF1000, 7, 8)
    file = File(
        [Buffer("", {0: [Page(1000, [Record(1000, payload)])]})],
        {"ftrace": [form]},
        printk='0xffff1000 : "a number: %d, \\"%d\\"\\n"\n',
    )
    trace = read(tmp_path, file.write())
    row = trace.events["bprint"].iloc[0]
    assert row.buf == (7, 8)
    assert trace.info["printk_formats"][row.fmt] == 'a number: %d, "%d"\n'
