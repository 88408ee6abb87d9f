from typing import Any

# Data; offset of data, offset and size of commit; byte order; wanted and least size per type; span.
Trace = tuple[Any, int, int, int, str, Any, Any, int, int]
Rows = list[tuple[Any, ...]]

def tally(trace: Trace, streams: Rows, rows: Any, others: Any, /) -> bool: ...
def deal(
    trace: Trace, streams: Rows, tables: Rows, rank: int, wide: bool, /
) -> list[list[list[bytes]]] | None: ...

# Records of a perf.data and byte order; positions as int64, and where they end.
def kernel_records(data: Any, order: str, /) -> tuple[bytes, int]: ...
