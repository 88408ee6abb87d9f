"""What to doubt in a capture by the tracer in the kernel: what it could not follow, and why."""

from __future__ import annotations

from collections.abc import Iterator

from maceproc.capture import Tracing
from maceproc.echo_rows import UNREAD


def doubts_of_echoes(tracing: Tracing) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, level, message and advice of every finding; a capture by ftrace has none."""
    if tracing.tracer != "bpf":
        return
    if tracing.points_lost:
        yield (
            "lost points",
            "warning",
            f"{tracing.points_lost} points of echoes were overwritten in the kernel before they "
            "were read",
            "the machine was too busy to read them; send fewer pings a second",
        )
    for name, count in tracing.unread.items():
        yield (
            "not followed",
            "note",
            f"{count} packets: {UNREAD.get(name, name)}",
            "echoes of other programs count too; a ping without its echo is `incomplete`",
        )
    yield (
        "BPF tracer",
        "note",
        "it sees neither the send call nor the delivery to the program: both are in the residual",
        "record with --tracer ftrace for the whole ledger",
    )
