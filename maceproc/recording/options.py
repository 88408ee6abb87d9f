"""How a command is recorded: the options of `maceproc.recording.record.record`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maceproc.calibration import Calibration

Tracer = Literal["ftrace", "perf", "bpf", "ftrace+bpf"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a command is recorded."""

    rounds: int
    """Each round runs the command once per arm."""

    baseline: bool
    """The untraced arms run too. Without them the cost of tracing cannot be reported."""

    events: str
    """``minimal``, ``full``, or events and patterns separated by commas (``net:*,skb:kfree_skb``).
    """

    outer: str
    """The outer device; empty: the device that the host's routes choose."""

    force: bool
    """Replace a capture that exists."""

    buffer_kb: int | None
    """Ring buffer per CPU [KiB]; None: `maceproc.recording.tracing.default_buffer_kb`."""

    awake: bool
    """Keep the CPUs from going idle while any arm runs: RTTs without the cost of waking up."""

    tracer: Tracer
    """``ftrace`` records raw events with trace-cmd, ``perf`` the same events with perf. ``bpf``
    records the points of every echo with programs in the kernel; it does not use `events` and
    `buffer_kb`. ``ftrace+bpf`` records events and points."""

    piece_limit_bytes: int
    """The recording ends when the events of one CPU take so many bytes: trace-cmd 3.1.6 cannot
    count beyond 4 GiB."""

    calibration: Calibration | None
    """Is kept in the sidecar, and used when the capture is analyzed."""
