"""The printed values of one field as a typed column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import pandas as pd

from maceproc.tracetext.bodies import FREE_TEXT, TEXT, Value

# Addresses are printed with and without 0x, and with an x behind (FORMAT "%px" through an older
# libtraceevent); an address without 0x can look like a decimal number.
ADDRESS_FIELDS = frozenset(("skbaddr", "skaddr", "rx_sk", "sk", "napi"))
ADDRESS = re.compile(r"^(?:0x)?(?P<digits>[0-9a-f]{1,16})x?$")
# %p prints 16 digits (8 on 32-bit kernels), zeros in front, without 0x.
FULL_WIDTH = re.compile(r"^(?:[0-9a-f]{16}|[0-9a-f]{8})$")
NIL = ("(nil)", "(null)")
HIDDEN = re.compile(r"^\((?:____ptrval____|ptrval|efault|einval)\)$")

# A number, and what can follow it: a unit or a comment in brackets, or a unit of time or size.
NUMBER = re.compile(
    r"^(?P<number>-?\d{1,20}|0x[0-9a-f]{1,16})"
    r"(?:\s+(?:[\[(][^\[\]()]*[\])]|ns|us|ms|s|bytes|kB|pages|jiffies|Hz|kHz))*$"
)

# Fields that their event prints with %x, %lx or %llx, without 0x: a value such as 14000000 looks
# decimal and is not. From the print formats of v6.18 (/sys/kernel/tracing/events/*/*/format).
HEXADECIMAL_FIELDS = (
    ("dma_*", {"dma_addr", "phys_addr"}),
    ("erofs_lookup", {"flags"}),
    ("handle_mmio_page_fault", {"addr"}),
    ("io_uring_req_failed", {"addr3"}),
    ("kvm_nested_intercepts", {"cr_read", "cr_write", "excp", "intercepts"}),
    ("mm_filemap_*", {"ino"}),
    ("mm_khugepaged_collapse_file", {"addr"}),
    ("get_mapping_status", {"csum"}),
    ("mptcp_sendmsg_frag", {"csum"}),
    ("page_cache_*", {"ino"}),
    ("*_migration_p[mt][de]", {"addr", "pmd", "pte"}),
    ("sched_skip_vma_numa", {"numa_scan_offset", "vm_start", "vm_end"}),
    ("signal_deliver", {"sa_handler", "sa_flags"}),
    ("swiotlb_bounced", {"dma_mask", "dev_addr"}),
    ("task_newtask", {"clone_flags"}),
    ("tcp_*", {"sock_cookie"}),
    ("tmigr_*", {"groupmask", "active", "migrator", "childmask", "child_active", "group_active"}),
    ("x86_fpu_*", {"xfeatures", "xcomp_bv"}),
)  # fmt: skip


def typed_column(event: str, name: str, values: Sequence[Value | None]) -> pd.Series[Any]:
    """Type a column by its values; missing where a line has none.

    Addresses and numbers become integers; a comment behind a number is left out. Tuples stay
    tuples, everything else becomes a categorical, and so do names and texts that look like numbers.
    """
    present = [value for value in values if value is not None]
    if any(isinstance(value, tuple) for value in present):
        return pd.Series(values, dtype=object)
    if is_text(name) and all(isinstance(value, str) for value in present):
        return pd.Series(values, dtype="category")
    if name in ADDRESS_FIELDS or is_hexadecimal(event, name, present):
        return _integers([_address(value) for value in values], unsigned=True)
    numbers = [_number(value) for value in values]
    if numbers.count(None) == len(values) - len(present):
        if name == "ret":  # a long, printed as an address
            numbers = [n - 2**64 if n is not None and n >= 2**63 else n for n in numbers]
        return _integers(numbers)
    return pd.Series([None if v is None else str(v) for v in values], dtype="category")


def is_text(name: str) -> bool:
    """Whether a field is text whatever its values look like: a command can be called 123."""
    return bool(FREE_TEXT.search(name)) or name in ("name", "dev_name", TEXT)


def is_address(value: Value | None) -> bool:
    """Whether a value is an address, or what the kernel prints in place of one."""
    return isinstance(value, str) and bool(
        ADDRESS.match(value) or value in NIL or HIDDEN.match(value)
    )


def is_hexadecimal(event: str, name: str, present: Sequence[Value]) -> bool:
    """Whether the values of a field are hexadecimal without 0x.

    That is known of some fields (`HEXADECIMAL_FIELDS`). Of others it is concluded where every value
    has the full width of an address, and one of them a letter or a zero in front.
    """
    texts = [value for value in present if isinstance(value, str)]
    if not texts or len(texts) != len(present) or not all(map(is_address, texts)):
        return False
    if name in _known_hexadecimal(event):
        return True
    digits = [text for text in texts if text not in NIL and not HIDDEN.match(text)]
    return all(map(FULL_WIDTH.match, digits)) and any(
        text.startswith("0") or not text.isdigit() for text in digits
    )


@lru_cache(256)
def _known_hexadecimal(event: str) -> frozenset[str]:
    known = (fields for pattern, fields in HEXADECIMAL_FIELDS if fnmatchcase(event, pattern))
    return frozenset().union(*known)


def _address(value: Value | None) -> int | None:
    if isinstance(value, int):
        return value
    if value is None or not isinstance(value, str):
        return None
    if value in NIL:
        return 0
    match = ADDRESS.match(value)
    return int(match["digits"], 16) if match else None


def _number(value: Value | None) -> int | None:
    if isinstance(value, int):
        return value
    match = NUMBER.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    number = match["number"]
    return int(number, 16 if number.startswith("0x") else 10)


def _integers(values: list[int | None], *, unsigned: bool = False) -> pd.Series[Any]:
    present = [value for value in values if value is not None]
    large = unsigned or max(present, default=0) >= 2**63
    if max(present, default=0) >= 2**64 or min(present, default=0) < (0 if large else -(2**63)):
        return pd.Series([None if v is None else str(v) for v in values], dtype="category")
    dtype = ("UInt64" if large else "Int64") if None in values else "uint64" if large else "int64"
    return pd.Series(values, dtype=dtype)
