"""What is written is read back; and nothing but that, whoever reads."""

import random
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maceproc.errors import TraceFormatError
from maceproc.schema import Trace
from maceproc.tracedat import merge_events, native, onepass, read_events
from tests.tracedat_samples import files

compiled = native.loops


@pytest.fixture(autouse=True, scope="module")
def many_spans() -> Iterator[None]:
    """Cut also the smallest file into spans of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onepass, "PAGES_PER_SPAN", 1)
        patch.setattr(native, "WORKERS", 2)
        yield


quick = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written") / "trace.dat"


@pytest.fixture(params=["native", "numpy"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native" and compiled is None:
        pytest.skip("installed without the compiled loops")
    if request.param == "numpy":
        monkeypatch.setattr(native, "loops", None)
    return str(request.param)


def rows(trace: Trace, name: str) -> list[dict[str, object]]:
    frame = trace.events.get(name, pd.DataFrame())
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)]


@given(written=files())
@settings(quick, suppress_health_check=list(HealthCheck))
def test_what_is_written_is_read_back(loops: str, file: Path, written) -> None:
    description, events, gaps = written
    file.write_bytes(description.write())
    trace = read_events(file)
    assert trace.notes == ()
    # Python's sort is stable: at equal times the lowest CPU, then the order of recording.
    streams = {name: number for number, name in enumerate(b.name for b in description.buffers)}
    expected = sorted(events, key=lambda e: (e[2].time, e[1], streams[e[0]]))
    for name in ("sample", "print"):
        own = [(cpu, event) for _, cpu, event in expected if event.name == name]
        read = rows(trace, name)
        assert len(read) == len(own)
        for row, (cpu, event) in zip(read, own, strict=True):
            comm = {0: "<idle>", 1: "init", 2: "a b-c"}.get(event.row["pid"], "<...>")
            wanted = {"time_ns": event.time, "cpu": cpu, "comm": comm, **event.row}
            assert {key: row[key] for key in wanted} == wanted
    assert merge_events(trace).time_ns.tolist() == [event.time for _, _, event in expected]
    read_gaps = trace.lost.astype(object).where(trace.lost.notna(), None)
    assert sorted(map(str, read_gaps.itertuples(index=False, name=None))) == sorted(map(str, gaps))


@given(written=files(), seed=st.integers(0, 2**32))
@settings(quick, suppress_health_check=list(HealthCheck))
def test_both_loops_read_damaged_files_alike(file: Path, written, seed: int) -> None:
    if compiled is None:
        pytest.skip("installed without the compiled loops")
    data = bytearray(written[0].write())
    rng = random.Random(seed)
    for _ in range(rng.randrange(1, 40)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    file.write_bytes(data[: rng.randrange(len(data) // 2, len(data) + 1)])
    answers = []
    for module in (compiled, None):
        native.loops = module
        try:
            answers.append(read_events(file))
        except TraceFormatError as error:
            answers.append(error)
        finally:
            native.loops = compiled
    ours, theirs = answers
    assert type(ours) is type(theirs)
    if isinstance(ours, TraceFormatError):
        assert str(ours) == str(theirs)
        return
    assert ours.events.keys() == theirs.events.keys()
    for name, frame in ours.events.items():
        pd.testing.assert_frame_equal(frame, theirs.events[name])
    pd.testing.assert_frame_equal(ours.lost, theirs.lost)
    assert ours.notes == theirs.notes


@given(written=files(), start=st.integers(0, 2**41), length=st.integers(0, 2**38))
@settings(quick, suppress_health_check=list(HealthCheck))
def test_a_span_of_time_is_the_same_rows(file: Path, written, start: int, length: int) -> None:
    file.write_bytes(written[0].write())
    trace = read_events(file)
    read = read_events(file, start_ns=start, end_ns=start + length)
    after = trace.lost.after_ns.fillna(trace.lost.before_ns)
    touched = (trace.lost.before_ns >= start) & (after < start + length)
    expected = trace.lost[touched].reset_index(drop=True)
    pd.testing.assert_frame_equal(read.lost, expected, check_categorical=False)
    whole, part = merge_events(trace), merge_events(read)
    if not len(part):
        assert not ((whole.time_ns >= start) & (whole.time_ns < start + length)).any()
        return
    inside = whole[(whole.time_ns >= start) & (whole.time_ns < start + length)]
    assert part.time_ns.tolist() == inside.time_ns.tolist()
    assert part.event.tolist() == inside.event.tolist()
