from typing import Any

# Columns; sizes of a rank, a device's code and a length; kind, number of the event; first row, end.
Source = tuple[tuple[Any, ...], int, int, int, int, int, int, int]

def count_addresses(sources: list[Source], /) -> tuple[bytes, bytes] | None: ...
def place_hops(
    sources: list[Source], addresses: Any, starts: Any, ordered: tuple[Any, ...], /
) -> bool: ...

# The rules: which kinds may follow, ports, possible links, links into a dead end; softirq is told.
def number_lives(
    ordered: tuple[Any, ...],
    rules: tuple[Any, ...],
    first: int,
    end: int,
    journeys: Any,
    numbers: Any,
    /,
) -> int: ...

# Events and devices of all hops; size of a device; which are wanted, [event, device]; its width.
def find_hops(
    events: Any, devices: Any, size: int, wanted: Any, width: int, found: Any, /
) -> int: ...

# As before; then journeys, the hops whose journeys they are, positions, steps, what is kept.
def keep_hops(
    events: Any,
    devices: Any,
    size: int,
    wanted: Any,
    width: int,
    journeys: Any,
    origins: Any,
    positions: Any,
    steps: int,
    found: Any,
    /,
) -> None: ...
