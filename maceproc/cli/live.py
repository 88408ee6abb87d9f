"""What the pings of a recording took so far, as mtr shows it: a line for every arm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from maceproc.recording.session import Progress

US_PER_MS = 1000
_REPLY = re.compile(r"\bseq=(\d+)\b.*?\btime=([\d.]+) ?ms|\bicmp_seq=(\d+)\b.*?\btime=([\d.]+) ?ms")
_TOTAL = re.compile(r"\b(\d+) packets transmitted, (\d+) (?:packets )?received\b")
LONGEST_LINE = 1000


@dataclass
class ArmSoFar:
    """The pings of one arm: of ended runs as ping counted them, of the running one as printed."""

    runs: int = 0
    sent: int = 0
    received: int = 0
    rtts_us: list[float] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    rest: str = ""

    def read(self, printed: str) -> None:
        """Take what ping printed since the last time; a line may come in pieces."""
        *lines, self.rest = (self.rest + printed).split("\n")
        self.rest = self.rest[-LONGEST_LINE:]
        for line in lines:
            reply = _REPLY.search(line)
            if reply:
                number, time_ms = (text for text in reply.groups() if text)
                self.numbers.add(int(number))
                self.rtts_us.append(float(time_ms) * US_PER_MS)
            total = _TOTAL.search(line)
            if total:
                self.sent += int(total[1])
                self.received += int(total[2])
                self.numbers.clear()

    @property
    def lost(self) -> float:
        """The share of the requests without a reply, of those whose time has come."""
        running = max(self.numbers) - min(self.numbers) + 1 if self.numbers else 0
        sent, received = self.sent + running, self.received + len(self.numbers)
        return 1 - received / sent if sent else 0.0


class LivePings:
    """The arms of a recording, in the order in which they first ran."""

    def __init__(self) -> None:
        self.arms: dict[str, ArmSoFar] = {}
        self.done, self.total = 0, 0
        self._running = ArmSoFar()

    def follow(self, progress: Progress) -> None:
        """Note which run begins."""
        self.done, self.total = progress.done, progress.total
        if progress.arm:
            self._running = self.arms.setdefault(progress.arm, ArmSoFar())
            self._running.runs += 1
            self._running.rest = ""
            self._running.numbers.clear()

    def read(self, printed: bytes) -> None:
        """Take what the running ping printed."""
        self._running.read(printed.decode(errors="replace"))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield arm, runs, replies, loss, and RTTs [us]: the last, their mean, least and most."""
        for name, arm in self.arms.items():
            rtts = arm.rtts_us
            times = (rtts[-1], sum(rtts) / len(rtts), min(rtts), max(rtts)) if rtts else ()
            texts = [f"{time:.1f}" for time in times] or ["-"] * 4
            yield name, f"{arm.runs}", f"{len(rtts)}", f"{100 * arm.lost:.1f} %", *texts

    def table(self) -> Table:
        """Return the table that is drawn."""
        from rich.table import Table

        title = f"run {min(self.done + 1, self.total)} of {self.total}; RTTs [us]"
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        table.add_column("", no_wrap=True)
        for name in ("runs", "replies", "loss", "last", "mean", "min", "max"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows():
            table.add_row(*row)
        return table


@contextmanager
def live_pings() -> Iterator[LivePings]:
    """Draw the arms on standard error, at most once a second: who wakes up disturbs a ping."""
    from rich.console import Console
    from rich.live import Live

    pings = LivePings()
    console = Console(stderr=True)
    with Live(
        console=console, get_renderable=pings.table, refresh_per_second=1, transient=True
    ) as live:
        yield pings
        live.refresh()
