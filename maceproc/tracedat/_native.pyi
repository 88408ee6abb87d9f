from typing import Any

def walk(
    data: Any,
    starts: Any,
    page_size: int,
    data_offset: int,
    commit_offset: int,
    commit_size: int,
    order: str,
    wanted: Any,
    counts: Any,
    first: Any,
    last: Any,
    lost: Any,
    damaged: Any,
    times: Any,
    positions: Any,
    lengths: Any,
    types: Any,
    /,
) -> int: ...
def order(times: Any, types: Any, bounds: Any, slots: Any, sources: Any, ranks: Any, /) -> bool: ...
def pick(
    numbers: Any,
    times: Any,
    bounds: Any,
    cpus: Any,
    out_times: Any,
    out_cpus: Any,
    /,
) -> None: ...
def columns(
    data: Any,
    records: Any,
    positions: Any,
    lengths: Any,
    order: str,
    numbers: list[tuple[int, int, Any]],
    values: list[tuple[int, int, int, bool, Any]],
    /,
) -> list[list[bytes]]: ...
