"""Watch for a time: read rows, and hand them to every sink."""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from maceproc import __version__
from maceproc.pairing import Rows
from maceproc.watching.columns import echo_columns
from maceproc.watching.series import AllSeries
from maceproc.watching.watcher import Watcher

READ_EVERY_S = 0.05  # where few points come

Columns = dict[str, NDArray[Any] | list[str]]


class Sink(Protocol):
    """A function that takes every echo."""

    def __call__(self, columns: Columns) -> None:
        """Take echoes (`maceproc.watching.columns`); there may be none."""


@dataclass
class Watching:
    """A watch that runs: what is known so far, for whoever shows it.

    `tell` writes a line for people: above a table, while one is shown. `lock` is held while the
    numbers change, where another thread reads them.
    """

    watcher: Watcher
    series: AllSeries
    tell: Callable[[str], None]
    lock: contextlib.AbstractContextManager[Any] = field(default_factory=contextlib.nullcontext)

    def run(
        self,
        sinks: list[Sink],
        show: Callable[[], None],
        *,
        show_every_s: float,
        duration_s: float | None,
        stop: threading.Event,
    ) -> None:
        """Follow echoes until the duration is over or `stop` is set.

        A signal sets it: an exception from its handler could come between reading an echo and
        handing it on.
        """
        began_s = time.monotonic()
        shown_s = began_s
        while not stop.is_set() and (duration_s is None or time.monotonic() - began_s < duration_s):
            left_s = self.watcher.tracer.pause_s(READ_EVERY_S)
            if duration_s is not None:
                left_s = min(left_s, began_s + duration_s - time.monotonic())
            stop.wait(max(left_s, 0.0))
            rows = self.watcher.poll()
            if rows is not None:
                self._take(rows, sinks)
            if time.monotonic() - shown_s >= show_every_s:
                shown_s = time.monotonic()
                show()

    def finish(self, sinks: list[Sink]) -> None:
        """Stop following, and hand on the echoes that have come until now."""
        self._take(self.watcher.finish(), sinks)

    def facts(self) -> dict[str, Any]:
        """Return what was watched and how, as far as it is what a capture's sidecar says."""
        losses = self.watcher.losses()
        return {
            "maceproc": __version__,
            "kernel": platform.release(),
            "tracer": "bpf",
            "clock": "mono",
            "corrected_rtt": "kernel_rtt_ns - outbound_ns - inbound_ns, by the kernel's own times; "
            "the sender's socket and program are in neither",
            "watched": [
                {"container": self.watcher.name(place.number), "path": place.route}
                for place in self.watcher.places
            ],
            "points_lost": losses.points_lost,
            "requests_without_outer_device": losses.stayed_inside,
            "packets_not_followed": losses.counts,
        }

    def _take(self, rows: Rows, sinks: list[Sink]) -> None:
        with self.lock:
            self.series.add(rows, time.monotonic_ns())
            while self.watcher.gone:
                self.series.forget(self.watcher.gone.pop())
        if sinks:
            offset_ns = time.time_ns() - time.monotonic_ns()
            columns = echo_columns(rows, self.watcher.name, offset_ns)
            for sink in sinks:
                sink(columns)


@contextlib.contextmanager
def closing_all(*closers: Callable[[], None] | None) -> Iterator[None]:
    """Call each of these at the end, whatever ends it."""
    with contextlib.ExitStack() as stack:
        for closer in closers:
            if closer is not None:
                stack.callback(closer)
        yield
