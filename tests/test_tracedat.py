import re
from pathlib import Path

import pytest

from maceproc.tracedat import merge_events, read_events
from tests.tracing import can_record, record, report

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not can_record, reason="needs root, trace-cmd and tracefs"),
]

PING = ["ping", "-q", "-c", "20", "-i", "0.002", "127.0.0.1"]
FORMS = [("6", "none"), ("7", "none"), ("7", "zstd")]


@pytest.mark.parametrize(("version", "compression"), FORMS)
def test_events_and_times_are_those_of_trace_cmd_report(
    tmp_path: Path, version: str, compression: str
) -> None:
    path = record(
        tmp_path / "trace.dat", ["net", "skb", "irq"], PING,
        "-C", "mono", "--file-version", version, "--compression", compression,
    )  # fmt: skip
    trace = read_events(path)
    merged = merge_events(trace)
    line = re.compile(r".*\[(\d+)\]\s+(\d+)\.(\d{9}): (\w+):")
    theirs = [m.groups() for m in map(line.match, report(path, "-t")) if m]
    ours = [
        (f"{cpu:03}", str(time // 10**9), f"{time % 10**9:09}", event)
        for cpu, time, event in zip(merged.cpu, merged.time_ns, merged.event, strict=True)
    ]
    assert len(ours) > 100
    assert ours == theirs
    assert trace.clock == "mono"
    assert trace.info["version"] == int(version)
    assert trace.info["compression"] == compression
    assert trace.notes == ()
    assert trace.lost.empty
