"""Check maceproc on this machine: insert a known delay in a lab, and look where it is found.

A token bucket (tc-tbf(8)) on one device lets one packet through at once. Each further packet of a
train waits until the rate allows it: `seconds = bytes / rate`. When several pings are sent at once,
the delay of each is therefore known beforehand, and grows from ping to ping. The analysis must find
it

* completely in the crossing of that direction, and in no other part of the RTT;
* at that device, between its queue and its driver;
* not at all in the corrected RTT.

Without a delay, two halves of the same pings are compared. Their difference is the noise floor of
this machine.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc import ledger, series, statistics
from maceproc.errors import LabError
from maceproc.recording.event_sets import minimal_events
from maceproc.recording.lab import NETNS_DIR, Lab
from maceproc.recording.record import record
from maceproc.recording.remains import temporary_directory
from maceproc.recording.sites import lab_site
from maceproc.statistics import Estimate
from maceproc.units import NS_PER_S, format_us

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

TRAIN = 5  # pings sent at once
PAYLOAD_BYTES = 1000
PACKET_BYTES = PAYLOAD_BYTES + 8 + 20 + 14  # with headers of ICMP, IPv4 and Ethernet, as tbf counts
BURST_BYTES = PACKET_BYTES + 58  # more than one packet, and fewer than two
QUEUE_BYTES = 100_000
TRAINS = 16
QUIET_ROUNDS = 12  # even, because rounds are compared in pairs
QUIET_PINGS = 50
TOLERANCE = 0.02  # of the delay put in


class Injection(NamedTuple):
    """Where a delay is inserted: a device of the lab, and the crossing that contains it."""

    direction: str
    role: str
    dev: str

    def __str__(self) -> str:
        return f"{self.role}:{self.dev}"


@dataclass(frozen=True)
class Bucket:
    """A token bucket as the kernel has it."""

    bytes_per_s: float
    burst_bytes: float

    def waits_ns(self, arrivals_ns: statistics.Values, length: int) -> statistics.Values:
        """Return how long each packet of a train waits [ns]; the bucket is full at first."""
        tokens, last_ns = self.burst_bytes, float(arrivals_ns[0])
        waits = []
        for arrival_ns in arrivals_ns:
            at_ns = max(float(arrival_ns), last_ns)
            tokens = min(self.burst_bytes, tokens + (at_ns - last_ns) * self.bytes_per_s / NS_PER_S)
            missing = max(0.0, length - tokens)
            leaves_ns = at_ns + missing / self.bytes_per_s * NS_PER_S
            tokens, last_ns = max(tokens, float(length)) - length, leaves_ns
            waits.append(leaves_ns - float(arrival_ns))
        return np.array(waits)


class DelayCheck(NamedTuple):
    """One condition that must hold for the delay inserted at one device.

    Attributes
    ----------
    found
        Growth per nanosecond of inserted delay, with its interval.
    expected
        The growth that is expected: 1 or 0.
    delay_ns
        Mean of the inserted delay.
    """

    injection: Injection
    what: str
    found: Estimate
    expected: float
    delay_ns: float

    @property
    def passed(self) -> bool:
        """Whether it holds, within `TOLERANCE`."""
        return abs(self.found.estimate_ns - self.expected) <= TOLERANCE

    def __str__(self) -> str:
        grew, low, high = (part * self.delay_ns for part in self.found[:3])
        return (
            f"{'ok  ' if self.passed else 'FAIL'}  {format_us(self.delay_ns)} us at "
            f"{self.injection}: {self.what} grew by {format_us(grew)} us "
            f"({format_us(low)} to {format_us(high)}), expected "
            f"{format_us(self.expected * self.delay_ns)}"
        )


class Result(NamedTuple):
    """What a self-test found."""

    noise: dict[str, Estimate]  # name -> difference of two halves of the same pings
    checks: list[DelayCheck]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def run_selftest(delay_ns: int, tell: Callable[[str], None] = lambda _: None) -> Result:
    """Measure the noise floor in a new lab, then insert a delay of `delay_ns` for each packet.

    With `delay_ns` 0 only the noise floor is measured. `tell` is told what is being done. Raises
    RecordError, and LabError when the kernel has no token bucket.
    """
    with Lab() as lab, temporary_directory() as directory:
        trace = directory / "trace.dat"
        tell("nothing put in: the noise floor")
        noise = noise_floor(_quiet(lab, trace))
        checks: list[DelayCheck] = []
        for injection in _injections(lab) if delay_ns else ():
            tell(f"{format_us(delay_ns)} us a packet at {injection}")
            with _bucket(lab, injection, delay_ns) as bucket:
                checks += check_delays(_trains(lab, trace), injection, bucket)
    return Result(noise, checks)


def _injections(lab: Lab) -> list[Injection]:
    return [
        Injection("outbound", "container", "eth0"),
        Injection("inbound", "host", lab.port(1)),
    ]


def _quiet(lab: Lab, trace: Path) -> Analysis:
    ping = ["ping", "-i", "0.01", "-c", str(QUIET_PINGS)]
    return _recorded(lab, trace, ping, QUIET_ROUNDS)


def _trains(lab: Lab, trace: Path) -> Analysis:
    together = ["-c", str(TRAIN), "-l", str(TRAIN), "-s", str(PAYLOAD_BYTES)]
    return _recorded(lab, trace, ["ping", *together], TRAINS)


def _recorded(lab: Lab, trace: Path, ping: list[str], rounds: int) -> Analysis:
    from maceproc.pipeline import analyze

    events = ",".join(
        minimal_events([])
    )  # of any device, so that the end of its queue is recorded too
    record(ping, lab_site(lab), trace, rounds=rounds, baseline=False, events=events, force=True)
    return analyze(trace)


class _bucket:  # noqa: N801  used like a function
    """A token bucket on a device as long as the block lasts."""

    def __init__(self, lab: Lab, injection: Injection, delay_ns: int) -> None:
        self._netns, self._dev = NETNS_DIR / lab.netns(injection.role), injection.dev
        self._rate = round(PACKET_BYTES * 8 * NS_PER_S / delay_ns)

    def __enter__(self) -> Bucket:
        bucket = ["rate", f"{self._rate}bit", "burst", str(BURST_BYTES), "limit", str(QUEUE_BYTES)]
        self._tc("add", "dev", self._dev, "root", "tbf", *bucket)
        options = json.loads(self._tc("show", "dev", self._dev, options=["-json"]))[0]["options"]
        return Bucket(float(options["rate"]), float(options["burst"]))

    def __exit__(self, *exception: object) -> None:
        self._tc("del", "dev", self._dev, "root")

    def _tc(self, *words: str, options: Sequence[str] = ()) -> str:
        argv = ["nsenter", f"--net={self._netns}", "--", "tc", *options, "qdisc", *words]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise LabError("nsenter: not found", hint="install util-linux") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise LabError(
                f"{' '.join(argv[3:])}: {said[0]}",
                hint="the self-test needs tc and the kernel's sch_tbf",
            )
        return done.stdout


def noise_floor(analysis: Analysis) -> dict[str, Estimate]:
    """Return for each quantity by how much even rounds differ from the odd rounds before them."""
    rows = analysis.rtts[analysis.rtts["status"] == "corrected"]
    names = {
        "RTT": "rtt_ns",
        **{segment.name: segment.column for segment in ledger.CROSSINGS},
        "corrected RTT": series.CORRECTED.column,
        "wire RTT": series.WIRE.column,
    }
    half = rows["round"] % 2 == 1
    noise = {}
    for name, column in names.items():
        table = pd.DataFrame(
            {"round": (rows["round"] + 1) // 2, "value_ns": rows[column].astype("float64")}
        )
        pairs = statistics.pair_rounds(table[half], table[~half])
        noise[name] = statistics.difference(list(pairs.values()))
    return noise


def check_delays(analysis: Analysis, injection: Injection, bucket: Bucket) -> Iterator[DelayCheck]:
    """Yield the checks of one injection: what must grow by the inserted delay, and what must not.

    Raises LabError when too few trains were followed completely.
    """
    rows = _with_delays(analysis, injection, bucket)
    trains = rows["round"].to_numpy(np.int64)
    delay_ns = rows["delay_ns"].to_numpy()
    other = "inbound" if injection.direction == "outbound" else "outbound"
    for what, column, expected in (
        (f"the {injection.direction} crossing", f"{injection.direction}_ns", 1.0),
        ("the step from its queue to its driver", "waited_ns", 1.0),
        (f"the {other} crossing", f"{other}_ns", 0.0),
        ("the wire RTT", "wire_rtt_ns", 0.0),
        ("the corrected RTT", "bare_metal_rtt_ns", 0.0),
    ):
        slopes = _slopes(delay_ns, rows[column].to_numpy(np.float64), trains)
        found = statistics.location([slopes])  # the median, because single trains may be delayed
        yield DelayCheck(injection, what, found, expected, float(delay_ns[delay_ns > 0].mean()))


def _slopes(
    x: statistics.Values, y: statistics.Values, trains: npt.NDArray[np.int64]
) -> statistics.Values:
    """Return the slope of y on x within each train, by least squares."""
    table = pd.DataFrame({"x": x, "y": y})
    centred = table - table.groupby(trains).transform("mean")
    products = pd.DataFrame({"xy": centred["x"] * centred["y"], "xx": centred["x"] ** 2})
    sums = products.groupby(trains).sum()
    return np.asarray(sums["xy"] / sums["xx"], dtype=np.float64)


def _with_delays(analysis: Analysis, injection: Injection, bucket: Bucket) -> pd.DataFrame:
    """Return the corrected pings of complete trains, with the inserted delay and the measured wait.

    The first ping of a train is left out: cold caches make it slower than the others.
    """
    rtts, hops = analysis.rtts, analysis.hops
    at_device = hops[(hops["dev"] == injection.dev) & (hops["netns"] == injection.role)]
    queued, sent = (
        at_device[at_device["event"] == event].groupby("journey")["time_ns"].first()
        for event in ("net_dev_queue", "net_dev_start_xmit")
    )
    journey = rtts[f"{injection.direction}_journey"]
    rows = rtts.assign(queued_ns=journey.map(queued), waited_ns=journey.map(sent - queued))
    rows = rows[(rows["status"] == "corrected") & rows["waited_ns"].notna()]
    whole = rows.groupby("round")["seq"].transform("size") == TRAIN
    rows = rows[whole].sort_values(["round", "queued_ns"])
    if rows["round"].nunique() < TRAINS // 2:
        reasons = rtts.loc[rtts["status"] != "corrected", "reason"].value_counts()
        often = f"; most often: {reasons.index[0]}" if len(reasons) else ""
        raise LabError(
            f"only {rows['round'].nunique()} of {TRAINS} trains of pings could be followed{often}",
            hint="a longer --delay-us sets their packets further apart",
        )
    arrivals = rows.groupby("round")["queued_ns"]
    waits = arrivals.transform(
        lambda train: bucket.waits_ns(train.to_numpy(np.float64), PACKET_BYTES)
    )
    return rows.assign(delay_ns=waits.astype("float64"))[rows["seq"] > 1]
