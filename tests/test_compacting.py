"""Datasets packed into few files: no reader sees a row twice or misses one, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import maceproc
from maceproc.cli import cli
from maceproc.errors import CaptureError
from maceproc.fleet import compacting, dataset
from maceproc.fleet.compacting import Compaction, compact
from maceproc.fleet.dataset import open_dataset
from maceproc.fleet.declared import CAPTURES, QUANTITIES
from maceproc.fleet.layout import Place
from maceproc.fleet.packs import packs_of
from maceproc.fleet.store import FORGOTTEN_S, LOCK, LocalStore, open_store
from maceproc.fleet.tables import as_parquet
from tests.recorded import path_of

CHANGES = ("write", "writing", "remove", "remove_same")
"""What changes the files of a dataset: methods of its store."""


class Killed(BaseException):
    """The process ends here."""


def sha(number: int) -> str:
    return f"{number:064x}"


def put(store: LocalStore, number: int, value: int = 0, host: str = "", rows: int = 2) -> None:
    """Write a capture as a collector does: its tables, then its row in captures."""
    place = Place(sha(number), host or f"h{number % 3}", f"2026-01-{1 + number % 28:02d}")
    facts = {
        **dict.fromkeys(("file", "ran_in", "target", "path", "kernel", "event_set"), "x"),
        **dict.fromkeys(("recorded_by", "analyzed_by"), "1"),
        "capture": place.capture, "schema_version": 1,
    }  # fmt: skip
    quantities = QUANTITIES.from_rows([(f"q{n}", 10, 1, value, n, n) for n in range(rows)])
    store.write(place.file("quantities"), as_parquet(QUANTITIES, quantities, facts))
    summary = CAPTURES.from_rows([("ping", 0, 1, 10, 10, value, 0, 0, 0, 100)])
    store.write(place.file("captures"), as_parquet(CAPTURES, summary, facts))


SEEN = """
select capture, 0 as kind, host || ' ' || date as what, corrected as value from captures
union all select capture, 1, quantity, median_ns::bigint from quantities order by all
"""


def seen(directory: Path) -> dict[int, list[Any]]:
    """Return what a reader sees of each capture: host and date, corrected, and its quantities."""
    found: dict[int, list[Any]] = {}
    for row in open_dataset(directory).arrow(SEEN).to_pylist():
        found.setdefault(int(row["capture"], 16), []).append((row["what"], row["value"]))
    return found


def files_below(directory: Path) -> list[str]:
    found = (path for path in directory.rglob("*") if path.is_file() and path.name != LOCK)
    return sorted(path.relative_to(directory).as_posix() for path in found)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A dataset of captures in a pack, captures beside it, and one of both, analyzed anew."""
    made = open_store(tmp_path / "a [b]* 'c'", create=True)
    assert isinstance(made, LocalStore)
    for number in range(4):
        put(made, number)
    compact(made.name)
    for number in (3, 4, 5):
        put(made, number, value=7)
    return made


def test_rows_are_the_same_in_few_files(store: LocalStore) -> None:
    directory = Path(store.name)
    before = seen(directory)
    assert {number: len(rows) for number, rows in before.items()} == dict.fromkeys(range(6), 3)
    assert before[3][0][1] == 7
    done = compact(directory)
    assert (done.captures, done.files_before, done.files_after) == (6, 8, 2)
    assert seen(directory) == before
    assert len(files_below(directory)) == 3  # two tables, and the README
    assert not list(directory.glob("table=*/host=*"))
    assert compact(directory).captures == 0
    assert len(packs_of(store)) == 1


