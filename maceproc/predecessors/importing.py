"""The predecessors' files into tables: `maceproc import FILES -o DIR`.

DIR gets a table per kind of row (CSV), and ``provenance.json``: of every file its name, SHA-256,
format, and how many lines were not understood.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from maceproc import __version__
from maceproc.errors import CaptureError, TraceFormatError
from maceproc.pings import parse_ping, rows_of_run
from maceproc.predecessors.formats import (
    DERIVED,
    FIRST_LINES,
    SUFFIXES,
    Lines,
    has_hardware_rtts,
    name_of,
    read_calls,
    read_costs,
    read_hardware_pings,
    read_latencies,
)
from maceproc.tracetext import read_text

PROVENANCE = "provenance.json"
FORMAT = "maceproc import"
VERSION = 1
LARGEST_FILE = 1 << 30  # [bytes]

_WHERE = ("study", "level", "arm", "file")
TABLES: dict[str, tuple[str, ...]] = {
    "pings": (
        *_WHERE, "round", "seq", "rtt_ns", "rtt_resolution_ns", "received_at_ns", "status",
    ),
    "latencies": (
        *_WHERE, "round", "seq", "at_ns", "direction", "latency_ns", "resolution_ns", "tracer_ns",
    ),
    "costs": (*_WHERE, "hook", "run", "cost_ns"),
    "calls": (*_WHERE, "time_ns", "call"),
}  # fmt: skip
"""The columns of the tables, in their order; times are int64 ns, empty where not known."""


@dataclass
class Imported:
    """What was imported: the tables by name, and what is known of every file."""

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)


def import_files(paths: Sequence[Path], output: Path) -> Imported:
    """Import files, and those with a known suffix below directories, into a new directory.

    A trace as text that is none of contools' own is copied, to be read by ``maceproc events``. A
    file of numbers that the authors derived from another one is named, and not read.

    Raises CaptureError when there is nothing to import, a file cannot be read, or `output` exists.
    """
    found = list(_found(paths))
    if not found:
        raise CaptureError(
            "nothing to import", hint=f"give files, or a directory of {', '.join(SUFFIXES)}"
        )
    try:
        output.mkdir(parents=True)
    except OSError as error:
        raise CaptureError(f"{output}: {error.strerror}", hint="give a new -o DIR") from error
    imported = Imported()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for root, path in found:
        table, own, facts = _import(root, path, output)
        imported.files.append(facts)
        if table:
            rows[table] += own
    for name, columns in TABLES.items():
        if rows[name]:
            imported.tables[name] = _table(rows[name], columns)
            imported.tables[name].to_csv(output / f"{name}.csv", index=False)
    document = {"format": FORMAT, "version": VERSION, "maceproc": __version__}
    text = json.dumps(document | {"files": imported.files}, indent=1)
    (output / PROVENANCE).write_text(text + "\n")
    return imported


def _found(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files, each with the directory that its name is told from."""
    for path in paths:
        if not path.is_dir():
            yield path.parent, path
            continue
        for directory, _, names in sorted(os.walk(path)):
            for name in sorted(names):
                if Path(name).suffix in (*SUFFIXES, *DERIVED):
                    yield path, Path(directory) / name


def _table(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows).reindex(columns=list(columns))
    for name in columns:
        if name.endswith("_ns") or name in ("round", "seq", "run"):
            table[name] = pd.array([None if pd.isna(v) else int(v) for v in table[name]], "Int64")
    return table


