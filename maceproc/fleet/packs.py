"""Packs: the rows of many captures in one file per table, made by `maceproc compact`.

Opening a file costs more than reading the rows of one capture, so a dataset of ten thousand
captures is slow to ask until it is packed. A pack is a file ``table=TABLE/packed/NAME.parquet``
for every table that has rows; ``host`` and ``date`` are columns in it. Four rules make every
state of a dataset readable, whatever writes to it and wherever a writer was killed:

* A pack counts once its file of the table `MARK` is there, which is written last. That file also
  says which captures and which tables the pack has.
* In every table, a capture's own file is read instead of its rows in any pack.
* Of two packs with one capture, the rows of the newer pack are read. Names of packs sort by age.
* A capture's own file is removed only after the pack with its rows counts. So who lists a table's
  own files first, and packs after that, misses no row.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from maceproc.fleet.declared import DATE, HOST, MARK
from maceproc.fleet.layout import PACKED, SUFFIX, Place
from maceproc.fleet.store import Store, open_store

FACTS = b"maceproc"  # key in the Parquet metadata of a pack's file of `MARK`; the value is JSON


@dataclass(frozen=True)
class Pack:
    """One pack of a dataset.

    Attributes
    ----------
    name
        Of its files, without directory and suffix: a generation, and what makes it unique.
    places
        The captures it has, and where in the dataset each of them belongs.
    tables
        The tables of which it has a file.
    size_bytes
        What its files have together.
    """

    name: str
    places: dict[str, Place]
    tables: frozenset[str]
    size_bytes: int

    def file(self, table: str) -> str:
        """Return the path of its file of one table, below the dataset's directory."""
        return pack_file(self.name, table)


def pack_file(name: str, table: str) -> str:
    """Return the path of a pack's file of one table, below the dataset's directory."""
    return f"table={table}/{PACKED}/{name}{SUFFIX}"


def new_name(packs: Sequence[Pack]) -> str:
    """Return the name of a pack that is newer than these."""
    newest = max((int(pack.name.partition("-")[0]) for pack in packs), default=0)
    return f"{newest + 1:06d}-{secrets.token_hex(8)}"


def facts_of(tables: Iterable[str], size_bytes: int) -> dict[bytes, bytes]:
    """Return the metadata of a pack's file of `MARK`, which `packs_of` reads."""
    return {FACTS: json.dumps({"tables": sorted(tables), "size_bytes": size_bytes}).encode()}


def packs_of(store: Store) -> list[Pack]:
    """Return the packs of a dataset, newest first.

    Raises FileNotFoundError when one is removed meanwhile, because a newer one has its rows.
    """
    return [_read(store.name, name) for name in sorted(store.packs(MARK), reverse=True)]


@lru_cache(maxsize=64)
def _read(dataset: str, name: str) -> Pack:
    """Read which captures a pack has; its files never change."""
    import pyarrow.parquet as pq

    columns = ["capture", HOST.name, DATE.name]
    with open_store(dataset).open(pack_file(name, MARK)) as file, pq.ParquetFile(file) as parquet:
        facts = json.loads(parquet.schema_arrow.metadata[FACTS])
        rows = zip(*(parquet.read([column])[0].to_pylist() for column in columns), strict=True)
        found = {
            capture: Place(capture, host or "", date.isoformat() if date else "")
            for capture, host, date in rows
        }
    return Pack(name, found, frozenset(facts["tables"]), facts["size_bytes"])


def hidden_in(packs: Sequence[Pack], own: Collection[str]) -> list[frozenset[str]]:
    """Return, for each of these packs, the captures whose rows are not to be read from it.

    `packs` are all packs of a dataset, newest first; `own` are the captures that have a file of
    their own in the table that is read.
    """
    newer = set(own)
    hidden = []
    for pack in packs:
        hidden.append(frozenset(newer.intersection(pack.places)))
        newer.update(pack.places)
    return hidden


def has(store: Store, place: Place) -> bool:
    """Tell whether a dataset has a capture, in this place: its own files, or its rows in a pack."""
    if store.exists(place.file(MARK)):
        return True
    return any(pack.places.get(place.capture) == place for pack in packs_now(store))


def is_packed(store: Store, capture: str) -> bool:
    """Tell whether some pack has rows of a capture, whatever its place."""
    return any(capture in pack.places for pack in packs_now(store))


def packs_now(store: Store) -> list[Pack]:
    """Return the packs as `packs_of`; while another process replaces some, read them again."""
    for _ in range(ATTEMPTS):
        try:
            return packs_of(store)
        except FileNotFoundError:
            continue
    return packs_of(store)


ATTEMPTS = 20
"""So often a reader begins again that finds files removed since it listed them."""
