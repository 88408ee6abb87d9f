"""The small files of a dataset put together into packs, while others read it and write to it.

A pack gets the rows that a reader sees: of captures with files of their own, and of smaller packs.
It counts from one moment on (`maceproc.fleet.packs`); only then is removed what it replaces, and
what has changed since it was read is kept. So this can be killed at any moment, and whatever is
left is told right and put together next time.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from maceproc.errors import AnalysisError, CaptureError
from maceproc.fleet.declared import DATE, FAILURES, HOST, MARK
from maceproc.fleet.layout import Place, place_of
from maceproc.fleet.packs import (
    ATTEMPTS,
    Pack,
    facts_of,
    hidden_in,
    new_name,
    pack_file,
    packs_of,
)
from maceproc.fleet.store import LocalStore, Store, open_store
from maceproc.fleet.tables import require_fleet

if TYPE_CHECKING:
    import pyarrow as pa

LARGE_PACK = 512_000_000  # a pack of this size is not put together with others again [bytes]
ROW_GROUP = 122_880  # rows; DuckDB's own, and what it reads at a time
GROUP_BYTES = 128_000_000  # of rows in memory, whatever their number


@dataclass(frozen=True)
class Compaction:
    """What `compact` did: how many captures it packed, and how many files were and are there."""

    captures: int
    files_before: int
    files_after: int
    size_bytes: int  # of the new pack


@dataclass
class _Sources:
    """What goes into a new pack, and what its files were when they were read."""

    own: dict[str, dict[str, str]]  # table -> capture -> its own file, in the order of places
    packs: list[Pack]  # all, newest first
    merged: list[Pack]  # those that the new pack replaces
    states: dict[str, Hashable] = field(default_factory=dict)  # own file -> its state when read

    @property
    def captures(self) -> set[str]:
        """The captures that the new pack will have."""
        return set(self.own[MARK]).union(*(pack.places for pack in self.merged))

    @property
    def files(self) -> int:
        """How many files the new pack replaces."""
        return sum(map(len, self.own.values())) + sum(len(pack.tables) for pack in self.merged)


def compact(dataset: str | os.PathLike[str], *, large: int = LARGE_PACK) -> Compaction:
    """Put the small files of a dataset together: few files per table, in which all rows are.

    Collectors and readers may be at work meanwhile. It takes the memory of some 100,000 rows. Packs
    of `large` bytes or more are left as they are. Raises CaptureError when there is no such dataset
    or it cannot be written, MaceprocError when a library is not installed.
    """
    require_fleet()
    store = open_store(dataset)
    with store.alone():
        if isinstance(store, LocalStore):
            store.remove_forgotten(MARK)
        for _ in range(ATTEMPTS):
            try:
                return _compact(store, large)
            except FileNotFoundError:  # removed since it was listed, as by `collect --again`
                continue
    raise CaptureError(f"{store.name}: its files change faster than they can be read")


def _compact(store: Store, large: int) -> Compaction:
    sources = _sources(store, large)
    if not any(sources.own.values()) and len(sources.merged) < 2:
        return Compaction(0, sources.files, sources.files, 0)
    name = new_name(sources.packs)
    sizes = {}
    with ExitStack() as stack:
        # Left in the opposite order: the file of MARK comes last, and with it the pack counts.
        mark = stack.enter_context(store.writing(pack_file(name, MARK)))
        for table in set(sources.own) - {MARK}:
            part = stack.enter_context(store.writing(pack_file(name, table)))
            if size := _write(store, sources, table, part, {}):
                sizes[table] = size
        facts = facts_of((*sizes, MARK), sum(sizes.values()))
        sizes[MARK] = _write(store, sources, MARK, mark, facts)
    _remove_replaced(store, sources)
    return Compaction(len(sources.captures), sources.files, len(sizes), sum(sizes.values()))


def _sources(store: Store, large: int) -> _Sources:
    """List what is to be packed; the files of `MARK` first, because collectors write them last."""
    marked: dict[str, list[Place]] = {}
    for place in _places(store, MARK):
        marked.setdefault(place.capture, []).append(place)
    tables = [table for table in store.tables() if table not in (FAILURES.name, MARK)]
    files = {table: _places(store, table) for table in tables}
    packs = packs_of(store)
    replaced = hidden_in(packs, ())
    merged = [
        pack
        for pack, hidden in zip(packs, replaced, strict=True)
        if pack.size_bytes < large or len(hidden) == len(pack.places)
    ]
    # A capture in two places is just being moved from one to the other.
    complete = {places[0] for places in marked.values() if len(places) == 1}
    packed = {capture for pack in merged for capture in pack.places}
    own = {
        table: {
            place.capture: place.file(table)
            for place in places
            if place in complete or (place.capture in packed and place.capture not in marked)
        }
        for table, places in files.items()
    }
    return _Sources(
        {MARK: {p.capture: p.file(MARK) for p in sorted(complete, key=_order)}, **own},
        packs,
        merged,
    )


def _places(store: Store, table: str) -> list[Place]:
    """Return where captures have files of their own in a table, sorted by host and day."""
    found = []
    for file in store.files(table):
        with suppress(ValueError):  # not ours: left alone
            place = place_of(file)
            _date(place)
            found.append(place)
    return sorted(found, key=_order)


def _order(place: Place) -> tuple[str, str, str]:
    return place.host, place.date, place.capture


def _date(place: Place) -> date | None:
    return date.fromisoformat(place.date) if place.date else None


class _Wider(Exception):  # noqa: N818  named after what was found
    """A file has columns, or types, that those before it have not: all need another schema."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema


def _write(
    store: Store, sources: _Sources, table: str, path: Path, facts: dict[bytes, bytes]
) -> int:
    """Write a table's file of the new pack; return its size, 0 when it has no rows."""
    schema: pa.Schema | None = None
    while True:
        try:
            return _write_as(schema, _rows(store, sources, table), path, facts)
        except _Wider as wider:
            schema = wider.schema


def _write_as(
    schema: pa.Schema | None, tables: Iterable[pa.Table], path: Path, facts: dict[bytes, bytes]
) -> int:
    """Write rows with the columns of a schema, or else of the first table; return the file's size.

    Raises _Wider when that lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        writer = None
        for group in _groups(tables, schema):
            if writer is None:
                united = group.schema.with_metadata({**(group.schema.metadata or {}), **facts})
                writer = pq.ParquetWriter(path, united, compression="zstd")
                stack.enter_context(writer)
            rows = pa.Table.from_arrays(group.columns, schema=united)
            writer.write_table(rows, row_group_size=ROW_GROUP)
    return path.stat().st_size if writer else 0


def _rows(store: Store, sources: _Sources, table: str) -> Iterator[pa.Table]:
    """Yield the rows of a table that a reader sees, of everything that is packed."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    own = sources.own[table]
    for pack, hidden in zip(sources.packs, hidden_in(sources.packs, own), strict=True):
        if len(hidden) == len(pack.places):  # also one that was being removed
            continue
        if pack in sources.merged and table in pack.tables:
            ignored = pa.array(sorted(hidden), pa.string())
            with store.open(pack.file(table)) as file, pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(ROW_GROUP):
                    rows = pa.Table.from_batches([batch])
                    yield rows.filter(pc.invert(pc.is_in(rows["capture"], ignored)))
    for name in own.values():
        sources.states[name] = store.state(name)
        with store.open(name) as file:
            yield _with_place(pq.ParquetFile(file).read(use_threads=False), place_of(name))


def _with_place(rows: pa.Table, place: Place) -> pa.Table:
    """Return rows of a capture's own file, with what its path tells as columns."""
    import pyarrow as pa

    host = pa.scalar(place.host or None, pa.string())
    day = pa.scalar(_date(place), pa.date32())
    rows = rows.append_column(HOST.name, pa.repeat(host, len(rows)))
    return rows.append_column(DATE.name, pa.repeat(day, len(rows)))


def _groups(tables: Iterable[pa.Table], schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Yield rows of one schema, as many at a time as a row group has.

    Columns that a table lacks are null. Raises _Wider when one has what the schema lacks.
    """
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if not len(table):
            continue
        schema = schema or table.schema.remove_metadata()
        waiting.append(_as(schema, table))
        rows, size = rows + len(table), size + table.nbytes
        if rows >= ROW_GROUP or size >= GROUP_BYTES:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _as(schema: pa.Schema, table: pa.Table) -> pa.Table:
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    try:
        united = pa.unify_schemas(
            [schema, table.schema.remove_metadata()], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise AnalysisError(f"files of one table do not fit together: {error}") from error
    if not united.equals(schema):
        raise _Wider(united)
    names = set(table.column_names)
    columns = [
        table[field.name].cast(field.type) if field.name in names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)


def _remove_replaced(store: Store, sources: _Sources) -> None:
    """Remove what the new pack has the rows of; a file that has changed since it was read stays."""
    for file, state in sources.states.items():
        store.remove_same(file, state)
    for pack in sources.merged:
        for table in sorted(pack.tables, key=lambda table: table == MARK):  # MARK last
            store.remove(pack.file(table))