def _import(
    root: Path, path: Path, output: Path
) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Return the table of one file's rows, the rows, and what is known of the file."""
    data = _bytes(path)
    relative, name = path.relative_to(root), name_of(path)
    facts: dict[str, Any] = {
        "file": relative.as_posix(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "arm": name.arm,
        "level": name.level,
    }
    if path.suffix in DERIVED:
        return "", [], facts | {"format": "numbers derived from another file", "imported": False}
    table, read = _read(path, data.decode("utf-8", "backslashreplace"))
    if not table and _is_trace_text(path):
        copied = "__".join(relative.parts)
        (output / copied).write_bytes(data)
        facts |= {"format": "a trace as text", "imported": True, "copied_to": copied}
        return "", [], facts | {"next": f"maceproc events {output / copied}"}
    study = relative.parent.parent if name.level == relative.parent.name else relative.parent
    where = {"study": study.as_posix(), "level": name.level, "arm": name.arm, "file": facts["file"]}
    hook = {"hook": name.hook} if table == "costs" else {}
    rows = [{**where, **hook, **row} for row in read.rows]
    facts |= {
        "format": read.format,
        "imported": bool(rows),
        "rows": len(rows),
        "lines": read.lines,
        "not_understood": read.not_understood,
    }
    more = {"not_understood_first": read.not_understood_first, "settings": read.settings}
    return table, rows, facts | {key: value for key, value in more.items() if value}


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise CaptureError(f"{path}: not a regular file", hint="give files or directories")
        if path.stat().st_size > LARGEST_FILE:
            raise CaptureError(f"{path}: larger than {LARGEST_FILE >> 20} MiB", hint="split it")
        return path.read_bytes()
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error


def _read(path: Path, text: str) -> tuple[str, Lines]:
    """Return the table that a file's rows belong to, and the rows; no table when it has none."""
    if path.suffix == ".ping":
        return "pings", read_hardware_pings(text) if has_hardware_rtts(text) else _pings(text)
    if path.suffix in (".lat", ".latency"):
        read = read_latencies(text)
        _number_rounds(read.rows)
        return "latencies", read
    if path.suffix == ".pert":
        return "costs", read_costs(text)
    read = read_calls(text)
    return ("calls" if read.rows else "", read)


def _pings(text: str) -> Lines:
    """Read a ping's output, several runs after another, by the reader of all pings."""
    read = Lines("what a ping printed", lines=len(text.splitlines()))
    for number, printed in enumerate(parse_ping(text), 1):
        read.rows += [{"round": number} | row for row in rows_of_run(printed)]
        read.not_understood += printed.not_understood
        room = FIRST_LINES - len(read.not_understood_first)
        read.not_understood_first += printed.not_understood_first[:room]
    return read


def _number_rounds(rows: list[dict[str, Any]]) -> None:
    """Give each latency its round: a new one begins where the numbers of a direction go back."""
    last: dict[str, tuple[int, int]] = {}
    for row in rows:
        seq = row.get("seq")
        if seq is None:
            row["round"] = 1
            continue
        number, before = last.get(row["direction"], (1, -1))
        number += seq < before
        last[row["direction"]] = (number, seq)
        row["round"] = number


def _is_trace_text(path: Path) -> bool:
    try:
        return bool(read_text(path).events)
    except TraceFormatError:
        return False


def is_import(directory: Path) -> bool:
    """Tell whether a directory is one that `import_files` made."""
    try:
        document = json.loads((directory / PROVENANCE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def load_import(directory: Path) -> Imported:
    """Read what `import_files` wrote; CaptureError when it cannot be read."""
    try:
        files = json.loads((directory / PROVENANCE).read_text())["files"]
        tables = {
            name: _table(
                pd.read_csv(
                    directory / f"{name}.csv",
                    dtype={"level": str, "study": str, "arm": str, "hook": str}
                    | {c: "Int64" for c in columns if c.endswith("_ns")},
                    keep_default_na=False,
                    na_values=[""],
                ).to_dict("records"),
                columns,
            )
            for name, columns in TABLES.items()
            if (directory / f"{name}.csv").is_file()
        }
    except (OSError, ValueError, KeyError) as error:
        raise CaptureError(f"{directory}: cannot be read: {error}", hint="import again") from error
    for table in tables.values():
        table[["study", "level", "arm"]] = (
            table[["study", "level", "arm"]].astype(object).fillna("")
        )
    return Imported(tables, files)
