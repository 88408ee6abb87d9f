"""What ``maceproc pings`` shows: how the output of a ping was read, run by run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from maceproc.capture import Run
from maceproc.capture_files import load_sidecar, sidecar_path
from maceproc.errors import CaptureError
from maceproc.pings import PingOutput, parse_ping, parse_runs, rows_of_run
from maceproc.reporting.text_table import beside
from maceproc.schema import SCHEMA_VERSION
from maceproc.tracedat.container import is_trace_dat
from maceproc.units import format_us

_SIDECAR = re.compile(rb'\A\s*\{\s*"format":\s*"maceproc capture"')
ROW_FIELDS = (
    *("seq", "status", "rtt_ns", "rtt_resolution_ns"),
    *("received_at_ns", "size_bytes", "ttl", "message"),
)


class Printed(NamedTuple):
    """The output of one run to one target, as read; only a capture tells the run."""

    run: Run | None
    output: PingOutput
    rows: list[dict[str, Any]]


def read_outputs(file: str) -> list[Printed]:
    """Read what pings printed, from a text (``-`` is standard input) or from a capture's runs.

    Raises CaptureError when there is no such file, or when nothing in it was understood.
    """
    outputs = [Printed(run, output, rows_of_run(output)) for run, output in _outputs(file)]
    if not any(printed.rows or printed.output.sent is not None for printed in outputs):
        raise _nothing_understood(file, [printed.output for printed in outputs])
    return outputs


def _outputs(file: str) -> Iterator[tuple[Run | None, PingOutput]]:
    path = Path(file)
    if file != "-" and sidecar_path(path).is_file():
        path = sidecar_path(path)
    data = _read(path, file)
    if _SIDECAR.match(data[:200]):
        yield from parse_runs(load_sidecar(path).runs)
    elif file != "-" and is_trace_dat(path):
        raise CaptureError(
            f"{path}: a trace without a sidecar, which would hold what the ping printed",
            hint="give the text that the ping printed",
        )
    else:
        yield from ((None, output) for output in parse_ping(_decoded(data)))


def _read(path: Path, file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else path.read_bytes()
    except OSError as error:
        raise CaptureError(
            f"{path}: {error.strerror}", hint="give a ping's output, or a capture"
        ) from error


def _decoded(data: bytes) -> str:
    """Decode a text; a byte-order mark says that it is UTF-16, as PowerShell writes it."""
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _nothing_understood(file: str, outputs: list[PingOutput]) -> CaptureError:
    lines = sum(output.not_understood for output in outputs)
    first = next((line for output in outputs for line in output.not_understood_first), "")
    refused = next((output.refused for output in outputs if output.refused), "")
    said = next((remark for output in outputs for remark in output.remarks), "")
    name = "standard input" if file == "-" else file
    count = "1 line" if lines == 1 else f"{lines} lines, the first"
    why = refused or said or (f"{count}: {first!r}" if lines else "it is empty")
    return CaptureError(
        f"{name}: no line of a ping's output was understood: {why}",
        hint="read are the replies and summaries of iputils, busybox, inetutils, BSD, fping, "
        "oping, hping and Go's pings, in English best (LC_ALL=C)",
    )


def as_json(file: str) -> str:
    """Return what was read as one JSON object."""
    outputs = read_outputs(file)
    document = {
        "schema_version": SCHEMA_VERSION,
        "runs": [_run_as_dict(printed) for printed in outputs],
        "not_understood": sum(printed.output.not_understood for printed in outputs),
        "not_understood_first": [
            line for printed in outputs for line in printed.output.not_understood_first
        ][:3],
    }
    return json.dumps(document, indent=1)


def _run_as_dict(printed: Printed) -> dict[str, Any]:
    run, output = printed.run, printed.output
    return {
        "round": run.round if run else None,
        "arm": run.arm if run else None,
        "flavour": output.flavour,
        "flavour_why": output.flavour_why,
        "first_seq": output.first_seq,
        "first_seq_why": output.first_seq_why,
        "stamped_by": output.stamped_by,
        "target": output.target or None,
        "payload_bytes": output.payload_bytes,
        "sent": output.sent,
        "received": output.received,
        "remarks": output.remarks,
        "rows": [{name: row.get(name) for name in ROW_FIELDS} for row in printed.rows],
    }


def as_text(file: str, head: int) -> str:
    """Return what was read for people, with the first rows of every run."""
    outputs = read_outputs(file)
    parts = ["\n".join(_run_as_text(n, one, head)) for n, one in enumerate(outputs, start=1)]
    return "\n\n".join(parts)


def _run_as_text(number: int, printed: Printed, head: int) -> Iterator[str]:
    run, output, rows = printed
    whose = f" ({run.arm}, round {run.round})" if run else ""
    counts = ["unknown" if n is None else str(n) for n in (output.sent, output.received)]
    yield f"run {number}{whose}: {output.target or 'target unknown'}"
    yield f"  sent       {counts[0]}, received {counts[1]}{_by_status(rows)}"
    yield from beside("  flavour    ", f"{output.flavour}: {output.flavour_why}")
    first = "unknown" if output.first_seq is None else output.first_seq
    yield from beside("  first seq  ", f"{first}: {output.first_seq_why}")
    yield from beside("  stamps     ", f"{output.stamped_by or 'unknown'}: {output.stamped_by_why}")
    payload = "unknown" if output.payload_bytes is None else f"{output.payload_bytes} bytes"
    yield f"  payload    {payload}"
    for remark in output.remarks:
        yield from beside("  remark     ", remark)
    if output.not_understood:
        yield from beside("  not understood: ", lines_not_understood(output))
    if rows:
        yield f"  {'seq':>6}  {'status':<10} {'RTT [us]':>12} {'step [us]':>10}  message"
    yield from map(_row_as_text, rows[:head])
    if len(rows) > head:
        yield f"  ... {len(rows)} rows in all: --head shows more"


def _by_status(rows: list[dict[str, Any]]) -> str:
    statuses = [row["status"] for row in rows]
    counted = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
    return f"; rows: {counted}" if counted else "; no rows"


def _row_as_text(row: dict[str, Any]) -> str:
    times = [row.get("rtt_ns"), row.get("rtt_resolution_ns")]
    rtt, step = ("" if time_ns is None else format_us(time_ns) for time_ns in times)
    line = f"  {row['seq']:>6}  {row['status']:<10} {rtt:>12} {step:>10}  {row['message']}"
    return line.rstrip()


def lines_not_understood(output: PingOutput) -> str:
    """Return how many lines were not understood, and the first of them, in words."""
    count = output.not_understood
    first = f"first: {output.not_understood_first[0]!r}"
    return f"1 line, {first}" if count == 1 else f"{count} lines, {first}"
