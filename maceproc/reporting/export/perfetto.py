"""A timeline for the Perfetto UI: where every packet is, and for how long.

A group of tracks for every namespace, a track for every device in it, a slice for every hop that
lasts until the packet's next one. Flow arrows follow a packet from hop to hop, and a ping from its
request to its reply. The pings themselves are on top, each cut into the segments of its ledger.

Timestamps are those of the trace clock, without any change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc.following.hop_arrays import HOP_EVENTS, Kind
from maceproc.ledger import COLUMNS
from maceproc.reporting.export.provenance import provenance, required, utc_offset

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

TellPackets = Callable[[int, int], object]
"""Called with the number of packets written so far, and the number of all packets."""

UNKNOWN = "(namespace not known)"
PINGS, LOST = "pings", "events lost"
# Perfetto's names of the trace clocks; any other clock is declared as Perfetto's default.
CLOCKS = {"mono": "MONOTONIC", "mono_raw": "MONOTONIC_RAW", "boot": "BOOTTIME"}
SEQUENCE = 1  # one writer: any number but 0
TELL_EVERY = 2000  # hops
PIECE = 20_000  # hops


@dataclass
class _Tracks:
    """Tracks, each described when it is first used; slices of one track never overlap."""

    writer: _Writer
    order: list[str]  # names of groups and devices, from the top down
    uuids: dict[tuple[object, ...], int] = field(default_factory=dict)
    free_at_ns: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def group(self, name: str) -> int:
        """Return the track of a group."""
        return self._track((name,), name, 0, name)

    def lane(self, group: str, name: str, start_ns: int, end_ns: int) -> int:
        """Return a track named `name` that is free from `start_ns`, and occupy it until `end_ns`.

        Perfetto shows the tracks of one name in one group as one: packets that are on a device at
        the same time are shown one below the other.
        """
        free_at_ns = self.free_at_ns.setdefault((group, name), [])
        free = (n for n, at_ns in enumerate(free_at_ns) if at_ns <= start_ns)
        lane = next(free, len(free_at_ns))
        free_at_ns[lane:] = [end_ns, *free_at_ns[lane + 1 :]]
        return self._track((group, name, lane), name, self.group(group), f"{group}:{name}")

    def _track(self, key: tuple[object, ...], name: str, parent: int, place: str) -> int:
        if key not in self.uuids:
            self.uuids[key] = len(self.uuids) + 1
            rank = self.order.index(place) if place in self.order else len(self.order)
            self.writer.track(self.uuids[key], name, parent=parent, rank=rank)
        return self.uuids[key]


class _Writer:
    """Writes packets of a trace, one after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        builder = required("perfetto.trace_builder.proto_builder", "perfetto")
        self.messages: Any = required(
            "perfetto.protos.perfetto.trace.perfetto_trace_pb2", "perfetto"
        )
        self._stream = builder.StreamingTraceProtoBuilder(file)

    def clock(self, name: str, time_ns: int, utc_ns: int | None) -> None:
        """Declare the clock of the timestamps, and its relation to UTC where that is known."""
        number_of = self.messages.BuiltinClock.Value
        clock = number_of(f"BUILTIN_CLOCK_{CLOCKS.get(name, 'BOOTTIME')}")
        packet = self._stream.create_packet()
        snapshot = packet.clock_snapshot
        snapshot.primary_trace_clock = clock
        for number, value in ((clock, time_ns), (number_of("BUILTIN_CLOCK_REALTIME"), utc_ns)):
            if value is not None:
                snapshot.clocks.add(clock_id=number, timestamp=value)
        packet.trusted_packet_sequence_id = SEQUENCE
        packet.sequence_flags = packet.SEQ_INCREMENTAL_STATE_CLEARED
        packet.trace_packet_defaults.timestamp_clock_id = clock
        self._stream.write_packet(packet)

    def track(self, uuid: int, name: str = "", *, parent: int = 0, rank: int = 0) -> None:
        """Describe a track; the one with uuid 0 is the parent of all others."""
        packet = self._stream.create_packet()
        descriptor = packet.track_descriptor
        descriptor.uuid = uuid
        descriptor.child_ordering = descriptor.EXPLICIT
        if uuid:
            descriptor.name, descriptor.sibling_order_rank = name, rank
        if parent:
            descriptor.parent_uuid = parent
        packet.trusted_packet_sequence_id = SEQUENCE
        self._stream.write_packet(packet)

    def event(
        self,
        kind: str,
        time_ns: int,
        track: int,
        name: str = "",
        *,
        flows: tuple[int, ...] = (),
        **details: object,
    ) -> None:
        packet = self._stream.create_packet()
        packet.timestamp = time_ns
        packet.trusted_packet_sequence_id = SEQUENCE
        event = packet.track_event
        event.type = getattr(event, f"TYPE_{kind}")
        event.track_uuid = track
        if name:
            event.name = name
            event.categories.append("maceproc")
        event.flow_ids.extend(flows)
        for key, value in details.items():
            _annotate(event.debug_annotations.add(), key, value)
        self._stream.write_packet(packet)

    def slice(self, start_ns: int, end_ns: int, track: int, name: str, **details: Any) -> None:
        """Write a slice; one that lasts no time becomes an instant."""
        if end_ns > start_ns:
            self.event("SLICE_BEGIN", start_ns, track, name, **details)
            self.event("SLICE_END", end_ns, track)
        else:
            self.event("INSTANT", start_ns, track, name, **details)


