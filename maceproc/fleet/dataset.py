"""A dataset of captures, asked by SQL: nothing is read before a question needs it.

DuckDB scans the Parquet files, on all cores, and reads only the columns, hosts and days that a
question names. Results come as DataFrames without loss: durations stay int64 and addresses uint64,
nullable where values are missing.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from maceproc.errors import AnalysisError, MaceprocError
from maceproc.fleet.answer import Answer, answer_of
from maceproc.fleet.declared import HINT, PARTITIONS, STORED, columns_of
from maceproc.fleet.layout import place_of
from maceproc.fleet.packs import ATTEMPTS, hidden_in, packs_of
from maceproc.fleet.store import Store, filesystem, is_url, open_store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Taken = TypeVar("Taken")

SQL_TYPES = {
    "int64": "BIGINT",
    "int32": "INTEGER",
    "uint64": "UBIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "str": "VARCHAR",
    "category": "VARCHAR",
    "date": "DATE",
}


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open a dataset that `maceproc collect` made: a directory, or a URL that fsspec reaches.

    Raises CaptureError when there is none, MaceprocError when a library is not installed.

    >>> fleet = open_dataset("fleet")                                         # doctest: +SKIP
    >>> fleet.sql("select host, median(rtt_ns) from rtts group by host")      # doctest: +SKIP
    >>> fleet.rtts.filter("status = 'corrected'").df()                        # doctest: +SKIP
    """
    _duckdb()
    return Dataset(open_store(path))


class LazyTable:
    """A table of a dataset that is read when its rows are asked for."""

    def __init__(self, dataset: Dataset, name: str, condition: str = "") -> None:
        self._dataset, self.name, self._condition = dataset, name, condition

    @property
    def columns(self) -> list[str]:
        """The names of its columns; host and date come last."""
        return self._dataset.names_of(self.name)

    def filter(self, condition: str) -> LazyTable:
        """Return the rows for which a condition in SQL is true: ``"host = 'web1'"``."""
        both = f"({self._condition}) and ({condition})" if self._condition else condition
        return LazyTable(self._dataset, self.name, both)

    def df(self, *columns: str) -> pd.DataFrame:
        """Read these columns, or all, into a DataFrame."""
        return self._dataset.sql(self._query(", ".join(map(_quoted, columns)) or "*"))

    def arrow(self, *columns: str) -> pa.Table:
        """Read these columns, or all, into a pyarrow Table."""
        return self._dataset.arrow(self._query(", ".join(map(_quoted, columns)) or "*"))

    def __len__(self) -> int:
        return int(self._dataset.arrow(self._query("count(*)"))[0][0].as_py())

    def __repr__(self) -> str:
        where = f" where {self._condition}" if self._condition else ""
        return f"<table {self.name} of {self._dataset.name}{where}, not read yet>"

    def _query(self, wanted: str) -> str:
        where = f" where {self._condition}" if self._condition else ""
        return f"select {wanted} from {_quoted(self.name)}{where}"


