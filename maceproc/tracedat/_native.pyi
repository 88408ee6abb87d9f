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
def numbers(
    data: Any, positions: Any, order: str, fields: list[tuple[int, int, Any]], /
) -> None: ...
def texts(
    data: Any,
    positions: Any,
    lengths: Any,
    order: str,
    offset: int,
    size: int,
    place: int,
    cut: bool,
    codes: Any,
    /,
) -> list[bytes]: ...
