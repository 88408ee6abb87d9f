"""Check what was matched by hop and by time against what another tracer saw in the packets.

The other tracer, retis, ran at the same time and wrote which ICMP echo a packet carried at an event
(`maceproc.retis`). A sighting may be a hop's when event, address of the sk_buff and name of the
device are equal. It is that hop's if the two are near and nearest to each other, and for both the
second nearest is clearly farther: an address may be used again at once, and an interrupt may come
between the two tracers. So each end of a match is identified on its own:

    request    wherever the ping's outbound journey was seen, it is a request with the ping's
               number, and on the container's device it has the identifier of the ping's process
    reply      its inbound journey is a reply with that number, likewise

The identifier is compared on the container's device only: NAT may change it behind that. A match
that was not seen on the container's device is not witnessed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maceproc.capture import Run
from maceproc.errors import AnalysisError
from maceproc.following.follow import Followed, Runs
from maceproc.following.witness import NOT_WITNESSED, RIGHT, SAME_EVENT_NS, WRONG
from maceproc.retis import RetisEvents
from maceproc.schema import RTTS, WITNESSED, Trace

Finding = tuple[str, str, str, str]
Places = NDArray[np.int64]
CLOCK = "mono"  # retis takes CLOCK_MONOTONIC: bpf_ktime_get_ns()
NUMBERED = ("iputils", "busybox", "toybox", "inetutils", "bsd")
"""Pings that print the number which is in the packet; fping and others count on their own."""
CLEARLY = 3
"""So many times as far must the second nearest be."""
FAR = np.iinfo(np.int64).max
REFUTED = "the witness saw another echo in its packets"


def check_by_sightings(
    followed: Followed, trace: Trace, seen: RetisEvents
) -> tuple[Followed, list[Finding]]:
    """Return what was followed, with refuted pings `ambiguous`, and what there is to tell of it.

    Raises AnalysisError when the trace has another clock than `seen`.
    """
    if trace.clock and trace.clock != CLOCK:
        raise AnalysisError(
            f"the witness has times of CLOCK_MONOTONIC, the trace those of {trace.clock!r}",
            hint="record the trace with `-C mono` (perf: `-k mono`), as maceproc does",
        )
    found = witness_by_sightings(followed, seen.sightings)
    wrong = found[found["outcome"] == WRONG]
    rtts = followed.rtts
    pairs = pd.MultiIndex.from_frame(rtts[["round", "seq"]])
    refuted = _corrected(rtts) & pairs.isin(pd.MultiIndex.from_frame(wrong[["round", "seq"]]))
    return followed._replace(rtts=without(rtts, refuted)), _findings(
        found, int(refuted.sum()), seen.cut
    )


def without(rtts: pd.DataFrame, refuted: NDArray[np.bool_]) -> pd.DataFrame:
    """Return RTTS in which refuted pings are `ambiguous` and have nothing of their packets."""
    result = rtts.astype(object)
    printed = ("rtt_ns", "rtt_resolution_ns")
    of_packets = [
        name for name in rtts if name.endswith(("_ns", "_journey")) and name not in printed
    ]
    result.loc[refuted, of_packets] = pd.NA
    result.loc[refuted, ["status", "reason"]] = ["ambiguous", REFUTED]
    return RTTS.frame(result)


def witness_by_sightings(followed: Followed, sightings: pd.DataFrame) -> pd.DataFrame:
    """Return WITNESSED: a row for the request and one for the reply of every corrected ping."""
    hops, crossed = followed.hops, followed.crossings
    place = place_of_hops(hops, sightings)
    inner = _inner_hops(hops, crossed[crossed["status"] == "complete"])
    sent = place[[row for (direction, _), row in inner.items() if direction == "outbound"]]
    requests = sightings.iloc[sent[sent >= 0]]
    own = {(run.round, run.arm): _id_of(run, requests) for run, _ in followed.outputs}
    numbered = {(run.round, run.arm) for run in _numbered(followed.outputs)}
    first = np.flatnonzero(np.diff(hops["journey"].to_numpy(), prepend=-1))
    start_of = dict(zip(hops["journey"].to_numpy()[first].tolist(), first.tolist(), strict=True))
    stop_of = dict(zip(start_of, [*first[1:].tolist(), len(hops)], strict=True))
    content = sightings[["request", "id", "seq"]].to_numpy(np.int64)
    rows = []
    rtts = followed.rtts[_corrected(followed.rtts)]
    for ping in rtts.itertuples():
        run = (ping.round, ping.arm)
        for name, direction in (("request", "outbound"), ("reply", "inbound")):
            journey = getattr(ping, f"{direction}_journey")
            if pd.isna(journey):
                continue
            journey = int(journey)
            span = slice(start_of.get(journey, 0), stop_of.get(journey, 0))
            seen = content[place[span][place[span] >= 0]]
            at = inner.get((direction, journey), -1)
            end = place[at] if at >= 0 else -1
            outcome = NOT_WITNESSED
            if run in numbered and own[run] >= 0 and end >= 0:
                same = (seen[:, 0] == (name == "request")) & (seen[:, 2] == ping.seq & 0xFFFF)
                right = same.all() and content[end, 1] == own[run]
                outcome = RIGHT if right else WRONG
            rows.append((name, ping.round, ping.seq, journey, outcome))
    return WITNESSED.frame(pd.DataFrame(rows, columns=list(WITNESSED.names)))


def place_of_hops(hops: pd.DataFrame, sightings: pd.DataFrame) -> Places:
    """Return the row of the sighting that is of each hop; -1: not told.

    The two are nearest to each other, and for both the second nearest is `CLEARLY` farther.
    """
    if not len(hops) or not len(sightings):
        return np.full(len(hops), -1, np.int64)
    hop_keys, keys = _keys(hops, sightings)
    at_ns, times = (table["time_ns"].to_numpy(np.int64) for table in (hops, sightings))
    nearest, clear = _nearest(hop_keys, at_ns, keys, times)
    back, clear_back = _nearest(keys, times, hop_keys, at_ns)
    found = np.full(len(hops), -1, np.int64)
    told = np.flatnonzero(clear)
    place = nearest[told]
    mutual = clear_back[place] & (back[place] == told)
    found[told[mutual]] = place[mutual]
    return found


def _nearest(
    keys: Places, times: Places, other_keys: Places, other_times: Places
) -> tuple[Places, NDArray[np.bool_]]:
    """Return the nearest of the others with the same key, and whether it is near and clearly so."""
    grid = np.unique(np.concatenate([times, other_times]))
    steps = len(grid)  # key and rank of the time are one number that can be searched
    others = other_keys * steps + np.searchsorted(grid, other_times)
    order = np.argsort(others, kind="stable")
    after = np.searchsorted(others[order], keys * steps + np.searchsorted(grid, times))
    around = after[:, None] + np.arange(-2, 2)
    inside = (around >= 0) & (around < len(order))
    at = order[np.clip(around, 0, len(order) - 1)]
    same = inside & (other_keys[at] == keys[:, None]) & (keys >= 0)[:, None]
    distance = np.where(same, np.abs(other_times[at] - times[:, None]), FAR)
    by_distance = np.argsort(distance, axis=1, kind="stable")
    first, second = (
        np.take_along_axis(distance, by_distance[:, place : place + 1], axis=1)[:, 0]
        for place in (0, 1)
    )
    nearest = np.take_along_axis(at, by_distance[:, :1], axis=1)[:, 0]
    return nearest, (first <= SAME_EVENT_NS) & (second > CLEARLY * first)


def _keys(hops: pd.DataFrame, sightings: pd.DataFrame) -> tuple[Places, Places]:
    """Return one number for address, event and device of each hop and sighting; -1: not sighted."""
    names = ["event", "dev"]
    addresses = np.unique(sightings["skbaddr"].to_numpy(np.uint64))
    known = {name: pd.Index(sightings[name].astype(str).unique()) for name in names}
    keys = []
    for table in (hops, sightings):
        wanted = table["skbaddr"].to_numpy(np.uint64)
        rank = np.searchsorted(addresses, wanted)
        there = rank < len(addresses)
        there[there] = addresses[rank[there]] == wanted[there]
        key = np.where(there, rank, -1).astype(np.int64)
        for name in names:
            labels = known[name].get_indexer(table[name].cat.categories.astype(str))
            codes = table[name].cat.codes.to_numpy()
            label = np.where(codes >= 0, np.append(labels, -1)[codes], -1)
            key = np.where((key >= 0) & (label >= 0), key * len(known[name]) + label, -1)
        keys.append(key)
    return keys[0], keys[1]


def _corrected(rtts: pd.DataFrame) -> NDArray[np.bool_]:
    corrected = (rtts["arm"] == "container traced") & (rtts["status"] == "corrected")
    return corrected.to_numpy(bool)


def _numbered(outputs: Runs) -> Iterator[Run]:
    """Yield the runs whose printed number is that of the packet."""
    for run, output in outputs:
        if output.flavour in NUMBERED and output.targets == 1:
            yield run


def _inner_hops(hops: pd.DataFrame, complete: pd.DataFrame) -> dict[tuple[str, int], int]:
    """Return the row of HOPS at the container's device, by direction and journey of crossings."""
    times = hops["time_ns"].to_numpy(np.int64)
    found = {}
    columns = ("direction", "journey", "first_hop", "last_hop", "left_ns")
    for direction, journey, first, last, left_ns in zip(
        *(complete[name].tolist() for name in columns), strict=True
    ):
        row = int(first)
        if direction != "outbound":
            there = np.flatnonzero(times[first : last + 1] == left_ns)
            if not len(there):
                continue
            row += int(there[-1])
        found[str(direction), int(journey)] = row
    return found


