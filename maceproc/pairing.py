"""Which points of the tracer in the kernel belong to one echo, and what that echo's row is.

    queued ------- outer_queued - sent ------ wire ------ outer_received ------- at_container

Two points belong to one packet when the sk_buff has the same address *and* the packet carries the
same content; a request and a reply belong together when the reply answers the addresses, the
identifier and the number that left the outer device. Whatever is not certain is flagged.

An echo that a program of the host itself has sent is told by its socket. It has no container: its
points are those of the outer device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maceproc.echo_rows import (
    ALTERED,
    ANSWERED,
    AT_CONTAINER,
    FRAGMENT,
    FRAGMENTED,
    LOCAL,
    NATIVE,
    OUTER_QUEUED,
    OUTER_RECEIVED,
    POINT_FIELDS,
    QUEUED,
    RECEIVED,
    REPEATED,
    ROW_FIELDS,
    SENT,
    TWIN,
    RowField,
)

Rows = NDArray[np.void]
"""Rows, one for each echo, as a structured array of `ROW_DTYPE`."""
Points = NDArray[np.void]
"""Points, one for each packet at a device, as a structured array of `POINT_DTYPE`."""
Places = NDArray[np.int64]
Bools = NDArray[np.bool_]


def _dtype(fields: tuple[RowField, ...]) -> np.dtype[np.void]:
    return np.dtype(
        [
            (f.name, f"<{f.code}", (f.length,)) if f.length > 1 else (f.name, f"<{f.code}")
            for f in fields
        ]
    )


ROW_DTYPE = _dtype(ROW_FIELDS)
POINT_DTYPE = _dtype(POINT_FIELDS)

TIMEOUT_NS = 2_000_000_000
"""A request without a reply for so long is no twin of a later one with the same number."""
SAME_PACKET_NS = 1_000_000_000
"""Two points of one packet on its way in are not farther apart."""
SETTLED_NS = 10_000_000
"""Points are judged when they are so old: by then a second tracepoint has shown the same packet
again, and a writer that was held up after it took its time has written."""


class Paired(NamedTuple):
    """Rows of echoes, by the time they were queued, and what became of the other points.

    Attributes
    ----------
    rows
        A row for each echo.
    rest
        Points that may still get the others of their echo.
    counts
        How many packets belong to no echo, by reason (`maceproc.echo_rows.COUNTS`).
    inside
        Points of requests that left by no outer device.
    """

    rows: Rows
    rest: Points
    counts: dict[str, int]
    inside: Points

    @property
    def stayed_inside(self) -> int:
        """How many requests left by no outer device."""
        return len(self.inside)


@dataclass
class _Way:
    """Points in the order of address and time, and for each the one that it follows; -1: none."""

    points: Points
    start: Places  # where the points of the same address begin
    links: dict[str, Places] = field(default_factory=dict)

    def at(self, point: int) -> Bools:
        """Tell which are of this point of the way."""
        return np.asarray(self.points["point"] == point)

    def last(self, wanted: Bools) -> Places:
        """Return for each point the last one before it of the same address that is wanted."""
        places = np.where(wanted, np.arange(len(wanted)), -1)
        before = np.concatenate(([-1], np.maximum.accumulate(places)))[:-1]
        return np.where(before >= self.start, before, -1)

    def same_packet(self, one: Places, other: Places) -> Bools:
        """Tell where two places, both of which may be -1, are of packets with the same content."""
        same = (one >= 0) & (other >= 0)
        known = np.flatnonzero(same)
        same[known] = same_content(self.points[one[known]], self.points[other[known]])
        return np.asarray(same)

    def second_sights(self, point: int) -> Bools:
        """Tell which show a packet again at a point where the one before has shown it."""
        before = self.last(np.full(len(self.points), True))
        again = self.at(point)
        again &= again[before] & (before >= 0)
        at = np.flatnonzero(again)
        gap_ns = self.points["time_ns"][at] - self.points["time_ns"][before[at]]
        again[at] = (gap_ns < SAME_PACKET_NS) & same_content(
            self.points[at], self.points[before[at]]
        )
        return again


def same_content(one: Points, other: Points) -> Bools:
    """Tell which packets carry the same; the checksum of ICMPv6 has the addresses in it."""
    same = (one["words"] == other["words"]).all(axis=1) & (one["family"] == other["family"])
    for name in ("seq", "len"):
        same &= one[name] == other[name]
    return np.asarray(same & ((one["family"] == 6) | (one["sum"] == other["sum"])))


def pair(points: Points, until_ns: int | None = None, timeout_ns: int = TIMEOUT_NS) -> Paired:
    """Put the points of each echo together.

    With `until_ns`, the last time of which every point is there, points of echoes that are not
    complete are kept for the next time, until they are older than `timeout_ns`. Without it there
    are no more to come.
    """
    later = points[:0]
    if until_ns is not None:
        known = points["time_ns"] <= until_ns
        points, later = points[known], points[~known]
    way = _way_of(points)
    echoes = _requests(way)
    replies, second, twins = _replies(way, echoes, timeout_ns)
    arrivals = _arrivals(way, echoes, replies)
    rows = _rows(way, echoes, (replies, second), arrivals, twins)
    if until_ns is None:
        settled = old = np.full(len(points), True)
        done = np.full(len(echoes), True)
    else:
        times = way.points["time_ns"].astype(np.int64)
        settled, old = times <= until_ns - SETTLED_NS, times < until_ns - timeout_ns
        native = way.links["queued"][echoes] < 0  # the host's own end with the reply
        last = np.where(native, replies, arrivals)
        done = ((last >= 0) & settled[last]) | old[echoes]
    parts = [echoes, *(way.links[name][echoes] for name in ("queued", "sent"))]
    parts += [replies, second, arrivals]
    used, waiting = _named(way, parts, done), _named(way, parts, ~done)
    # All that comes before a point is there: only a request may still get its outer device.
    inside = way.at(QUEUED) & ~_left(way)
    waiting |= (~used & ~settled) | (inside & ~old)
    stray = ~used & ~waiting
    unasked = stray & way.at(AT_CONTAINER) & ~way.second_sights(AT_CONTAINER)
    order = np.argsort(rows["queued_ns"][done], kind="stable")
    return Paired(
        rows[done][order],
        np.concatenate([way.points[waiting], later]),
        {"no_request": int(unasked.sum())},
        way.points[stray & inside],
    )


def _named(way: _Way, parts: list[Places], chosen: Bools) -> Bools:
    """Tell which points are parts of the chosen echoes."""
    named = np.full(len(way.points) + 1, False)  # the last one is for what there is not: -1
    for places in parts:
        named[places[chosen]] = True
    return named[:-1]


def _way_of(points: Points) -> _Way:
    order = np.lexsort((points["point"], points["time_ns"], points["skb"]))
    points = points[order]
    new = np.concatenate(([True], points["skb"][1:] != points["skb"][:-1]))[: len(points)]
    start = np.maximum.accumulate(np.where(new, np.arange(len(points)), 0))
    return _Way(points, start)


def _requests(way: _Way) -> Places:
    """Return where the echoes left: the first outer device of each request."""
    here = np.arange(len(way.points), dtype=np.int64)
    queued = way.last(way.at(QUEUED))
    outer = way.at(OUTER_QUEUED)
    local = outer & ((way.points["kind"] & LOCAL) > 0)
    queued[~(outer & ~local & way.same_packet(queued, here))] = -1
    queued = _first(queued)
    # Of the host's own, another outer device (a VLAN's card) is a second sight of the same packet.
    before = way.last(np.full(len(here), True))
    again = local & (way.points["point"][before] == OUTER_QUEUED) & way.same_packet(before, here)
    way.links["queued"] = queued
    echoes = np.flatnonzero((queued >= 0) | (local & ~again))
    is_echo = np.full(len(here), False)
    is_echo[echoes] = True
    left = way.last(is_echo)
    same = way.same_packet(left, here) & (way.points["ifindex"] == way.points["ifindex"][left])
    left[~(way.at(SENT) & same)] = -1
    left = _first(left)
    sent = np.full(len(here), -1, np.int64)
    sent[left[left >= 0]] = here[left >= 0]
    way.links["sent"] = sent
    return echoes


def _first(places: Places) -> Places:
    """Keep only the first that names each place."""
    kept = np.full(len(places), -1, np.int64)
    named, first = np.unique(places, return_index=True)
    kept[first[named >= 0]] = named[named >= 0]
    return kept


def _replies(way: _Way, echoes: Places, timeout_ns: int) -> tuple[Places, Places, Bools]:
    """Return of each echo its first reply, a second one, and whether it has a twin; -1: none."""
    points = way.points
    came = np.flatnonzero(way.at(OUTER_RECEIVED) & ~way.second_sights(OUTER_RECEIVED))
    places = np.concatenate([echoes, came])
    of_echo = np.arange(len(places)) < len(echoes)
    key = np.concatenate(
        [_key(points[echoes], "source", "destination"), _key(points[came], "destination", "source")]
    )
    times = points["time_ns"][places].astype(np.int64)
    order = np.lexsort((~of_echo, times, key))
    key, times, places, of_echo = key[order], times[order], places[order], of_echo[order]
    begins = np.concatenate(([True], key[1:] != key[:-1]))[: len(key)]
    start = np.maximum.accumulate(np.where(begins, np.arange(len(key)), 0))
    asked = np.maximum.accumulate(np.where(of_echo, np.arange(len(key)), -1))
    asked[asked < start] = -1
    answers = ~of_echo & (asked >= 0)
    answers[answers] = _answers(points[places[answers]], points[places[asked[answers]]])
    number = np.full(len(points), -1, np.int64)
    number[echoes] = np.arange(len(echoes))
    reply, second = np.full((2, len(echoes)), -1, np.int64)
    at = np.flatnonzero(answers)[::-1]  # backwards: the first one is written last
    nth = np.zeros(len(key), np.int64)
    nth[answers] = _count_within(asked[answers])
    for n, target in ((0, reply), (1, second)):
        chosen = at[nth[at] == n]
        target[number[places[asked[chosen]]]] = places[chosen]
    follows = of_echo & np.concatenate(([False], of_echo[:-1])) & ~begins
    follows[1:] &= times[1:] - times[:-1] < timeout_ns
    twin = follows | np.concatenate((follows[1:], [False]))
    twins = np.full(len(echoes), False)
    twins[number[places[twin]]] = True
    return reply, second, twins


def _count_within(groups: Places) -> Places:
    """Return how many of the same group come before each; equal ones are neighbours."""
    new = np.concatenate(([True], groups[1:] != groups[:-1]))[: len(groups)]
    here = np.arange(len(groups))
    return here - np.maximum.accumulate(np.where(new, here, 0))


def _answers(reply: Points, request: Points) -> Bools:
    same = (reply["source"] == request["destination"]).all(axis=1)
    same &= (reply["destination"] == request["source"]).all(axis=1)
    for name in ("id", "seq", "family", "netns"):
        same &= reply[name] == request[name]
    return np.asarray(same)


def _key(points: Points, local: str, remote: str) -> NDArray[np.uint64]:
    """Return a number for what a reply answers; equal ones are compared again, in full."""
    key = np.zeros(len(points), np.uint64)
    words = [points[name][:, word] for name in (local, remote) for word in (0, 1)]
    for values in (*words, points["id"], points["seq"], points["netns"]):
        key = (key ^ values.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def _arrivals(way: _Way, echoes: Places, replies: Places) -> Places:
    """Return of each echo where its reply was received on the container's device."""
    here = np.arange(len(way.points), dtype=np.int64)
    is_reply = np.full(len(here) + 1, False)
    is_reply[replies] = True
    came = way.last(is_reply[:-1])
    came[~(way.at(AT_CONTAINER) & way.same_packet(came, here))] = -1
    came = _first(came)
    arrived = np.full(len(here) + 1, -1, np.int64)
    arrived[came[came >= 0]] = here[came >= 0]
    arrivals = np.where(replies >= 0, arrived[replies], -1)
    queued = way.points[way.links["queued"][echoes]]
    for name in ("netns", "id"):
        arrivals[way.points[name][arrivals] != queued[name]] = -1
    arrivals[way.links["queued"][echoes] < 0] = -1
    return np.asarray(arrivals)


