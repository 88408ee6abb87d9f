"""Datasets of captures: collected once each, asked without loss, compared, hostile or not."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import maceproc
from maceproc.capture_files import open_capture, save_sidecar, sidecar_path
from maceproc.cli import cli
from maceproc.errors import AnalysisError, CaptureError
from maceproc.fleet.about import without_made_up_names
from maceproc.fleet.collecting import CROSSED, Job, Receipt, collect_one
from maceproc.fleet.dataset import open_dataset
from maceproc.fleet.declared import CAPTURES, QUANTITIES
from maceproc.fleet.groups import OTHERS, Groups, compare_groups, median_interval
from maceproc.fleet.layout import Place, decoded, encoded, place_of
from maceproc.fleet.page import as_html
from maceproc.fleet.report import as_text
from maceproc.fleet.sources import find_captures, read_list
from maceproc.fleet.store import LocalStore
from maceproc.fleet.tables import as_parquet
from tests.recorded import analyzed, path_of

SMALL = ("every_event", "native")
ESCAPE = "\x1b"


def copied(name: str, to: Path) -> Path:
    """Copy a capture and its sidecar."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(path_of(name).read_bytes())
    sidecar_path(to).write_bytes(sidecar_path(path_of(name)).read_bytes())
    return to


def with_host(trace: Path, host: str) -> Path:
    """Write another host's name into the sidecar of a capture."""
    sidecar = open_capture(trace).sidecar
    assert sidecar is not None
    sidecar.machine.host = host
    save_sidecar(sidecar_path(trace), sidecar)
    return trace


