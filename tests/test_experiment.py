"""The experiment: balanced orders, captures that stand alone, going on after an interruption."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import maceproc
from maceproc import Lab, statistics
from maceproc.cli import cli
from maceproc.errors import CaptureError, CommandError
from maceproc.experiment.agreement import agreement, agreement_lines, state_lines
from maceproc.experiment.event_costs import add_untraced, event_costs
from maceproc.experiment.plan import Plan, PlannedArm, check_plan, finished, what_differs
from maceproc.experiment.report import as_markdown
from maceproc.experiment.results import Results, read_results
from maceproc.experiment.run import run_experiment
from maceproc.experiment.tables import PINGS
from maceproc.experiment.traffic import Traffic, load_reports, running_flows
from maceproc.recording.lab import NETNS_DIR, usual_remote
from maceproc.recording.lab_remote import spinning
from maceproc.recording.session import Progress
from maceproc.recording.sites import Netns, lab_site
from maceproc.recording.tracing import TRACEFS
from tests.fuzz_texts import damage_value
from tests.watched import why_no_bpf

PING_COUNT = 8
PLAN = Plan(
    command=["ping", "-i", "0.005", "-c", str(PING_COUNT)],
    flows=[0, 2],
    rounds=4,
    tracers=["minimal", "mace"],
    traffic="flood:0.002",
)
PLACES = ("native", "container")


@pytest.mark.parametrize("tracers", [1, 2, 3])
@pytest.mark.parametrize("places", [("native",), ("native", "container")])
def test_arms_are_balanced(places: tuple, tracers: int) -> None:
    plan = Plan(command=[], flows=[0], rounds=100, tracers=list("abc"[:tracers]))
    arms = len(places) * (1 + tracers)
    cycle = arms if arms % 2 == 0 else 2 * arms
    blocks = list(plan.blocks(places))
    assert [block.round for block in blocks[:3]] == [1, 2, 3]
    orders = [block.arms for block in blocks[:cycle]]
    for position in range(arms):
        assert set(Counter(order[position] for order in orders).values()) == {cycle // arms}
    followers = Counter(pair for order in orders for pair in pairwise(order))
    assert len(followers) == arms * (arms - 1)
    assert len(set(followers.values())) == 1
    assert all(a == b[::-1] for a, b in zip(orders[::2], orders[1::2], strict=True))


def test_more_rounds_go_on_with_the_same_plan() -> None:
    short, long = (
        Plan(command=[], flows=[0, 4, 2], rounds=n, tracers=["minimal"], seed=3) for n in (3, 9)
    )
    blocks = list(long.blocks(PLACES))
    assert list(short.blocks(PLACES)) == blocks[:9]
    assert len({(block.round, block.flows) for block in blocks}) == 27
    assert len({tuple(b.flows for b in blocks if b.round == n) for n in range(1, 10)}) > 1
    assert all(len(set(block.arms)) == 4 for block in blocks)
    assert what_differs(short, long) == ""
    assert "command" in what_differs(short, PLAN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"tracers": []},
        {"flows": [2, 2]},
        {"flows": [-1]},
        {"tracers": ["net:*", "net:?"]},
    ],
)
def test_senseless_plans_are_told(wrong: dict) -> None:
    with pytest.raises(CommandError):
        check_plan(
            Plan(**({"command": [], "flows": [0], "rounds": 1, "tracers": ["full"]} | wrong))
        )


def test_traffic() -> None:
    assert Traffic.parse("flood").argv("192.0.2.2", 0) == ["ping", "-f", "-q", "192.0.2.2"]
    assert "0.01" in Traffic.parse("flood:0.01").argv("192.0.2.2", 0)
    assert Traffic.parse("iperf3:5M").argv("192.0.2.2", 3)[-1] == "5204"
    for wrong in ("", "flood:x", "iperf3", "iperf3:fast", "netperf"):
        with pytest.raises(CommandError):
            Traffic.parse(wrong)


def simulated(cost_ns: float, start_ns: float = 0.0, rounds: int = 8) -> pd.DataFrame:
    """PINGS of a place where every event costs the same, and being traced at all costs a start."""
    rng = np.random.default_rng(1)
    tables = []
    for number in range(1, rounds + 1):
        level = 50_000 + rng.normal(0, 5_000)
        for tracer, events in (("", None), ("few", 4), ("more", 9), ("many", 30)):
            traced = start_ns + cost_ns * events if events else 0.0
            rtt_ns = level + traced + rng.normal(0, 1000, 60)
            table = pd.DataFrame({"seq": range(60), "rtt_ns": np.round(rtt_ns / 1000) * 1000})
            known = {"events": events, "events_inside": events and events // 2}
            bare = table["rtt_ns"] - 10_000 if events else None
            tables.append(
                table.assign(
                    flows=0, round=number, place="container", tracer=tracer, started_ns=number,
                    rtt_resolution_ns=1000, bare_metal_rtt_ns=bare, status="", reason="", **known,
                )
            )  # fmt: skip
    return PINGS.frame(pd.concat(tables).reindex(columns=PINGS.names))


def test_cost_of_an_event_and_the_rtt_without_any() -> None:
    pings = simulated(cost_ns=300)
    (cost,) = event_costs(pings).itertuples()
    assert cost.cost_ns == pytest.approx(300, rel=0.05)
    assert cost.low_ns < cost.cost_ns < cost.high_ns
    assert abs(cost.off_ns) < 500
    assert cost.supported
    untraced = add_untraced(pings, event_costs(pings))
    left = untraced["bare_metal_rtt_ns"] - untraced["untraced_rtt_ns"]
    many = left[untraced["tracer"] == "many"].dropna()
    assert many.unique() == pytest.approx(15 * cost.cost_ns, abs=1)  # of 30, 15 are outside
    assert untraced.loc[untraced["tracer"] == "", "untraced_rtt_ns"].isna().all()


@pytest.mark.parametrize("wrong", [{"cost_ns": 300, "start_ns": 9000}, {"cost_ns": 0}])
def test_no_third_correction_where_the_data_do_not_support_it(wrong: dict) -> None:
    pings = simulated(**wrong)
    (cost,) = event_costs(pings).itertuples()
    assert not cost.supported
    assert add_untraced(pings, event_costs(pings))["untraced_rtt_ns"].isna().all()


def found(*estimates: float, rounds: int = 12, control_ns: float = 4000) -> dict:
    """Results of an experiment with these differences, each known to +-300 ns."""
    rows = [
        {"flows": n, "comparison": "x", "tracer": "", "statistic": "median", "rounds": rounds,
         "estimate_ns": e, "low_ns": e - 300, "high_ns": e + 300}
        for n, e in enumerate(estimates)
    ]  # fmt: skip
    row = {"flows": 0, "series": "native untraced", "statistic": "median"}
    ends = {"low_ns": control_ns - 500, "high_ns": control_ns + 500}
    return {"comparisons": rows, "series": [row | {"estimate_ns": control_ns} | ends]}


def test_agreement_of_two_experiments() -> None:
    first, second = found(1000, 2000, 3000), found(1300, 2480, 3000)
    table = agreement(first, second)
    assert list(table["p"] > 0.05) == [True, False, True]
    text = "\n".join(agreement_lines(first, second))
    assert "2 of 3 differences agree" in text
    assert "None differs by more" in text  # one of three may
    assert "+2.0 (+1.7 to +2.3) | +2.5 (+2.2 to +2.8) | **0.021** |" in text
    assert "1 differ by more" in "\n".join(agreement_lines(first, found(1000, 3000, 3000)))


def test_damaged_results_are_one_clear_line(tmp_path: Path) -> None:
    good = found(1000, 2000, 3000)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(good))
    path = tmp_path / "second" / "results.json"
    words = ["experiment", "agree", str(tmp_path / "first"), str(tmp_path / "second")]
    assert CliRunner().invoke(cli, words).exit_code == 0
    rng = random.Random(1)
    damaged = ["", "[]", "{}", '{"comparisons": [], "series": []}', json.dumps(good)[:99]]
    damaged += [json.dumps(good | {"comparisons": good["comparisons"] * 2})]
    damaged += [json.dumps(damage_value(rng, good)) for _ in range(60)]
    outcomes = []
    for text in damaged:
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        done = CliRunner().invoke(cli, words)
        outcomes.append(done.exit_code)
        assert done.exception is None or isinstance(done.exception, CaptureError), text
    assert outcomes[:6] == [1, 1, 1, 0, 1, 1]
    assert outcomes.count(1) > 20


def test_as_many_experiments_agree_as_the_intervals_promise() -> None:
    rng = np.random.default_rng(7)
    apart = 0
    for _ in range(400):
        runs = []
        for _ in range(2):
            estimate = statistics.estimate_rounds(rng.normal(1000, 900, 12))
            run = found(estimate.estimate_ns)
            run["comparisons"][0] |= {"low_ns": estimate.low_ns, "high_ns": estimate.high_ns}
            runs.append(run)
        apart += int((agreement(*runs)["p"] < 0.05).sum())
    assert 0.02 <= apart / 400 <= 0.085


def test_another_state_of_the_machine_is_told() -> None:
    assert not list(state_lines(found(), found(control_ns=4800)))
    (line,) = state_lines(found(), found(control_ns=27000))
    assert "median of native untraced is 4.0 and 27.0" in line


class StoppedError(Exception):
    """Stands for what may end an experiment."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=3) as made:
        yield made