def write(analysis: Analysis, file: IO[bytes], tell: TellPackets | None = None) -> None:
    """Write the timeline of an analysis, as packets of perfetto.protos.Trace."""
    writer = _Writer(file)
    start_ns = _start_ns(analysis)
    offset_ns = utc_offset(analysis)(start_ns)
    writer.clock(
        analysis.trace.clock, start_ns, None if offset_ns is None else start_ns + offset_ns
    )
    writer.track(0)
    tracks = _Tracks(writer, _order(analysis))
    writer.event("INSTANT", start_ns, tracks.group(PINGS), "capture", **provenance(analysis))
    _write_pings(analysis, tracks)
    _write_hops(analysis, tracks, tell or (lambda _done, _total: None))
    _write_lost(analysis, tracks)


def _start_ns(analysis: Analysis) -> int:
    times = [
        int(table["time_ns"].iloc[0]) for table in analysis.trace.events.values() if len(table)
    ]
    return min(times, default=0)


def _order(analysis: Analysis) -> list[str]:
    """Return groups and devices from the top down: pings, then the way from the container."""
    sidecar = analysis.capture.sidecar
    path = sidecar.target.path if sidecar else []
    groups = [PINGS, *(hop.netns for hop in path), *analysis.hops["netns"].cat.categories, UNKNOWN]
    return [*dict.fromkeys(map(str, groups)), LOST, *map(str, path)]


def _write_pings(analysis: Analysis, tracks: _Tracks) -> None:
    """Write every ping with kernel times, cut into the segments of its ledger."""
    rtts = analysis.rtts
    for ping in rtts[rtts["sent_ns"].notna()].sort_values("sent_ns").itertuples():
        start_ns, end_ns = int(ping.sent_ns), _last_ns(ping)
        track = tracks.lane(PINGS, str(ping.arm), start_ns, end_ns)
        names = ("rtt_ns", "bare_metal_rtt_ns", "wire_rtt_ns", "outbound_ns", "inbound_ns")
        known = {name: getattr(ping, name) for name in names}
        details = {"seq": ping.seq, "round": ping.round, "status": ping.status, **known}
        details |= {key: getattr(ping, key) for key in ("reason", "causes")}
        write = tracks.writer.event
        flows = (_flow("sent", ping.round, ping.seq),)
        write("SLICE_BEGIN", start_ns, track, f"icmp_seq {ping.seq}", flows=flows, **details)
        for segment, begin_ns, finish_ns in _segments(ping):
            tracks.writer.slice(begin_ns, finish_ns, track, segment)
        write("SLICE_END", end_ns, track)


def _last_ns(ping: Any) -> int:
    """Return when a ping's reply was stamped; if not known, the end of its last known segment."""
    if pd.notna(ping.received_ns):
        return int(ping.received_ns)
    return max((end_ns for _, _, end_ns in _segments(ping)), default=int(ping.sent_ns) + 1)


def _segments(ping: Any) -> Iterator[tuple[str, int, int]]:
    """Give the segments that follow the send call without a gap: name, start, end [ns]."""
    at_ns = int(ping.sent_ns)
    for name, column in COLUMNS.items():
        length_ns = getattr(ping, column)
        if name == "residual" or pd.isna(length_ns):
            return  # the place of a segment after an unknown one is not known
        if length_ns > 0:
            yield name, at_ns, at_ns + int(length_ns)
        at_ns += int(length_ns)


def _write_hops(analysis: Analysis, tracks: _Tracks, tell: TellPackets) -> None:
    hops = _placed(analysis.hops)
    pings = _ping_of_journey(analysis.rtts)
    kinds = HOP_EVENTS
    for done, hop in enumerate(_by_pieces(hops)):
        if done % TELL_EVERY == 0:
            tell(done, len(hops))
        start_ns, end_ns = int(hop.time_ns), int(hop.end_ns)
        track = tracks.lane(hop.group, hop.place, start_ns, end_ns)
        ping = pings.get(hop.journey)
        flows = tuple(_flows(hop, ping))
        details = {
            "journey": hop.journey,
            "skbaddr": f"{hop.skbaddr:#x}",
            "cpu": hop.cpu,
            "pid": hop.pid,
            "softirq": hop.softirq,
        }
        if kinds[hop.event] < Kind.COPY:
            details["len"] = hop.len
        if ping is not None:
            details |= {"round": ping.round, "seq": ping.seq}
        tracks.writer.slice(start_ns, end_ns, track, str(hop.event), flows=flows, **details)
    tell(len(hops), len(hops))


