"""Echoes as columns, under the names that JSON lines and Parquet files give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maceproc.echoes import (
    AMBIGUOUS,
    COMPLETE,
    REASONS,
    STATUSES,
    address_text,
    durations,
    judge,
)
from maceproc.pairing import Points, Rows


class Column(NamedTuple):
    """One value of an echo: its name, unit and meaning; some echoes lack some values."""

    name: str
    unit: str
    meaning: str
    may_miss: bool = False


COLUMNS = (
    Column("time_utc_ns", "ns since 1970, UTC", "request queued on the container's device"),
    Column("container", "", "name of the container or namespace"),
    Column("target", "", "destination address, as the container says it"),
    Column("id", "", "ICMP identifier, in the container"),
    Column("seq", "", "ICMP sequence number"),
    Column("size_bytes", "byte", "ICMP message, its header of 8 bytes included"),
    Column("kernel_rtt_ns", "ns", "from the container's device and back to it", True),
    Column("outbound_ns", "ns", "from the container's device to the outer device"),
    Column("wire_ns", "ns", "from the outer device's driver to the reply's first event", True),
    Column("inbound_ns", "ns", "from the outer device to the container's device", True),
    Column("corrected_rtt_ns", "ns", "kernel_rtt_ns - outbound_ns - inbound_ns", True),
    Column("status", "", " ".join(STATUSES)),
    Column("reason", "", "why the status is not complete"),
)


def echo_columns(
    rows: Rows, name_of: Callable[[int], str], utc_offset_ns: int
) -> dict[str, NDArray[Any] | list[str]]:
    """Return the columns of rows; a value that an echo lacks is -1.

    Parameters
    ----------
    name_of
        The name of a place by its number.
    utc_offset_ns
        UTC minus the clock of the rows.
    """
    status, reason = judge(rows)
    spans = durations(rows)
    known = (status == COMPLETE) | ((status == AMBIGUOUS) & (rows["received_ns"] > 0))
    answered = rows["outer_received_ns"] > 0
    return {
        "time_utc_ns": rows["queued_ns"].astype(np.int64) + utc_offset_ns,
        "container": _texts(rows["container"].tolist(), name_of),
        "target": _targets(rows),
        "id": rows["id"],
        "seq": rows["seq"],
        "size_bytes": rows["len"],
        "kernel_rtt_ns": np.where(known, spans.kernel_rtt, -1),
        "outbound_ns": spans.outbound,
        "wire_ns": np.where(answered, spans.wire, -1),
        "inbound_ns": np.where(known, spans.inbound, -1),
        "corrected_rtt_ns": np.where(answered, spans.corrected, -1),
        "status": [STATUSES[place] for place in status.tolist()],
        "reason": [REASONS[place] for place in reason.tolist()],
    }


def echo_records(columns: dict[str, NDArray[Any] | list[str]]) -> Iterable[dict[str, Any]]:
    """Yield an object for each echo; a missing value is None."""
    lists = [
        column if isinstance(column, list) else _with_none(column.tolist(), _MAY_MISS[name])
        for name, column in columns.items()
    ]
    for values in zip(*lists, strict=True):
        yield dict(zip(columns, values, strict=True))


_MAY_MISS = {column.name: column.may_miss for column in COLUMNS}


def _with_none(values: list[Any], may_miss: bool) -> list[Any]:
    return [None if value == -1 else value for value in values] if may_miss else values


def targets_of(points: Points) -> list[tuple[int, str]]:
    """Return of each request at a container's device the container's number and the target."""
    destinations = points["destination"].tolist()
    families, containers = points["family"].tolist(), points["container"].tolist()
    texts = map(address_text, families, destinations)
    return list(zip(containers, texts, strict=True))


def _texts(values: list[int], text_of: Callable[[int], str]) -> list[str]:
    known = {value: text_of(value) for value in set(values)}
    return [known[value] for value in values]


def _targets(rows: Rows) -> list[str]:
    keys = list(
        zip(
            rows["family"].tolist(),
            rows["target"][:, 0].tolist(),
            rows["target"][:, 1].tolist(),
            strict=True,
        )
    )
    known = {key: address_text(key[0], key[1:]) for key in set(keys)}
    return [known[key] for key in keys]
