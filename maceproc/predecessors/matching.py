"""Which latency belongs to which ping: as the authors matched them, and as we would.

MACE's latencies have the ping's number. contools' have a time of day: the authors took, for every
ping, the nearest one. We take it only where it is certain: each is the other's nearest, they are
closer than a quarter of the usual time between two pings, and where there is a number it is the
same, once in its run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

CLOSE = 0.25  # of the usual time between two pings

Floats = npt.NDArray[np.float64]


def latency_by_authors(pings: pd.DataFrame, latencies: pd.DataFrame) -> Floats:
    """Return the latency that the authors subtracted from each ping [ns]; NaN where they had none.

    By number: applyLatencies() of mace/tests/report_one_shot.r, where the k-th latency of a number
    belongs to the k-th run. By time: adjustContainer() of contools-data/ping/tracecmd_new/
    genReport.r.
    """
    if latencies["seq"].notna().any():
        return _by_number(pings, latencies, occurrence=True)
    both = latencies[latencies["direction"] == "both"]
    if len(both) <= 2 or both["at_ns"].isna().any() or pings["received_at_ns"].isna().any():
        return np.full(len(pings), np.nan)
    at, values = both["at_ns"].to_numpy(np.int64), both["latency_ns"].to_numpy(np.float64)
    taken = np.empty(len(pings))
    place = 1
    for row, time in enumerate(pings["received_at_ns"].to_numpy(np.int64).tolist()):
        # As they wrote it: it moves on by one latency at most for every ping.
        if place < len(at) - 1 and time > at[place]:
            place += 1
        nearer = abs(at[place] - time) < abs(at[place - 1] - time)
        taken[row] = values[place if nearer else place - 1]
    return taken


def latency_for_certain(pings: pd.DataFrame, latencies: pd.DataFrame) -> Floats:
    """Return the latency that certainly belongs to each ping [ns]; NaN where none does."""
    if latencies["seq"].notna().any():
        return _by_number(pings, latencies, occurrence=False)
    both = latencies[latencies["direction"] == "both"]
    found = np.full(len(pings), np.nan)
    known = pings["received_at_ns"].notna().to_numpy()
    if len(both) == 0 or both["at_ns"].isna().any() or known.sum() < 2:
        return found
    at = both["at_ns"].to_numpy(np.int64)
    order = np.argsort(at, kind="stable")
    at, values = at[order], both["latency_ns"].to_numpy(np.float64)[order]
    times = pings["received_at_ns"][known].to_numpy(np.int64)
    by_time = np.argsort(times, kind="stable")
    close = CLOSE * float(np.median(np.diff(times[by_time])))
    latency_of, ping_of = _nearest(at, times), by_time[_nearest(times[by_time], at)]
    ping_is_close = np.abs(at[latency_of] - times) < close
    latency_is_close = np.abs(times[ping_of] - at) < close
    claims = np.bincount(ping_of[latency_is_close], minlength=len(times))  # latencies for a ping
    rivals = np.bincount(latency_of[ping_is_close], minlength=len(at))  # pings for a latency
    own = ping_is_close & (claims == 1) & (rivals[latency_of] == 1)
    found[np.flatnonzero(known)[own]] = values[latency_of[own]]
    return found


def _nearest(places: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return which of the sorted places is nearest to each time."""
    right = np.clip(np.searchsorted(places, times), 1, max(len(places) - 1, 1))
    right = np.minimum(right, len(places) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(places[left] - times) <= np.abs(places[right] - times), left, right)


def _by_number(pings: pd.DataFrame, latencies: pd.DataFrame, *, occurrence: bool) -> Floats:
    """Return outbound + inbound of each ping's number.

    With `occurrence`, the k-th of a number is the k-th run's; else the run is told by where numbers
    go back, and a number that occurs twice in it has none.
    """
    own = latencies.assign(run=latencies["round"])
    if occurrence:
        own["run"] = own.groupby(["direction", "seq"]).cumcount() + 1
    total: Floats = np.zeros(len(pings))
    keys = pd.MultiIndex.from_arrays([pings["round"], pings["seq"]])
    for direction in ("outbound", "inbound"):
        rows = own[own["direction"] == direction]
        rows = rows[~rows.duplicated(["run", "seq"], keep=False)]
        values = rows.set_index(["run", "seq"])["latency_ns"].astype("float64")
        total = total + values.reindex(keys).to_numpy(np.float64)
    return total