class Dataset:
    """The tables of many captures: ``dataset.rtts``, ``dataset.crossings``, ..., and SQL on them.

    Every row tells the capture that it is from, host and date included.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = store.name

    @property
    def tables(self) -> list[str]:
        """The names of the tables that have rows."""
        return [name for name in self._store.tables() if name in STORED]

    def __getattr__(self, name: str) -> LazyTable:
        if name not in STORED:
            raise AttributeError(f"a dataset has no table {name!r}, but {', '.join(STORED)}")
        return LazyTable(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *STORED]

    def sql(self, query: str) -> pd.DataFrame:
        """Return the answer to a question in DuckDB's SQL; it may name every table.

        Integers stay integers: a column with missing values is Int64 or UInt64. Raises
        AnalysisError when the question cannot be understood or answered.
        """
        return _frame(self.arrow(query))

    def arrow(self, query: str) -> pa.Table:
        """Return the answer to a question in SQL as a pyarrow Table; as `sql`."""
        return self._ask(query, lambda relation: relation.to_arrow_table())

    def answer(self, query: str, most: int | None = None) -> Answer:
        """Return the answer to a question in SQL as Python's own values; at most so many rows.

        Neither pandas nor pyarrow is loaded for it. Raises as `sql`.
        """
        return self._ask(query, lambda relation: answer_of(relation, most))

    def names_of(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        return self.arrow(f"select * from {_quoted(table)} limit 0").column_names

    def __repr__(self) -> str:
        return f"<dataset {self.name}: {', '.join(self.tables) or 'empty'}>"

    def _ask(self, query: str, take: Callable[[Any], Taken]) -> Taken:
        """Return what `take` makes of the relation that DuckDB answers with."""
        by_name = False
        for _ in range(ATTEMPTS):
            try:
                return self._taken(query, take, by_name=by_name)
            except _OtherColumns:
                by_name = True
            except FileNotFoundError:  # packed since the files were listed: list them again
                continue
        raise AnalysisError(f"{self.name}: its files change faster than they can be read")

    def _taken(self, query: str, take: Callable[[Any], Taken], *, by_name: bool) -> Taken:
        duckdb = _duckdb()
        with contextlib.closing(duckdb.connect()) as connection:
            for setting in _SETTINGS:
                connection.execute(f"set {setting}")
            if is_url(self.name):
                connection.register_filesystem(filesystem(self.name)[0])
            with _told(duckdb):
                for name in STORED:
                    if re.search(rf"\b{name}\b", query, re.IGNORECASE):
                        connection.execute(self._view(name, connection, by_name=by_name))
                relation = connection.sql(query)
                if relation is None:
                    raise AnalysisError("the query gives no table", hint="begin it with select")
                return take(relation)

    def _view(self, name: str, connection: Any, *, by_name: bool) -> str:
        """Return the SQL that makes a table of files; of a table without any, an empty one."""
        files = self._store.files(name)  # before the packs: see maceproc.fleet.packs
        packs = packs_of(self._store)
        own = {place_of(file).capture for file in files} if packs else ()
        parts = [self._own(name, files, connection, by_name=by_name)] if files else []
        hidden = hidden_in(packs, own)
        for number, (pack, captures) in enumerate(zip(packs, hidden, strict=True)):
            if name not in pack.tables or len(captures) == len(pack.places):
                continue
            part = f"select * from read_parquet({_text(self._path(pack.file(name)))}, {_NO_HIVE})"
            if captures:
                ignored = f"hidden_{name}_{number}"
                connection.execute(
                    f"create temp table {ignored} as select unnest(?) as capture", [list(captures)]
                )
                part += f" where capture not in (select capture from {ignored})"
            parts.append(part)
        if not parts:
            declared = (*columns_of(STORED[name]), *PARTITIONS)
            typed = (f"null::{SQL_TYPES[c.dtype.lower()]} as {_quoted(c.name)}" for c in declared)
            return f"create view {name} as select {', '.join(typed)} limit 0"
        return f"create view {name} as {' union all by name '.join(parts)}"

    def _own(self, name: str, files: list[str], connection: Any, *, by_name: bool) -> str:
        """Return the SQL that reads the files that captures have of their own in a table."""
        columns = [column.name for column in columns_of(STORED[name])]
        types = ", ".join(f"{c.name}: {SQL_TYPES[c.dtype]}" for c in PARTITIONS)
        first = f"read_parquet({_text(self._path(files[0]))}, {_NO_HIVE})"
        by_name = by_name or connection.sql(f"select * from {first} limit 0").columns != columns
        every = ", ".join(_text(self._path(file)) for file in files)
        options = f"hive_partitioning = true, hive_types = {{{types}}}, union_by_name = {by_name}"
        last = ", ".join(_quoted(column.name) for column in PARTITIONS)
        return f'select * exclude ("table", {last}), {last} from read_parquet([{every}], {options})'

    def _path(self, file: str) -> str:
        """Return a file's path as DuckDB takes it."""
        root = self.name.rstrip("/") if is_url(self.name) else _literal_path(self.name)
        return f"{root}/{file}"


# A question reads: it loads no extension from elsewhere.
_SETTINGS = ("autoinstall_known_extensions = false", "enable_progress_bar = false")


_NO_HIVE = "hive_partitioning = false"  # the table's name is in the path as a partition, too

# What DuckDB says of a file that is not there, on a local file system and through fsspec.
_GONE = re.compile("No files found|No such file|FileNotFound|not found", re.IGNORECASE)


class _OtherColumns(Exception):  # noqa: N818  named after what was found
    """Files of one table have not the same columns: other versions wrote them."""


@contextlib.contextmanager
def _told(duckdb: Any) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        said = str(error)
        if "union_by_name" in said:
            raise _OtherColumns from error
        if isinstance(error, duckdb.IOException) and _GONE.search(said):
            raise FileNotFoundError(said) from error
        line = " ".join(said.split("\n\n", maxsplit=1)[0].split())
        hint = "the tables are " + ", ".join(STORED)
        raise AnalysisError(f"the query failed: {line[:500]}", hint=hint) from error


def _literal_path(name: str) -> str:
    """Return a path in which no character stands for others, as * would."""
    return glob.escape(os.path.abspath(name))  # noqa: PTH100  links stay as given


def _text(value: str) -> str:
    doubled = value.replace("'", "''")
    return f"'{doubled}'"


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return a DataFrame in which no integer has become a floating-point number."""
    import pandas as pd

    return pd.DataFrame({i: _series(table.column(i)) for i in range(table.num_columns)}).set_axis(
        table.column_names, axis=1
    )


def _series(column: pa.ChunkedArray) -> pd.Series[Any]:
    import pandas as pd
    import pyarrow as pa

    kind = column.type
    if pa.types.is_decimal(kind) and kind.scale == 0:  # of sum(): 128 bits
        values = [None if value is None else int(value) for value in column.to_pylist()]
        fits = all(value is None or -(1 << 63) <= value < 1 << 63 for value in values)
        return pd.Series(values, dtype=("Int64" if None in values else "int64") if fits else object)
    if pa.types.is_integer(kind) and column.null_count:
        name = str(kind)
        dtype = name.replace("uint", "UInt") if name.startswith("u") else name.replace("int", "Int")
        filled = column.fill_null(0).to_numpy()
        missing = column.is_null().to_numpy()
        return pd.Series(pd.arrays.IntegerArray(filled.astype(dtype.lower()), missing))
    return column.to_pandas()


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise MaceprocError("a dataset needs DuckDB and pyarrow", hint=HINT) from error
    return duckdb