def _id_of(run: Run, requests: pd.DataFrame) -> int:
    """Return the ICMP identifier of a run's process: that of most requests it sent; -1 for none.

    `requests` are sightings at the container's device, where NAT has not changed it yet.
    """
    own = (requests["pid"] == run.pid) | (requests["tgid"] == run.pid)
    during = requests["time_ns"] >= run.start_ns
    if run.end_ns:
        during &= requests["time_ns"] <= run.end_ns
    ids, counts = np.unique(requests["id"][own & during & requests["request"]], return_counts=True)
    return int(ids[np.argmax(counts)]) if run.pid and len(ids) else -1


def _findings(found: pd.DataFrame, refuted: int, cut: bool) -> list[Finding]:
    count = found["outcome"].value_counts()
    right, wrong, unseen = (int(count.get(name, 0)) for name in (RIGHT, WRONG, NOT_WITNESSED))
    message = (
        f"of {len(found)} matches of pings with packets the witness confirmed {right}, refuted "
        f"{wrong} and did not see {unseen}"
    )
    level, advice = "note", "what it did not see stays as the events tell it"
    if not right + wrong:
        level, advice = "warning", "give the events of the same machine and time, with net:*"
    told = [("witness", level, message, advice)]
    if cut:
        told.append(
            ("witness", "warning", "the witness' last event has no end", "what follows is missing")
        )
    if refuted:
        told.append(
            (
                "witness",
                "problem",
                f"the events' analysis gave {refuted} pings packets that carry another echo",
                "those pings are ambiguous now; please report it with the capture",
            )
        )
    return told