def _by_pieces(rows: pd.DataFrame) -> Iterator[Any]:
    """Give rows as named tuples; only those of one piece are Python objects at a time."""
    for start in range(0, len(rows), PIECE):
        yield from rows.iloc[start : start + PIECE].itertuples()


def _placed(hops: pd.DataFrame) -> pd.DataFrame:
    """Return HOPS in the order of time, each with its track and the time of the packet's next hop.

    A hop without a device, such as the end of a packet, is placed where the packet was last seen.
    """
    journey = hops["journey"].to_numpy()
    time_ns = hops["time_ns"].to_numpy()
    is_last = np.append(journey[1:] != journey[:-1], True)[: len(hops)]
    is_first = hops["hop"].to_numpy() == 0
    end_ns = np.where(is_last, time_ns, np.append(time_ns[1:], 0)[: len(hops)])
    number = np.arange(len(hops))
    start = np.maximum.accumulate(np.where(is_first, number, 0))
    seen_at = np.maximum.accumulate(np.where(hops["dev"].notna(), number, -1))
    seen_at[seen_at < start] = -1  # not in this journey
    placed = hops.assign(
        group=_taken(hops["netns"], seen_at, UNKNOWN),
        place=_taken(hops["dev"], seen_at, "(no device)"),
        end_ns=end_ns,
        is_first=is_first,
        is_last=is_last,
    )
    return placed.sort_values("time_ns", kind="stable")


def _taken(texts: pd.Series, rows: np.ndarray, missing: str) -> pd.Categorical:
    """Return a categorical column's values of these rows; `missing` where one is, or row -1."""
    codes = texts.cat.codes.to_numpy()[rows] if len(texts) else np.empty(0, np.int64)
    names = [*map(str, texts.cat.categories), missing]
    unique = list(dict.fromkeys(names))
    number = np.array([unique.index(name) for name in names])
    return pd.Categorical.from_codes(number[np.where(rows < 0, -1, codes)], unique)


def _ping_of_journey(rtts: pd.DataFrame) -> dict[int, Any]:
    """Return the row of RTTS that a journey is part of."""
    return {
        int(journey): ping
        for ping in rtts.itertuples()
        for journey in (ping.outbound_journey, ping.inbound_journey)
        if pd.notna(journey)
    }


def _flows(hop: Any, ping: Any) -> Iterator[int]:
    """Give the numbers of a hop's arrows: along its packet, and between the packets of a ping."""
    yield _flow("packet", 0, hop.journey)
    if ping is None:
        return
    is_request, is_reply = (
        pd.notna(journey) and journey == hop.journey
        for journey in (ping.outbound_journey, ping.inbound_journey)
    )
    if is_request and hop.is_first:
        yield _flow("sent", ping.round, ping.seq)
    if (is_request and hop.is_last) or (is_reply and hop.is_first):
        yield _flow("answer", ping.round, ping.seq)


def _write_lost(analysis: Analysis, tracks: _Tracks) -> None:
    """Mark where the ring buffers lost events: hops may be missing there."""
    for gap in analysis.trace.lost.itertuples():
        ends = [end for end in (gap.after_ns, gap.before_ns) if pd.notna(end)]
        if ends:
            start_ns, end_ns = int(min(ends)), int(max(ends))
            track = tracks.lane(LOST, f"CPU {gap.cpu}", start_ns, end_ns)
            tracks.writer.slice(start_ns, end_ns, track, LOST, count=gap.count)


def _annotate(annotation: Any, key: str, value: Any) -> None:
    annotation.name = key
    if isinstance(value, (list, tuple)):
        for item in value:
            _annotate(annotation.array_values.add(), "", item)
    elif isinstance(value, (bool, np.bool_)):
        annotation.bool_value = bool(value)
    elif isinstance(value, (int, np.integer)):
        annotation.int_value = int(value)
    else:
        annotation.string_value = "unknown" if value is None or value is pd.NA else str(value)


def _flow(kind: str, high: int, low: int) -> int:
    """Return the number of an arrow, unique within the trace [64 bits]."""
    return (int(high) << 40 | int(low)) * 4 + ("packet", "sent", "answer").index(kind) + 1