def _left(way: _Way) -> Bools:
    """Tell which queued requests left by an outer device."""
    left = np.full(len(way.points) + 1, False)
    left[way.links["queued"]] = True
    return left[:-1]


def _rows(
    way: _Way, echoes: Places, both_replies: tuple[Places, Places], arrivals: Places, twins: Bools
) -> Rows:
    points, queued_at = way.points, way.links["queued"][echoes]
    replies, second = both_replies
    rows = np.zeros(len(echoes), ROW_DTYPE)
    outer = points[echoes]
    native = queued_at < 0
    inner = points[np.where(native, echoes, queued_at)]
    sent, answered, received = way.links["sent"][echoes], replies >= 0, arrivals >= 0
    reply, arrival = points[replies], points[np.where(native, replies, arrivals)]
    received |= native & answered
    values: dict[str, Any] = {
        "queued_ns": inner["time_ns"],
        "outer_queued_ns": outer["time_ns"],
        "sent_ns": np.where(sent >= 0, points["time_ns"][sent], 0),
        "outer_received_ns": np.where(answered, reply["time_ns"], 0),
        "received_ns": np.where(received, arrival["time_ns"], 0),
        "local": outer["source"],
        "remote": outer["destination"],
        "target": inner["destination"],
        "stamp": inner["words"][:, 0],
        "request_skb": outer["skb"],
        "reply_skb": np.where(answered, reply["skb"], 0),
        "inner_ifindex": inner["ifindex"],
        "outer_ifindex": outer["ifindex"],
        "outer_in_ifindex": np.where(answered, reply["ifindex"], 0),
        "outer_id": outer["id"],
        **{
            name: inner[name]
            for name in ("netns", "container", "pid", "id", "seq", "len", "family")
        },
    }
    altered = answered & ~same_content(outer, reply)
    fragments = (outer["kind"] | inner["kind"] | np.where(answered, reply["kind"], 0)) & FRAGMENT
    # A second reply is in doubt only if it came before the first one was received.
    repeated = (second >= 0) & ~(received & (points["time_ns"][second] > values["received_ns"]))
    flags = np.zeros(len(rows), np.uint8)
    for flag, holds in (
        (ANSWERED, answered),
        (RECEIVED, received),
        (REPEATED, repeated),
        (TWIN, twins),
        (FRAGMENTED, fragments > 0),
        (ALTERED, altered),
        (NATIVE, native),
    ):
        flags[holds] |= flag
    for name, value in values.items():
        rows[name] = value
    rows["flags"] = flags
    rows["number"] = np.arange(1, len(rows) + 1)
    return rows
