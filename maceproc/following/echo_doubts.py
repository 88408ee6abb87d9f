"""What to doubt in a capture by the tracer in the kernel: what it could not follow, and why."""

from __future__ import annotations

from collections.abc import Iterator

from maceproc.capture import Tracing
from maceproc.echo_rows import COUNTS


def doubts_of_echoes(tracing: Tracing) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, level, message and advice of every finding; none of a capture by ftrace."""
    if tracing.tracer != "bpf":
        return
    if tracing.rows_lost:
        yield (
            "lost echoes",
            "warning",
            f"{tracing.rows_lost} echoes were overwritten in the kernel before they were read",
            "the machine was too busy to read them; send fewer pings a second",
        )
    meaning = dict(COUNTS)
    for name, count in tracing.not_followed.items():
        yield (
            "not followed",
            "note",
            f"{count} packets: {meaning.get(name, name)}",
            "echoes of other programs count too; a ping without its echo is `incomplete`",
        )
    yield (
        "BPF tracer",
        "note",
        "it sees neither the send call nor the delivery to the program: both are in the residual",
        "record with --tracer ftrace for the whole ledger",
    )