def files_below(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two captures and a failure, in a directory with special characters."""
    directory = tmp_path_factory.mktemp("fleet") / "a [b]* 'c'"
    captures = [path_of(name) for name in SMALL]
    maceproc.collect([*captures, directory.parent / "none.dat"], directory, workers=1, tables=ALL)
    return directory


ALL = ("rtts", "pings", "crossings", "hops", "journeys", "series", "findings")


def test_files_are_where_a_hive_looks_for_them(dataset: Path) -> None:
    fleet = open_dataset(dataset)
    sums = {str(row.capture): row for row in fleet.captures.df().itertuples()}
    for name in SMALL:
        row = sums[hashlib.sha256(path_of(name).read_bytes()).hexdigest()]
        file = f"table=rtts/host={row.host}/date={row.date}/{row.capture}.parquet"
        assert (dataset / file).is_file()
    partial = [name for name in files_below(dataset) if name.startswith("_")]
    assert partial == []


@pytest.mark.parametrize("table", ["rtts", "crossings", "hops"])
def test_tables_come_back_as_they_were(dataset: Path, table: str) -> None:
    expected = getattr(analyzed("every_event"), table)
    sha = open_dataset(dataset).captures.df().set_index("rounds")  # one of the two has one round
    capture = sha.loc[analyzed("every_event").rtts["round"].nunique(), "capture"]
    found = getattr(open_dataset(dataset), table).filter(f"capture = '{capture}'").df()
    assert len(found) == len(expected) > 0
    for name in expected:
        mine, theirs = found[name], expected[name].reset_index(drop=True)
        assert list(mine.isna()) == list(theirs.isna()), name
        known = theirs.notna()
        assert list(mine[known]) == list(theirs[known]), name
        if str(theirs.dtype).lower() in ("int64", "uint64"):
            assert str(mine.dtype).lower() == str(theirs.dtype).lower(), name


def test_rows_tell_their_capture(dataset: Path) -> None:
    rows = open_dataset(dataset).crossings.df()
    for name in ("capture", "host", "target", "path", "kernel", "event_set", "analyzed_by"):
        assert rows[name].notna().all(), name
        assert (rows[name] != "").all(), name
    assert set(rows["host"]) == {"vm"}
    assert set(rows["path"].str.count(r"veth\*")) == {1}


def test_names_that_engines_make_up_are_cut() -> None:
    route = "web:eth0 -> host:veth1a2b3c -> br-0123456789ab -> (NAT) -> eno1"
    assert without_made_up_names(route) == "web:eth0 -> host:veth* -> br-* -> (NAT) -> eno1"
    assert without_made_up_names("host:eth0 -> br0") == "host:eth0 -> br0"


def test_repeated_it_does_what_is_missing(tmp_path: Path) -> None:
    first, later = copied("native", tmp_path / "c" / "a.dat"), tmp_path / "c" / "b.dat"
    later.write_bytes(b"no trace")
    data = tmp_path / "fleet"
    states = [r.state for r in maceproc.collect([tmp_path / "c"], data, workers=1)]
    assert states == ["collected", "failed"]
    (failure,) = open_dataset(data).failures.df().itertuples()
    assert failure.file == str(later)
    assert failure.error.startswith(f"{later}, byte 0: found no event")
    written = data / maceproc.collect([first], data)[0].place.file("rtts")
    before = written.stat().st_mtime_ns
    copied("every_event", later)
    states = [r.state for r in maceproc.collect([tmp_path / "c"], data, workers=1)]
    assert states == ["present", "collected"]
    assert (
        data / maceproc.collect([first], data)[0].place.file("rtts")
    ).stat().st_mtime_ns == before
    fleet = open_dataset(data)
    assert len(fleet.captures) == 2
    # The bytes that failed are another capture than what has been put in their place.
    assert len(fleet.failures) == 1


def test_a_failure_ends_when_the_capture_is_collected(tmp_path: Path) -> None:
    trace, data = tmp_path / "a.dat", tmp_path / "fleet"
    assert maceproc.collect([trace], data, workers=1)[0].error.startswith(f"{trace}: no such file")
    assert len(open_dataset(data).failures) == 1
    copied("native", trace)
    maceproc.collect([trace], data, workers=1)
    assert len(open_dataset(data).failures) == 0


def test_another_host_name_moves_a_capture(tmp_path: Path) -> None:
    data = tmp_path / "fleet"
    maceproc.collect([path_of("native")], data, workers=1)
    maceproc.collect([path_of("native")], data, workers=1, host="web1", again=True)
    assert list(open_dataset(data).captures.df("host")["host"]) == ["web1"]
    assert all("host=web1" in name for name in files_below(data) - {"README.txt"})


def test_two_collectors_at_once_do_no_harm(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "maceproc", "collect", "--workers", "1", "--json"]
    words += ["-o", str(tmp_path / "fleet"), *(str(path_of(name)) for name in SMALL)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert {row["state"] for row in json.loads(out)} <= {"collected", "present"}
    fleet = open_dataset(tmp_path / "fleet")
    assert len(fleet.captures) == 2
    assert len(fleet.rtts) == sum(len(analyzed(name).rtts) for name in SMALL)


# Executors


class Broken(Executor):
    """Loses every second call, as a pool does whose process was killed."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        job: Job = arguments[0]
        if "native" in job.source:
            future.set_exception(RuntimeError("a process in the process pool was terminated"))
        else:
            future.set_result(function(*arguments))
        return future


def test_any_executor(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as executor:
        receipts = maceproc.collect(
            [path_of(name) for name in SMALL],
            tmp_path,
            executor=executor,
            tell=lambda done, total, _: told.append((done, total)),
        )
    assert [Path(r.source).stem for r in receipts] == list(SMALL)
    assert told == [(1, 2), (2, 2)]
    assert all(r.rows and r.rows["rtts"] for r in receipts)


def test_what_an_executor_loses_is_told(tmp_path: Path) -> None:
    paths = [path_of(name) for name in SMALL]
    lost = maceproc.collect(paths, tmp_path, executor=Broken())[1]
    assert lost.state == "failed"
    assert "native.dat" in lost.error
    fleet = open_dataset(tmp_path)
    assert list(fleet.failures.df("error")["error"]) == [lost.error]
    assert len(fleet.captures) == 1
    maceproc.collect(paths, tmp_path, workers=1)
    assert (len(fleet.captures), len(fleet.failures)) == (2, 0)


def test_a_dataset_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptureError, match="cannot be written"):
        maceproc.collect([path_of("native")], tmp_path / "file" / "fleet", workers=1)


# Hostile names


@given(st.text(st.characters(codec="utf-8")))
def test_a_value_is_one_directory_and_comes_back(value: str) -> None:
    name = encoded(value)
    assert re.fullmatch(r"[A-Za-z0-9%_.~-]+", name)
    assert name not in (".", "..")
    assert len(name) <= 200
    assert Path("a", f"host={name}").parent == Path("a")
    place = Place("0" * 64, value, "2026-11-27")
    assert place_of(place.file("rtts")).date == "2026-11-27"
    if len(value) < 15:  # every character takes 12 places at most
        assert decoded(name) == value


@given(st.text(min_size=100), st.text(min_size=100))
def test_long_values_are_told_apart(one: str, other: str) -> None:
    assert (encoded(one) == encoded(other)) == (one == other)


HOSTILE = "../../../outside/\x1b[2J\u202e'\"%2e%2e; drop table rtts --<b>"


def test_a_hostile_host_leaves_neither_the_dataset_nor_the_terminal(tmp_path: Path) -> None:
    trace = with_host(copied("native", tmp_path / "in" / "a.dat"), HOSTILE)
    data = tmp_path / "deep" / "down" / "fleet"
    before = files_below(tmp_path)
    (receipt,) = maceproc.collect([trace], data, workers=1)
    assert receipt.state == "collected"
    written = files_below(tmp_path) - before
    assert all(
        name.startswith("deep/down/fleet/table=")
        for name in written - {"deep/down/fleet/README.txt"}
    )
    fleet = open_dataset(data)
    (host,) = fleet.captures.df()["host"]
    assert host.startswith("../../../outside/\\x1b[2J\\u202e'")
    assert len(fleet.captures.filter("host like '../../../outside%'")) == 1
    for words in (
        ("query", str(data), "select * from captures"),
        ("query", str(data), "select host from captures", "--csv"),
        ("compare", str(data), "--by", "host"),
    ):
        shown = CliRunner().invoke(cli, words, catch_exceptions=False).stdout
        assert ESCAPE not in shown
        assert "\u202e" not in shown
    page = as_html(fleet, compare_groups(fleet))
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_a_time_that_no_calendar_has_is_no_date(tmp_path: Path) -> None:
    trace = copied("native", tmp_path / "a.dat")
    sidecar = open_capture(trace).sidecar
    assert sidecar is not None
    for run in sidecar.runs:
        run.start_utc_ns = (1 << 62) - 1
    sidecar.machine.kernel = "k" * 60_000
    save_sidecar(sidecar_path(trace), sidecar)
    (receipt,) = maceproc.collect([trace], tmp_path / "fleet", workers=1)
    assert receipt.state in ("collected", "failed")
    fleet = open_dataset(tmp_path / "fleet")
    assert len(fleet.captures) + len(fleet.failures) == 1


# Asking


def test_integers_stay_integers(dataset: Path) -> None:
    fleet = open_dataset(dataset)
    row = fleet.sql(
        "select max(skbaddr) as most, 18446744073709551615::ubigint as all_bits, "
        "null::bigint as nothing, sum(len) as bytes, 9007199254740993 as odd from hops"
    )
    addresses = analyzed("every_event").hops["skbaddr"], analyzed("native").hops["skbaddr"]
    assert int(row["most"][0]) == max(int(column.max()) for column in addresses)
    assert int(row["all_bits"][0]) == (1 << 64) - 1
    assert row["odd"][0] == 9007199254740993
    assert str(row["nothing"].dtype) == "Int64"
    assert str(row["bytes"].dtype) == "int64"


def test_query_prints_an_array_of_row_objects(dataset: Path) -> None:
    sql = (
        "select host, date, count(*) as n, 'nan'::double as x, null as y, [1, 2] as z, "
        "18446744073709551615::ubigint as address from rtts group by all"
    )
    result = CliRunner().invoke(cli, ["query", str(dataset), sql, "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    date = open_dataset(dataset).captures.df()["date"][0]
    rows = sum(len(analyzed(name).rtts) for name in SMALL)
    assert row == {
        "host": "vm", "date": str(date), "n": rows, "x": None, "y": None, "z": [1, 2],
        "address": "0xffffffffffffffff",
    }  # fmt: skip
    empty = CliRunner().invoke(cli, ["query", str(dataset), "select * from lost", "--json"])
    assert json.loads(empty.stdout) == []


def test_columns_of_one_name_keep_their_values(dataset: Path) -> None:
    sql = "select 1 as a, 2 as a, timestamp_ns '2026-01-01 00:00:00.123456789' as t, '=1' as f"
    result = CliRunner().invoke(cli, ["query", str(dataset), sql, "--csv"])
    assert result.stdout == "a,a_2,t,f\n1,2,2026-01-01 00:00:00.123456789,'=1\n"


def test_a_table_shows_the_first_rows_and_counts_the_others(dataset: Path) -> None:
    sql = "select i from range(1234) t(i) order by i"
    result = CliRunner().invoke(cli, ["query", str(dataset), sql])
    assert result.stdout.split()[-1] == "999"
    assert "234 rows more" in result.stderr
    assert (
        len(json.loads(CliRunner().invoke(cli, ["query", str(dataset), sql, "--json"]).stdout))
        == 1234
    )


def test_query_does_not_load_pandas(dataset: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from maceproc.cli import cli; "
        "done = CliRunner().invoke(cli, ['query', sys.argv[1], 'select count(*) from rtts']); "
        "assert done.exit_code == 0, done.output; print('pandas' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(dataset)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    "sql", ["selec 1", "select nothing from rtts", "select * from no", "", ";"]
)
def test_a_wrong_query_is_one_line(dataset: Path, sql: str) -> None:
    with pytest.raises(AnalysisError) as caught:
        open_dataset(dataset).sql(sql)
    assert "\n" not in str(caught.value)


def test_tables_of_other_versions_are_read_together(tmp_path: Path) -> None:
    maceproc.collect([path_of("native")], tmp_path, workers=1, tables=["rtts"])
    store = LocalStore(tmp_path)
    (file,) = store.files("rtts")
    older = pd.read_parquet(tmp_path / file).drop(columns=["causes"]).assign(capture="0" * 64)
    target = tmp_path / "table=rtts/host=a/date=2020-01-01"
    target.mkdir(parents=True)
    older.to_parquet(target / f"{'0' * 64}.parquet", index=False)
    found = open_dataset(tmp_path).sql("select capture, count(causes) n from rtts group by all")
    assert sorted(found["n"]) == [0, len(older)]


def test_what_is_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="not a dataset"):
        open_dataset(tmp_path)
    maceproc.collect([], tmp_path)
    assert repr(open_dataset(tmp_path)).endswith("empty>")
    with pytest.raises(AttributeError, match="no table 'nonsense'"):
        _ = open_dataset(tmp_path).nonsense


def test_wide_answers_are_shown_whole(dataset: Path) -> None:
    shown = CliRunner().invoke(cli, ["query", str(dataset), "select * from rtts limit 1"]).stdout
    for name in open_dataset(dataset).rtts.columns:
        assert f"  {name} " in shown


# Captures named


def test_captures_are_found(tmp_path: Path) -> None:
    for name in ("x/a.dat", "x/y/b.dat", "x/[1].dat"):
        copied("native", tmp_path / name)
    a, b, odd = (str(tmp_path / name) for name in ("x/a.dat", "x/y/b.dat", "x/[1].dat"))
    assert find_captures([tmp_path]) == [odd, a, b]
    assert find_captures([f"{tmp_path}/**/*.dat*"]) == [odd, a, b]
    assert find_captures([odd, a, a]) == [odd, a]
    assert find_captures([f"file://{tmp_path}/x/*.dat"]) == [f"file://{odd}", f"file://{a}"]
    assert read_list(["# all\n", "\n", f"{a}\n"]) == [a]
    for name in ("no*.dat", str(tmp_path / "x" / "*.bin")):
        with pytest.raises(CaptureError, match="no file matches"):
            find_captures([name])


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system that is no directory of this machine."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def test_elsewhere_by_fsspec(memory: Any) -> None:
    for name in SMALL:
        memory.pipe_file(f"/captures/{name}.dat", path_of(name).read_bytes())
        memory.pipe_file(f"/captures/{name}.dat.json", sidecar_path(path_of(name)).read_bytes())
    memory.pipe_file("/captures/bad.dat", b"no trace")
    receipts = maceproc.collect(["memory://captures/*.dat"], "memory://fleet", workers=1)
    assert [r.state for r in receipts] == ["failed", "collected", "collected"]
    assert receipts[0].error.startswith("memory:///captures/bad.dat, byte 0: found")
    again = maceproc.collect(["memory://captures/native.dat"], "memory://fleet", workers=1)
    assert [r.state for r in again] == ["present"]
    fleet = open_dataset("memory://fleet")
    assert fleet.sql("select count(*) n from rtts")["n"][0] == sum(
        len(analyzed(name).rtts) for name in SMALL
    )
    assert not memory.find("/fleet/_partial")


# Groups


def made(store: LocalStore, hosts: dict[str, list[float]], path: str = "a -> b") -> None:
    """Write captures of hosts with these medians [ns], a day apart."""
    number = 0
    for host, values in hosts.items():
        for day, value in enumerate(values):
            number += 1
            place = Place(f"{number:064x}", host, str(np.datetime64("2026-01-01") + day % 300))
            facts = {
                **dict.fromkeys(("file", "ran_in", "target", "kernel", "event_set"), "x"),
                **dict.fromkeys(("recorded_by", "analyzed_by"), "1"),
                "capture": place.capture, "path": path, "schema_version": 1,
            }  # fmt: skip
            rows = QUANTITIES.from_rows([(CROSSED, 10, 1, value, value, value)])
            store.write(place.file("quantities"), as_parquet(QUANTITIES, rows, facts))
            summary = CAPTURES.from_rows([("ping", 0, 1, 10, 10, 10, 0, 0, 0, 100)])
            store.write(place.file("captures"), as_parquet(CAPTURES, summary, facts))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Groups]:
    directory = tmp_path_factory.mktemp("groups")
    random = np.random.default_rng(1)
    hosts = {f"h{n}": list(random.normal(50_000 + 300 * n, 500, 8)) for n in range(6)}
    made(LocalStore(directory), {**hosts, "slow": list(random.normal(90_000, 500, 8)), "": [1e3]})
    return directory, compare_groups(open_dataset(directory))


def test_the_host_that_stands_out_is_named(compared: tuple[Path, Groups]) -> None:
    _, groups = compared
    outstanding = groups.contrasts[groups.contrasts["stands_out"]]
    assert list(outstanding["group"]) == ["slow"]
    assert set(groups.contrasts["against"]) == {OTHERS}
    row = groups.groups.set_index("group").loc["slow"]
    assert row["low_ns"] <= row["median_ns"] <= row["high_ns"]
    assert row["captures"] == 8
    alone = groups.contrasts.set_index("group").loc["(unknown)"]
    assert np.isnan(alone["p_value"])
    assert "slow" in as_text(groups)


def test_names_that_differ_at_their_end_are_told_apart(tmp_path: Path) -> None:
    names = [f"node-017.region-{n}.example.net" for n in range(3)]
    made(LocalStore(tmp_path), {name: [50_000.0] * 7 for name in names})
    lines = as_text(compare_groups(open_dataset(tmp_path))).splitlines()
    column = "".join(line.split(" ")[0] for line in lines if not line.startswith("unit"))
    assert all(name in column for name in names)


def test_groups_are_compared_with_one(compared: tuple[Path, Groups]) -> None:
    directory, _ = compared
    words = ["compare", str(directory), "--by", "host", "--against", "h1", "--json"]
    document = json.loads(CliRunner().invoke(cli, words).stdout)
    contrasts = {row["group"]: row for row in document["contrasts"]}
    assert "h1" not in contrasts
    assert contrasts["slow"]["estimate_ns"] == pytest.approx(40_000, rel=0.05)
    assert contrasts["slow"]["low_ns"] < contrasts["slow"]["estimate_ns"]
    for by, against in (("weather", ""), ("host", "nobody")):
        with pytest.raises(AnalysisError):
            compare_groups(open_dataset(directory), [by], against=against)


def test_the_page_tells_what_stands_out(compared: tuple[Path, Groups], tmp_path: Path) -> None:
    directory, _ = compared
    page = tmp_path / "fleet.html"
    words = ["compare", str(directory), "--by", "host", "--html", str(page)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    text = page.read_text()
    assert "slow stands out" in text
    assert "<script" not in text
    assert text.count("<polyline") == 2  # all captures, and the host that stands out


def test_median_interval_covers() -> None:
    random = np.random.default_rng(2)
    for n in (6, 7, 20):
        ends = [median_interval(random.exponential(1, n)) for _ in range(2000)]
        covered = np.mean([low <= np.log(2) <= high for low, high in ends])
        assert covered >= 0.94
    assert np.isnan(median_interval(np.arange(5.0))[0])


# Start-up, and what is not installed


def test_verbs_start_without_what_datasets_need() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from maceproc.cli import cli; "
        "CliRunner().invoke(cli, ['collect', '--help']); CliRunner().invoke(cli, ['query', '-h']); "
        "print(*({'duckdb', 'pyarrow', 'distributed', 'fsspec', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("pyarrow", ("collect", "x.dat", "-o", "fleet"), "fleet"),
        ("duckdb", ("query", "fleet", "select 1"), "fleet"),
        ("duckdb", ("compare", "fleet", "--by", "host"), "fleet"),
        ("fsspec", ("collect", "s3://b/x.dat", "-o", "fleet"), "remote"),
        ("distributed", ("collect", "x.dat", "-o", "f", "--scheduler", "tcp://h:1"), "cluster"),
        ("matplotlib", ("compare", "x.dat", "y.dat", "-o", "both.png"), "plot"),
        ("matplotlib", ("experiment", "report", "d"), "plot"),
        ("pyarrow", ("export", str(path_of("every_event")), "-o", "rtts.parquet"), "export"),
        ("perfetto", ("export", str(path_of("every_event")), "-o", "all.pftrace"), "export"),
    ],
)
def test_a_missing_library_is_one_line(
    missing: str, words: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from maceproc.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(rf"maceproc: .*pip install 'maceproc\[{extra}\]'\n", done.stderr)


def test_collect_tells_and_fails(tmp_path: Path) -> None:
    words = ["collect", str(path_of("native")), "none.dat", "-o", str(tmp_path), "--workers", "1"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    assert re.search(r"maceproc: .*none.dat: no such file", result.stderr)
    assert "1 captures collected" in result.stderr
    assert CliRunner().invoke(cli, ["collect", "-o", str(tmp_path)]).exit_code == 2


def test_receipts_say_where_and_how_much(tmp_path: Path) -> None:
    job = Job(str(path_of("every_event")), str(tmp_path), ("rtts",))
    receipt = collect_one(job)
    assert isinstance(receipt, Receipt)
    assert receipt.rows == {"rtts": 10, "quantities": 6, "captures": 1}
    sizes = ((tmp_path / receipt.place.file(name)).stat().st_size for name in receipt.rows)
    assert receipt.size_bytes == sum(sizes)