@pytest.fixture(scope="module")
def stopped(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that was ended in the middle of its fifth block."""
    directory = tmp_path_factory.mktemp("experiment")

    def stop(progress: Progress) -> None:
        if progress.done == 27:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_experiment(PLAN, lab_site(lab), directory, tell=stop)
    return directory


@pytest.fixture(scope="module")
def results(stopped: Path, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The same experiment, gone on with, and read from a copy of its files."""
    before = {path: path.stat().st_mtime_ns for path in stopped.glob("round-*/*/*")}
    assert len(finished(stopped)) == 4
    assert len(before) == 4 * 5  # nothing of the fifth
    told: list[Progress] = []
    run_experiment(PLAN, lab_site(lab), stopped, tell=told.append)
    assert len(finished(stopped)) == 8
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert told[0].done == 24
    assert told[-1].done == told[-1].total == 48
    copy = tmp_path_factory.mktemp("copy") / "moved"
    shutil.copytree(stopped, copy)
    return read_results(copy)


@pytest.mark.kernel
def test_every_arm_ran_in_every_block(results: Results) -> None:
    counts = results.pings.groupby(["flows", "round", "place", "tracer"], observed=True).size()
    assert len(counts) == 2 * 4 * 2 * 3
    assert (counts == PING_COUNT).all()


@pytest.mark.kernel
def test_captures_are_ordinary_ones(results: Results) -> None:
    block = results.blocks[0]
    analysis = maceproc.analyze(results.directory / block.path / "minimal.dat")
    arms = {"container traced", "container untraced", "native traced", "native untraced"}
    assert set(analysis.rtts["arm"]) == arms
    assert "container overhead" in set(analysis.comparisons["comparison"])
    assert set(analysis.rtts["round"]) == {1}
    assert set(block.arms) == {PlannedArm(p, t) for p in PLACES for t in ("", "minimal", "mace")}


@pytest.mark.kernel
def test_series_of_the_paper(results: Results) -> None:
    series = results.series
    minimal = series[(series["tracer"].isin(["", "minimal"])) & (series["statistic"] == "median")]
    at_idle = minimal[minimal["flows"] == 0].set_index("series")
    wanted = {"native untraced", "native traced", "native corrected", "container untraced"}
    wanted |= {"container traced", "container corrected", "native wire", "container wire"}
    assert wanted <= set(at_idle.index)
    for name in ("container corrected", "native corrected", "native wire"):
        assert at_idle.loc[name, "used"] >= 0.9 * 4 * PING_COUNT
    assert (at_idle["effective"] <= at_idle["used"]).all()
    corrected, traced, wire = (
        at_idle.loc[f"container {name}", "estimate_ns"] for name in ("corrected", "traced", "wire")
    )
    assert wire < corrected < traced
    overhead = results.comparison(0, "container overhead")
    assert overhead.rounds == 4
    assert overhead.resampled == "pings"
    assert "few rounds" in set(results.findings["finding"])


@pytest.mark.kernel
def test_segments_add_up_to_what_the_correction_leaves(results: Results) -> None:
    segments = results.segments.groupby("flows")["estimate_ns"].sum()
    for flows in (0, 2):
        rows = results.pings[results.pings["flows"] == flows]
        rows = rows[(rows["tracer"] == "minimal") & rows["status"].isin(["corrected", "native"])]
        means = (
            rows.groupby(["round", "place"], observed=True)["bare_metal_rtt_ns"].mean().unstack()
        )
        left = (means["container"] - means["native"]).mean()
        assert segments[flows] == pytest.approx(left, abs=1)


@pytest.mark.kernel
def test_a_tracer_that_cannot_correct_is_still_compared(results: Results) -> None:
    assert results.comparison(0, "perturbation, container", "mace").rounds == 4
    assert results.comparison(0, "corrected - native untraced", "mace") == statistics.NOTHING


@pytest.mark.kernel
def test_flows_ran_beside(results: Results) -> None:
    for block in results.blocks:
        reports = load_reports(results.directory / block.path / "traffic.json")
        assert len(reports) == block.flows
        assert all(report.sent > 0 and report.received > 0 for report in reports)
        assert len({report.netns for report in reports}) == len(reports)
    rates = results.rates.set_index("flows")["packets_per_s"]
    assert rates[0] == 0
    assert rates[2] > 100


@pytest.mark.kernel
def test_a_remote_outside_of_this_kernel(tmp_path: Path) -> None:
    # The host's eth0, a tap device, does not receive as the container's eth0 does.
    plan = Plan(command=PLAN.command, flows=[0], rounds=2, tracers=["minimal"])
    with Lab(remote="program") as lab:
        run_experiment(plan, lab_site(lab), tmp_path)
    pings = read_results(tmp_path).pings
    traced = pings[pings["tracer"] != ""]
    by_place = traced.groupby("place", observed=True)["status"].unique()
    assert {place: list(status) for place, status in by_place.items()} == {
        "container": ["corrected"],
        "native": ["native"],
    }
    assert (traced["wire_rtt_ns"] > 0).all()


@pytest.mark.kernel
@pytest.mark.skipif(bool(why_no_bpf()), reason=why_no_bpf() or "BPF works")
def test_the_tracer_in_the_kernel_is_compared(lab: Lab, tmp_path: Path) -> None:
    plan = Plan(command=PLAN.command, flows=[0], rounds=2, tracers=["bpf", "minimal"])
    run_experiment(plan, lab_site(lab), tmp_path / "e")
    results = read_results(tmp_path / "e")
    traced = results.pings[results.pings["tracer"] == "bpf"]
    assert set(traced["status"].astype(str)) == {"corrected", "native"}
    assert len(traced) == 2 * 2 * PING_COUNT
    assert traced["events"].isna().all()
    for tracer in plan.tracers:
        assert results.comparison(0, "perturbation, container", tracer).rounds == 2
    assert "bpf" in as_markdown(results)


@pytest.mark.kernel
def test_report_from_the_files_alone(results: Results, tmp_path: Path) -> None:
    argv = ["experiment", "report", str(results.directory), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, argv, catch_exceptions=False)
    assert done.exit_code == 0
    out = tmp_path / "out"
    assert (out / "report.md").read_text().splitlines()[0] == done.stdout.splitlines()[0]
    data = json.loads((out / "results.json").read_text())
    assert data["plan"]["flows"] == [0, 2]
    assert len(data["series"]) == len(results.series)
    pings = pd.read_parquet(out / "pings.parquet")
    assert len(pings) == len(results.pings)
    assert "untraced_rtt_ns" in pings
    pictures = sorted(path.stem for path in out.glob("*.png"))
    linked = [f"![{name}]({name}.png)" in done.stdout for name in pictures]
    assert len(pictures) == 8
    assert not any(linked)  # in a terminal there are none to see
    text = (out / "report.md").read_text()
    assert all(f"![{name}]({name}.png)" in text for name in pictures)
    page = (out / "report.html").read_text()
    assert page.index("0 flows: corrected is") < page.index('<p class="verdict')
    cells = [line.split(" | ")[4] for line in text.splitlines() if line.startswith("| native ")]
    assert cells
    assert all(f'<td class="number">{cell}</td>' in page for cell in cells)
    assert all(f'<span class="value">{cell} us</span>' in page for cell in cells)


@pytest.mark.kernel
def test_ctrl_c_keeps_what_is_finished(lab: Lab, tmp_path: Path) -> None:
    directory = tmp_path / "experiment"
    argv = [sys.executable, "-m", "maceproc", "experiment", "--lab", lab.name, "--flows", "0"]
    argv += ["--rounds", "50", "--tracers", "minimal"]
    argv += ["-o", str(directory)]
    ping = ["--", "ping", "-i", "0.005", "-c", "5"]
    with subprocess.Popen([*argv, *ping], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not finished(directory) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    kept = len(finished(directory))
    assert kept >= 1
    assert f"{kept} of 50 blocks kept" in told
    assert "Traceback" not in told
    assert not list(directory.glob("round-*/*.partial"))
    assert not list((TRACEFS / "instances").glob(f"maceproc-{process.pid}*"))


@pytest.mark.kernel
def test_another_plan_is_not_mixed_in(results: Results, lab: Lab) -> None:
    other = Plan(command=PLAN.command, flows=[0], rounds=4, tracers=["minimal", "mace"])
    with pytest.raises(CaptureError, match="another experiment"):
        run_experiment(other, lab_site(lab), results.directory)


@pytest.mark.kernel
def test_a_directory_with_something_else_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CaptureError, match="not empty"):
        run_experiment(PLAN, lab_site(lab), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.kernel
@pytest.mark.parametrize("traffic", ["flood", "iperf3:2M"])
def test_flows_are_pinned_and_stopped(lab: Lab, traffic: str) -> None:
    spaces = [Netns(r, str(NETNS_DIR / lab.netns(r))) for r in ("container2", "container3")]
    remote = Netns("remote", str(NETNS_DIR / lab.netns("remote")))
    with running_flows(Traffic.parse(traffic), 3, "192.0.2.2", spaces, remote) as running:
        processes = [flow.process for flow in running.flows]
        assert [process.poll() for process in processes] == [None] * 3
        for flow in running.flows:
            assert os.sched_getaffinity(flow.process.pid) == {flow.cpu}
    assert None not in [process.poll() for process in processes]
    assert [report.netns for report in running.reports] == [
        "container2",
        "container3",
        "container2",
    ]


@pytest.mark.kernel
def test_a_flow_that_ends_is_told(lab: Lab) -> None:
    inside = Netns("container2", str(NETNS_DIR / lab.netns("container2")))
    with (
        pytest.raises(CommandError, match="background flow"),
        running_flows(Traffic("iperf3", "1M"), 1, "192.0.2.2", [inside]),  # nobody serves it
    ):
        pass


@pytest.mark.kernel
@pytest.mark.skipif(usual_remote() != "program", reason="needs two CPUs and /dev/net/tun")
def test_flows_leave_the_cpu_of_a_remote_that_spins(tmp_path: Path) -> None:
    with Lab(containers=2, remote="program") as made:
        with spinning(made.remote_socket) as taken:
            others = os.sched_getaffinity(0) - {taken}
        plan = Plan(command=PLAN.command, flows=[1], rounds=1, tracers=["minimal"])
        begun = run_experiment(plan, lab_site(made), tmp_path)
    assert set(begun.pinned) == others
    flow = json.loads((tmp_path / "round-001/flows-1/traffic.json").read_text())[0]
    assert flow["cpu"] in others
    assert flow["received"] > 0
