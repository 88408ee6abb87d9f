"""Run the bench: ``python -m tests.kernels [--kernel 6.1] [--smoke | SCENARIO ...]``.

Prints a line per scenario, and ends with 1 if one is not as it must be, or with 3 if all that was
recorded is, but something was not: a kernel cannot be had or booted, or time was up. With
``--save`` the results go into ``tests/kernels/results.json``, and from there into the table of
docs/networks.md.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.kernels.machine import (
    BOOT_S,
    FETCH_S,
    KERNELS,
    NAMES,
    SCENARIO_S,
    CannotRun,
    boot,
    done_file,
    fetched,
    guest_script,
    has_modules,
    newest_package,
    run_here,
)
from tests.kernels.scenarios import HERE, SCENARIOS, SMOKE, Scenario
from tests.kernels.table import PAGE, RESULTS, with_table
from tests.kernels.verdicts import Verdict, judge

WRONG, NOT_RUN = 1, 3
"""Exit statuses; 2 is argparse's."""


def main() -> int:
    """Run the bench as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("--kernel", action="append", choices=NAMES, help="default: all")
    parser.add_argument("--smoke", action="store_true", help="few scenarios, on one kernel")
    parser.add_argument("--here", action="store_true", help="on the running kernel, no other")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="end after this time")
    parser.add_argument("--save", action="store_true", help="keep the results")
    parser.add_argument("--again", action="store_true", help="judge what was recorded before")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}: there are {', '.join(SCENARIOS)}")
    names = options.scenarios or (SMOKE if options.smoke else tuple(SCENARIOS))
    series = options.kernel or list(NAMES)[: 1 if options.smoke else None]
    chosen = {name: SCENARIOS[name] for name in names}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(NOT_RUN))  # a guest is ended with the bench
    end = time.monotonic() + (options.within or math.inf)
    verdicts, whole = [], True
    if options.here:
        verdicts += run_on_this_kernel(options.scenarios or HERE)
    for name in [] if options.here else series:
        try:
            found = judge_again(name, chosen) if options.again else run_kernel(name, chosen, end)
        except CannotRun as error:
            print(f"{name}: NOT RUN: {error}", flush=True)
            found = []
        verdicts += found
        whole &= len(found) == len(chosen)
    if options.save:
        save(verdicts)
    return status_of(verdicts, whole=whole)


def status_of(verdicts: Sequence[Verdict], *, whole: bool) -> int:
    """Return the bench's exit status; `whole` says that every scenario was recorded."""
    if any(verdict.problem for verdict in verdicts):
        return WRONG
    return 0 if whole and not any(verdict.held_up for verdict in verdicts) else NOT_RUN


def save(verdicts: Sequence[Verdict]) -> None:
    """Put verdicts into the results file, in place of earlier ones of their scenario and kernel.

    What a busy machine held up is left out: it shows nothing.
    """
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    by_place = {(row["kernel"], row["scenario"]): row for row in rows}
    by_place |= {(v.kernel, v.scenario): v.as_dict() for v in verdicts if not v.held_up}
    order = list(SCENARIOS)
    rows = sorted(by_place.values(), key=lambda row: (order.index(row["scenario"]), row["kernel"]))
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), rows))


def run_on_this_kernel(names: Sequence[str]) -> list[Verdict]:
    """Record scenarios on the running kernel, and judge what was recorded."""
    scenarios = {name: SCENARIOS[name] for name in names}
    results = _emptied(KERNELS / "results" / "here", scenarios)
    script = results / "script.sh"
    script.write_text(guest_script(scenarios, results))
    (results / "console.log").write_text(run_here(script, seconds=SCENARIO_S * len(scenarios)))
    release = platform.release().partition("-")[0]  # what follows is this machine's own
    return [told(judge(name, s, release, results / f"{name}.dat")) for name, s in scenarios.items()]


def run_kernel(series: str, scenarios: dict[str, Scenario], end: float) -> list[Verdict]:
    """Record the scenarios on a kernel of this series, and judge what was recorded.

    `end` is the time of the monotonic clock at which that ends, whatever is still to be recorded.
    Raises CannotRun where there is no such kernel, or it does not boot.
    """
    release, root = fetched(series, min(FETCH_S, end - time.monotonic()))
    able = {name: s for name, s in scenarios.items() if why_not(s, root, release) == ""}
    for name, scenario in scenarios.items():
        if name not in able:
            not_run(release, name, why_not(scenario, root, release))
    results = _emptied(KERNELS / "results" / release, scenarios)
    script = results / "guest.sh"
    script.write_text(guest_script(able, results))
    seconds = min(BOOT_S + SCENARIO_S * len(able), end - time.monotonic())
    in_time = boot(root, release, script, results, seconds=seconds)
    verdicts = []
    for name, scenario in able.items():
        if in_time or done_file(name, results).exists():
            verdicts.append(told(judge(name, scenario, release, results / f"{name}.dat")))
        else:
            not_run(release, name, f"the guest was ended after {seconds:.0f} s")
    return verdicts


def not_run(release: str, name: str, why: str) -> None:
    """Say that a scenario was not recorded, and why."""
    print(f"{release:20} {name:20} NOT RUN: {why}", flush=True)


def judge_again(series: str, scenarios: dict[str, Scenario]) -> list[Verdict]:
    """Judge what earlier runs recorded on a kernel of this series."""
    package = newest_package(series)
    release = str(package).removeprefix("linux-image-")
    traces = {name: KERNELS / "results" / release / f"{name}.dat" for name in scenarios}
    there = {name: trace for name, trace in traces.items() if trace.exists()}
    return [told(judge(name, scenarios[name], release, there[name])) for name in there]


def _emptied(results: Path, scenarios: Iterable[str]) -> Path:
    """Return the directory for results, without earlier ones of these scenarios."""
    results.mkdir(parents=True, exist_ok=True)
    for name in scenarios:
        for file in results.glob(f"{name}.*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    return results


def why_not(scenario: Scenario, root: Path, release: str) -> str:
    """Say what a scenario lacks here; nothing if it can be run."""
    missing = [program for program in scenario.programs if not shutil.which(program)]
    if missing:
        return f"no {', '.join(missing)} here"
    return "" if has_modules(root, release, scenario) else "the kernel lacks a module"


def told(verdict: Verdict) -> Verdict:
    """Print a verdict as it is reached."""
    counts = f"{verdict.corrected} of {verdict.answered} corrected, {verdict.wrong} wrong"
    print(
        f"{verdict.kernel:20} {verdict.scenario:20} {counts}: "
        f"{verdict.problem or verdict.held_up or verdict.refused or 'as it must be'}",
        flush=True,
    )
    return verdict


if __name__ == "__main__":
    sys.exit(main())
