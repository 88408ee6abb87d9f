"""What `import maceproc` gives: functions, tables with UTC times and steps, plain equality."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import matplotlib as mpl
import pandas as pd
import pytest

import maceproc
from maceproc import ledger
from maceproc.calibration import save_calibration
from maceproc.cli import cli
from maceproc.errors import CaptureError
from maceproc.recording.by_name import Place
from maceproc.reporting.ping_steps import PING_STEPS
from maceproc.reporting.utc import UTC_TIMES
from tests.recorded import analyzed, path_of
from tests.test_calibration import made as made_calibration

ROOT = Path(__file__).parent.parent


def test_recording_loads_no_tables() -> None:
    code = "import sys, maceproc; maceproc.record; print({'numpy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == maceproc.__version__
    assert f"version: {maceproc.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_links_of_the_readme_lead_to_files_of_the_project() -> None:
    links = re.findall(r"\]\((\S+?)\)", (ROOT / "README.md").read_text())
    ours = [link.partition("#")[0] for link in links if "://" not in link]
    # docs/home.py makes them absolute for what is published, in the sdist too.
    assert ours or "[project.urls]" in (ROOT / "pyproject.toml").read_text()
    assert all((ROOT / name).is_file() for name in ours)


def test_explain_and_export_take_a_capture_or_its_analysis(tmp_path: Path) -> None:
    by_path, by_analysis = (
        maceproc.explain(capture, 3) for capture in (path_of("native"), analyzed("native"))
    )
    assert str(by_path) == str(by_analysis)
    (written, *_) = maceproc.export(analyzed("native"), tmp_path / "t.json", table="rtts")
    assert written.stat().st_size
    with pytest.raises(CaptureError, match="exists"):
        maceproc.export(analyzed("native"), tmp_path / "t.json")


BY_HAND = ("--ping", "--inner", "--outer", "--peer")
# What a verb of the command line has and its function has not, and where that is in Python:
# explain() and export() take the analysis that analyze() made with them.
ANALYZE = "maceproc.pipeline.analyze"
ONLY_VERB = {
    "record": {"--no-baseline": "maceproc.recording.by_name.record"},  # baseline=False
    "analyze": {
        "--json": "maceproc.pipeline.Analysis.as_dict",
        "--html": "maceproc.pipeline.Analysis.as_html",
    },
    "explain": {
        "--json": "maceproc.reporting.explain.Explanation.as_json",
        **dict.fromkeys((*BY_HAND, "--witness"), ANALYZE),
    },
    "export": dict.fromkeys(("--memory", *BY_HAND), ANALYZE),
    "compare": {
        "--json": "maceproc.comparison.Comparison.as_json",
        "--html": "maceproc.comparison.Comparison.as_html",
        "--output": "maceproc.comparison.Comparison.plot",
        "--by": "maceproc.fleet.groups.compare_groups",
        "--against": "maceproc.fleet.groups.compare_groups",
    },
}
NAMES = {"--label": "labels", "--output": "path"}  # where a function's word is another one
ONLY_FUNCTION = {"record": {"baseline"}}


@pytest.mark.parametrize("verb", list(ONLY_VERB))
def test_a_function_has_the_options_of_its_verb(verb: str) -> None:
    command = cli.commands[verb]
    own = {
        (max(parameter.opts, key=len) if isinstance(parameter, click.Option) else "")
        for parameter in command.params
    } - {"", "--help", "--quiet", "--verbose"}
    parameters = set(inspect.signature(getattr(maceproc, verb)).parameters)
    if "place" in parameters:
        parameters = parameters - {"place"} | set(Place.__annotations__)
    assert ONLY_VERB[verb].keys() <= own
    named = NAMES if verb in ("compare", "export") else {}
    shared = {
        named.get(option, option.removeprefix("--").replace("-", "_"))
        for option in own - ONLY_VERB[verb].keys()
    }
    given = {"file", "path", "capture", "captures", "command", "seq"}  # arguments of the verb
    assert shared - given == parameters - given - ONLY_FUNCTION.get(verb, set())
    for place in ONLY_VERB[verb].values():
        module, name = re.fullmatch(r"([a-z_.]+)\.(.+)", place).groups()  # type: ignore[union-attr]
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        assert inspect.getdoc(found), place


def test_what_a_record_does_not_take_together_is_told() -> None:
    with pytest.raises(ValueError, match="expected one of ftrace, perf, bpf"):
        maceproc.record("ping -c 1 127.0.0.1", tracer="strace")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffer_kb do not go with"):
        maceproc.record("ping -c 1 127.0.0.1", tracer="bpf", buffer_kb=64)
    with pytest.raises(ValueError, match="host_ping goes with container"):
        maceproc.record("ping -c 1 127.0.0.1", netns="web", host_ping=True)
    with pytest.raises(CaptureError, match=r"none\.json"):
        maceproc.record("ping -c 1 127.0.0.1", calibration="none.json")


@pytest.mark.kernel
def test_record_takes_what_the_verb_takes(tmp_path: Path) -> None:
    save_calibration(tmp_path / "calibration.json", made_calibration())
    capture = maceproc.record(
        ["ping", "-i", "0.01", "-c", "5"],
        tmp_path / "trace.dat",
        lab=True,
        remote="kernel",
        rounds=1,
        tracer="ftrace",
        buffer_kb=512,
        calibration=tmp_path / "calibration.json",
    )
    assert capture.sidecar is not None
    assert 512 <= capture.sidecar.tracing.buffer_size_kb < 600  # the kernel rounds it
    assert capture.sidecar.calibration == made_calibration()


@pytest.mark.parametrize("name", ["idle", "native"])
def test_utc_times_are_those_that_ping_printed(name: str) -> None:
    analysis = analyzed(name)
    times = analysis.utc()
    assert list(times) == UTC_TIMES.names
    assert len(times) == len(analysis.rtts)
    printed = pd.to_datetime(analysis.pings["received_at_ns"], utc=True)
    both = printed.notna() & times["received_at"].notna()
    assert both.any()
    assert (printed - times["received_at"])[both].abs().max() < pd.Timedelta("5ms")
    assert set(times["time_basis"]) >= {"kernel", "ping -D"}
    known = analysis.rtts["kernel_rtt_ns"].notna()
    took_ns = (times["received_at"] - times["sent_at"])[known].astype("int64")
    assert (took_ns == analysis.rtts["kernel_rtt_ns"][known]).all()


@pytest.mark.parametrize("name", ["idle", "every_event", "kernels/bond-vlan-6.1"])
def test_steps_of_a_crossing_add_up_to_it_and_those_of_the_outer_queue_are_none(name: str) -> None:
    analysis = analyzed(name)
    steps = analysis.ping_steps()
    assert list(steps) == PING_STEPS.names
    took_ns = steps.groupby(["round", "seq", "segment"])["took_ns"].sum()
    corrected = analysis.rtts[analysis.rtts["status"] == "corrected"]
    assert len(corrected)
    for ping in corrected.itertuples():
        for segment in (ledger.OUTBOUND, ledger.OUTER_QUEUE, ledger.INBOUND):
            added = took_ns.get((ping.round, ping.seq, segment.name), 0)
            assert added == getattr(ping, segment.column)
    inside = steps["segment"].isin([segment.name for segment in ledger.CROSSINGS])
    assert list(steps["crossing"]) == list(inside)


def test_usual_steps_are_in_the_same_segments_below_a_vlan_on_a_bond() -> None:
    analysis = analyzed("kernels/bond-vlan-6.1")
    outer = analysis.steps[analysis.steps["segment"] == ledger.OUTER_QUEUE.name]
    every = analysis.ping_steps()
    every = every[every["segment"] == ledger.OUTER_QUEUE.name]
    assert len(outer) > 1
    assert set(outer["start"]) == set(every["start"])


def test_equality_and_hash_do_not_raise() -> None:
    one, other = analyzed("idle"), analyzed("native")
    assert one == one  # noqa: PLR0124
    assert one != other
    assert len({one, other, one}) == 2
    capture = maceproc.open_capture(path_of("idle"))
    assert capture == one.capture
    assert hash(capture) == hash(one.capture)


def test_a_comparison_shows_itself_in_a_notebook() -> None:
    html = maceproc.compare(analyzed("idle"), analyzed("loaded"))._repr_html_()
    assert "against idle" in html
    assert html.count("<table>") == 3


WITH_EXAMPLES = (
    maceproc.analyze,
    maceproc.compare,
    maceproc.explain,
    maceproc.Analysis.plot,
    maceproc.Analysis.ping_steps,
    maceproc.Analysis.utc,
)


@pytest.mark.parametrize(
    "described", WITH_EXAMPLES, ids=lambda one: getattr(one, "__name__", "plot")
)
def test_examples_of_docstrings_run(
    described: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    for name in ("trace.dat", "other.dat"):
        for suffix in ("", ".json"):
            shutil.copy(f"{path_of('idle')}{suffix}", f"{name}{suffix}")
    names = {name: getattr(maceproc, name) for name in ("analyze", "compare", "explain")}
    examples = doctest.DocTestParser().get_examples(described.__doc__ or "")
    assert examples
    for example in examples:
        exec(example.source, names)


def test_every_expression_of_the_fields_of_an_analysis_is_true_of_one() -> None:
    fields = maceproc.Analysis.__mro__[1].__doc__ or ""
    expressions = re.findall(r"``(a\..*?)``", " ".join(fields.split()))
    assert len(expressions) >= 10
    for expression in expressions:
        eval(expression, {"a": analyzed("idle")})
