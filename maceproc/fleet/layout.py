"""Where the files of a dataset are: ``table=rtts/host=web1/date=2026-11-27/<sha256>.parquet``.

The directories are those of Apache Hive's partitions, which pyarrow, DuckDB, Spark and R's arrow
read: values are percent-encoded (RFC 3986), and an unknown value has a name of its own. Host names
come from captures, so from anybody: nothing in one can leave the dataset's directory.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from urllib.parse import quote, unquote

UNKNOWN = "__HIVE_DEFAULT_PARTITION__"  # Hive's word for a value that is missing
LONGEST_VALUE = 180  # of an encoded value; a file's name has at most 255 bytes
SUFFIX = ".parquet"
PACKED = "packed"  # directory of the files with the rows of many captures
PARTIAL = "_partial"  # directory of files that are being written; a leading _ hides it from readers


class Place(NamedTuple):
    """Where in a dataset the files of one capture are, whatever the table."""

    capture: str  # SHA-256 of the trace, or what stands for it
    host: str  # empty when not known
    date: str  # ISO 8601, UTC; empty when not known

    def file(self, table: str) -> str:
        """Return the path of the capture's file of one table, below the dataset's directory."""
        host, date = encoded(self.host), encoded(self.date)
        return f"table={table}/host={host}/date={date}/{self.capture}{SUFFIX}"


def place_of(file: str) -> Place:
    """Return the place of a file of a dataset; ValueError when it is not one."""
    parts = file.strip("/").split("/")[-4:]
    keys = [part.partition("=")[0] for part in parts[:-1]]
    if keys != ["table", "host", "date"] or not parts[-1].endswith(SUFFIX):
        raise ValueError(file)
    host, date = (decoded(part.partition("=")[2]) for part in parts[1:3])
    return Place(parts[-1].removesuffix(SUFFIX), host, date)


def encoded(value: str) -> str:
    """Return a value as the name of a directory has it; `decoded` gives it back.

    A value that is too long for a file system is cut, and gets a digest that tells it from others.
    """
    if not value:
        return UNKNOWN
    # A name of nothing but dots is a directory's, and readers take _ at the start for hidden.
    first = f"%{ord(value[0]):02X}" if value[0] in "._" else _percent(value[0])
    pieces = [first, *map(_percent, value[1:])]
    text = "".join(pieces)
    if len(text) <= LONGEST_VALUE:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    while len(text) + 1 + len(digest) > LONGEST_VALUE:
        text = text[: -len(pieces.pop())]
    return f"{text}-{digest}"


def _percent(character: str) -> str:
    return quote(character, safe="-_.", errors="surrogatepass")


def decoded(name: str) -> str:
    """Return the value of a directory's name."""
    return "" if name == UNKNOWN else unquote(name, errors="replace")