def counted(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` with a number before and after everything that changes a dataset's files."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        act(count)

    for name in CHANGES:
        changing: Any = getattr(LocalStore, name)

        def changed(self: LocalStore, *given: Any, changing: Any = changing) -> Any:
            step()
            found = changing(self, *given)
            if hasattr(found, "__enter__"):
                return steps(found)
            step()
            return found

        @contextmanager
        def steps(inner: Any) -> Iterator[Any]:
            with inner as path:
                yield path
                step()
            step()

        monkeypatch.setattr(LocalStore, name, changed)


def test_a_reader_sees_every_row_once_at_every_moment(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(store.name)
    before = seen(directory)
    moments: list[int] = []

    def look(moment: int) -> None:
        moments.append(moment)
        assert seen(directory) == before

    counted(monkeypatch, look)
    compact(directory)
    assert len(moments) > 20


def test_killed_at_every_moment_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = killed = 0
    while killed == moment:
        moment += 1
        with monkeypatch.context() as patch:
            directory = tmp_path / str(moment)
            store = LocalStore(directory)
            store.write("README.txt", b"")
            for number in range(2):
                put(store, number)
            compact(directory)
            put(store, 1, value=7)
            before = seen(directory)

            def kill(now: int) -> None:
                if now == moment:  # noqa: B023  called in this turn of the loop
                    raise Killed

            counted(patch, kill)
            try:
                compact(directory)
            except Killed:
                killed += 1
        assert seen(directory) == before, moment
        put(store, 0, value=9)  # a collector goes on
        after = seen(directory)
        assert after[0][0][1] == 9
        compact(directory)
        assert seen(directory) == after, moment
        assert not list(directory.glob("table=*/host=*")), moment
    assert killed > 10


def test_a_capture_analyzed_anew_while_it_is_packed_stays_new(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(store.name)
    old_rows = compacting._rows

    def rows(*given: Any) -> Iterator[Any]:
        yield from old_rows(*given)
        if given[2] == "captures":  # everything has been read
            put(store, 4, value=100)
            put(store, 6, value=100)

    monkeypatch.setattr(compacting, "_rows", rows)
    compact(directory)
    monkeypatch.undo()
    found = seen(directory)
    assert found[4] == [("h1 2026-01-05", 100), ("q0", 100), ("q1", 100)]
    assert sorted(found) == list(range(7))
    assert {len(rows) for rows in found.values()} == {3}
    compact(directory)
    assert seen(directory) == found


def test_a_table_without_rows_hides_those_of_a_pack(store: LocalStore) -> None:
    put(store, 0, rows=0)
    assert seen(Path(store.name))[0] == [("h0 2026-01-01", 0)]
    compact(store.name)
    assert seen(Path(store.name))[0] == [("h0 2026-01-01", 0)]


def test_a_reader_begins_again_when_files_go(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(store.name)
    before = seen(directory)
    listed = dataset.packs_of
    done: list[Compaction] = []

    def packs(given: Any) -> Any:
        found = listed(given)
        if not done:  # between listing the files and reading them
            done.append(compact(directory))
        return found

    monkeypatch.setattr(dataset, "packs_of", packs)
    assert seen(directory) == before
    assert done[0].captures == 6


def test_large_packs_are_left_and_never_told_twice(store: LocalStore) -> None:
    directory = Path(store.name)
    before = seen(directory)
    compact(directory, large=1)
    assert len(packs_of(store)) == 2
    assert seen(directory) == before
    for number in range(4):  # the older pack has nothing of its own any more
        put(store, number, value=8)
    before = seen(directory)
    compact(directory, large=1)
    assert seen(directory) == before
    compact(directory)
    assert seen(directory) == before
    assert len(packs_of(store)) == 1


def test_tables_of_other_versions_are_packed_together(store: LocalStore) -> None:
    directory = Path(store.name)
    place = Place(sha(9), "h", "2026-01-01")
    rows = pq.read_table(directory / store.files("quantities")[0]).to_pandas()
    rows = rows.drop(columns=["rounds"]).assign(capture=sha(9), newer=1.5)
    for table in ("quantities", "captures"):
        path = directory / place.file(table)
        path.parent.mkdir(parents=True)
        rows.to_parquet(path, index=False)
    compact(directory)
    found = open_dataset(directory).quantities.df()
    assert found["newer"].count() == 2
    assert found["rounds"].isna().sum() == 2
    assert len(found) == 14


def test_what_was_left_half_written_goes_after_a_day(store: LocalStore) -> None:
    directory = Path(store.name)
    left = directory / "table=quantities" / "packed" / "000009-0.parquet"
    left.write_bytes(b"half")
    compact(directory)
    assert left.exists()  # another compaction may be about to make it count
    os.utime(left, (0, left.stat().st_mtime - FORGOTTEN_S - 1))
    compact(directory)
    assert not left.exists()


def test_two_at_once_beside_a_collector(store: LocalStore) -> None:
    directory = Path(store.name)
    before = seen(directory)
    code = "import sys; from maceproc.fleet.compacting import compact; compact(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", code, str(directory)]) for _ in range(2)]
    number = 10
    while any(process.poll() is None for process in both):
        put(store, number)
        number += 1
    assert [process.wait() for process in both] == [0, 0]
    found = seen(directory)
    assert {number: found[number] for number in before} == before
    assert sorted(found) == [*before, *range(10, number)]
    assert {len(rows) for rows in found.values()} == {3}


def test_a_killed_process_leaves_a_dataset_that_is_whole(store: LocalStore) -> None:
    directory = Path(store.name)
    before = seen(directory)
    code = (
        "import os, signal, sys; from maceproc.fleet import compacting as c; "
        "c._remove_replaced = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "c.compact(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert seen(directory) == before
    compact(directory)  # the lock went with the process
    assert seen(directory) == before
    assert len(packs_of(store)) == 1


def test_repeated_collect_finds_what_is_packed(tmp_path: Path) -> None:
    captures = [path_of(name) for name in ("native", "every_event")]
    first = maceproc.collect(captures, tmp_path, workers=1)
    expected = {name: getattr(open_dataset(tmp_path), name).df() for name in ("rtts", "series")}
    words = ["collect", *map(str, captures), "-o", str(tmp_path), "--compact", "--workers", "1"]
    result = CliRunner().invoke(cli, words)
    assert "2 were there" in result.stderr
    assert not list(tmp_path.glob("table=*/host=*"))
    again = maceproc.collect(captures, tmp_path, workers=1)
    assert [(r.state, r.place) for r in again] == [("present", r.place) for r in first]
    for name, rows in expected.items():
        found = getattr(open_dataset(tmp_path), name).df()
        by = ["capture", *(column for column in ("seq", "series") if column in found)]
        pd.testing.assert_frame_equal(
            found.sort_values(by, ignore_index=True),
            rows.sort_values(by, ignore_index=True)[list(found.columns)],
        )
    maceproc.collect(captures, tmp_path, workers=1, host="other", again=True)
    fleet = open_dataset(tmp_path)
    assert set(fleet.rtts.df("host")["host"]) == {"other"}
    assert len(fleet.captures) == 2
    compact(tmp_path)
    assert set(fleet.rtts.df("host")["host"]) == {"other"}
    assert len(fleet.rtts) == len(expected["rtts"])


def test_elsewhere_by_fsspec() -> None:
    files = fsspec.filesystem("memory")
    files.store.clear()
    maceproc.collect([path_of("native")], "memory://packed", workers=1)
    before = open_dataset("memory://packed").rtts.df()
    assert compact("memory://packed").captures == 1
    assert not files.glob("/packed/table=*/host=*/date=*/*")
    pd.testing.assert_frame_equal(open_dataset("memory://packed").rtts.df(), before)
    again = maceproc.collect([path_of("native")], "memory://packed", workers=1)
    assert [receipt.state for receipt in again] == ["present"]
    files.store.clear()


def test_other_readers_read_packs(store: LocalStore) -> None:
    directory = Path(store.name)
    compact(directory)
    packed = directory / "table=quantities" / "packed"
    found = pd.read_parquet(packed)
    assert set(found["host"]) == {"h0", "h1", "h2"}
    put(store, 8)
    both = pyarrow.dataset.dataset(directory / "table=quantities", partitioning="hive").to_table()
    assert len(both) == 14
    (name,) = packed.iterdir()
    with duckdb.connect() as connection:
        sql = "select count(*) from read_parquet(?) where date = '2026-01-01'"
        copy = directory.parent / "copy.parquet"
        copy.write_bytes(name.read_bytes())
        assert connection.execute(sql, [str(copy)]).fetchone() == (2,)


def test_the_verb_says_what_it_did(store: LocalStore, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["compact", store.name, "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert (document["captures"], document["files_before"], document["files_after"]) == (6, 8, 2)
    shown = CliRunner().invoke(cli, ["compact", store.name])
    assert "nothing to put together" in shown.stderr
    with pytest.raises(CaptureError, match="not a dataset"):
        compact(tmp_path)
