"""What is watched, for Prometheus: histograms [s] and counters, by its official client.

The client's own Histogram takes one observation after the other; here whole histograms are handed
over when they are asked for (`prometheus_client.registry.Collector`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from maceproc.echo_rows import COUNTS
from maceproc.echoes import STATUSES
from maceproc.errors import TargetError
from maceproc.units import NS_PER_S
from maceproc.watching.histograms import CumulativeHistogram
from maceproc.watching.series import QUANTITIES, AllSeries
from maceproc.watching.watcher import Losses

LABELS = ("container", "target")
DEFAULT_PORT = 9876


class Exporter:
    """Serves the metrics over HTTP until it is closed; `lock` is held while they change.

    Raises TargetError when the address cannot be used.
    """

    def __init__(
        self,
        address: str,
        port: int,
        series: AllSeries,
        name_of: Callable[[int], str],
        losses: Callable[[], Losses],
    ) -> None:
        self.lock = threading.Lock()
        registry = CollectorRegistry()
        registry.register(_Echoes(self.lock, series, name_of, losses))
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except OSError as error:
            raise TargetError(
                f"{address}:{port}: {error.strerror or error}",
                hint="serve on another address or port: --prometheus [ADDR]:PORT",
            ) from error
        self.port = self._server.server_port

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Echoes(Collector):
    def __init__(
        self,
        lock: threading.Lock,
        series: AllSeries,
        name_of: Callable[[int], str],
        losses: Callable[[], Losses],
    ) -> None:
        self._lock, self._series, self._name_of, self._losses = lock, series, name_of, losses

    def describe(self) -> Iterable[Metric]:
        """Return nothing, as the client allows: names are then not compared."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return every metric as it is now."""
        with self._lock:
            return [*self._of_series(), *self._of_losses()]

    def _of_series(self) -> Iterable[Metric]:
        echoes = CounterMetricFamily(
            "maceproc_echoes", "ICMP echoes by outcome.", labels=(*LABELS, "status")
        )
        spans = {
            name: HistogramMetricFamily(
                f"maceproc_echo_{name}_seconds", f"Of an ICMP echo: {meaning}.", labels=LABELS
            )
            for name, meaning in QUANTITIES.items()
        }
        for key, series in self._series.series.items():
            labels = (self._name_of(key.container), key.target)
            for status, count in zip(STATUSES, series.statuses.tolist(), strict=True):
                echoes.add_metric((*labels, status), count)
            for name, family in spans.items():
                buckets, total_s = _buckets(series.total[name])
                family.add_metric(labels, buckets, total_s)
        return [echoes, *spans.values()]

    def _of_losses(self) -> Iterable[Metric]:
        losses = self._losses()
        lost = CounterMetricFamily(
            "maceproc_points_lost", "Points of echoes that were overwritten before they were read."
        )
        lost.add_metric((), losses.points_lost)
        packets = CounterMetricFamily(
            "maceproc_packets_not_followed",
            "Packets that could not be followed, by reason.",
            labels=("reason",),
        )
        for name in COUNTS:
            packets.add_metric((name,), losses.counts[name])
        inside = CounterMetricFamily(
            "maceproc_requests_without_outer_device",
            "Requests queued on a container's device that left by no outer device.",
            labels=LABELS,
        )
        for (container, target), count in losses.inside.items():
            inside.add_metric((self._name_of(container), target), count)
        return [lost, packets, inside]


def _buckets(histogram: CumulativeHistogram) -> tuple[list[Any], float]:
    """Return a histogram's cumulated buckets, by their upper bounds [s], and its sum [s]."""
    cumulated = np.cumsum(histogram.counts).tolist()
    bounds = [f"{bound / NS_PER_S:g}" for bound in histogram.BOUNDS_NS.tolist()]
    buckets = list(zip([*bounds, "+Inf"], cumulated, strict=True))
    return buckets, histogram.sum_ns / NS_PER_S


def parse_address(text: str) -> tuple[str, int]:
    """Return address and port of ``[ADDR]:PORT``; the address is empty for every one.

    Raises ValueError where it is neither that nor a port.
    """
    address, _, port = text.rpartition(":")
    number = int(port)
    if not 0 <= number <= 65535:
        raise ValueError(f"{number} is no port")
    return address.removeprefix("[").removesuffix("]"), number
