"""Calibrations: kept in a file, made of captures, used for others, refused by name, checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import maceproc
from maceproc.calibration import (
    CALIBRATION_VERSION,
    Calibration,
    Conditions,
    Measured,
    load_calibration,
    save_calibration,
)
from maceproc.capture_files import load_sidecar, save_sidecar, sidecar_path
from maceproc.errors import AnalysisError, CaptureError
from maceproc.following.calibrating import CALIBRATION, ITSELF, make_calibration
from maceproc.following.conditions import CONDITIONS, differences
from maceproc.recording.lab import REMOTE_IPV4, SECOND_IPV4, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from maceproc.reporting.answer import answer
from maceproc.reporting.closure import check_lines
from maceproc.series import NATIVE_RTT
from tests.recorded import path_of

PING = ["ping", "-i", "0.005", "-c", "8"]
ROUNDS = 6

MADE_FOR = Conditions(
    machine="a", kernel="6.18", outer_device="eno1 (card, fq)", rules="r", nat=True,
    network="veth -> bridge docker0", program="iputils", family="IPv4", size_bytes=56,
    interval_s=0.2, awake=False, events=["net:a", "net:b"],
)  # fmt: skip
OTHERS = {
    "machine": "b", "kernel": "6.19", "outer_device": "eno2 (card, fq)", "rules": "s",
    "nat": False, "network": "veth", "program": "busybox", "family": "IPv6", "size_bytes": 1000,
    "awake": True, "events": ["net:a"],
}  # fmt: skip


def made() -> Calibration:
    measured = Measured(
        terms_ns=[5000.0, 2000.0, 0.0], covariance_ns2=[[1e5, 0, 0], [0, 1e6, 0], [0, 0, 1e6]],
        rounds=20, events=3.0, own_path_ns=20000.0, overhead_ns=None, made_utc_ns=10**18,
    )  # fmt: skip
    return Calibration(
        maceproc="0", command=PING, place="lab", conditions=MADE_FOR, measured=[measured]
    )


# The file


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    save_calibration(tmp_path / "c.json", made())
    assert load_calibration(tmp_path / "c.json") == made()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not a calibration"),
        ("{}", "not a calibration"),
        (json.dumps({"format": "maceproc capture"}), "not a calibration"),
    ],
)
def test_what_is_no_calibration_is_refused_in_one_line(
    content: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    file.write_text(content)
    with pytest.raises(CaptureError, match=said) as error:
        load_calibration(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    document = msgspec.to_builtins(made()) | {"version": CALIBRATION_VERSION + 1}
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(CaptureError, match="upgrade maceproc"):
        load_calibration(tmp_path / "c.json")


def test_one_that_is_missing_or_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        load_calibration(tmp_path / "c.json")
    with pytest.raises(CaptureError, match="cannot write the calibration"):
        save_calibration(tmp_path / "none" / "c.json", made())


# Conditions


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_differs_is_named(name: str) -> None:
    found = msgspec.structs.replace(MADE_FOR, **{name: OTHERS[name]})
    (difference,) = differences(MADE_FOR, found)
    what, refuses = CONDITIONS[name]
    assert difference.what == what
    assert difference.refuses == refuses
    assert what in difference.message


@pytest.mark.parametrize(("interval_s", "refuses"), [(0.21, None), (0.5, False), (0.01, True)])
def test_another_interval_is_doubted_and_a_far_other_refused(
    interval_s: float, refuses: bool | None
) -> None:
    found = differences(MADE_FOR, msgspec.structs.replace(MADE_FOR, interval_s=interval_s))
    assert [one.refuses for one in found] == ([] if refuses is None else [refuses])


def test_what_is_not_known_is_no_difference() -> None:
    assert differences(MADE_FOR, Conditions(nat=True)) == []


def test_every_condition_is_compared() -> None:
    assert set(CONDITIONS) | {"interval_s"} == set(Conditions.__struct_fields__)


# Recordings


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Captures of two targets, and one of the second without native arms, in one lab."""
    if os.geteuid():
        pytest.skip("recording needs root")
    place = tmp_path_factory.mktemp("calibration")
    paths = (place / "one.dat", place / "other.dat", place / "alone.dat")
    with Lab() as lab:
        site = lab_site(lab)
        record([*PING, REMOTE_IPV4], site, paths[0], rounds=ROUNDS)
        record([*PING, SECOND_IPV4], site, paths[1], rounds=ROUNDS)
        record([*PING, SECOND_IPV4], site, paths[2], rounds=2, baseline=False)
    return paths


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "maceproc", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.kernel
def test_a_capture_s_conditions_are_known(captures: tuple[Path, ...], tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    done = run("calibrate", "--from", captures[0], "-o", file)
    assert done.returncode == 0, done.stderr
    assert "host's part" in done.stdout
    made = load_calibration(file)
    conditions = made.conditions
    assert made.measured[0].wire_within == ("veth" in conditions.outer_device)
    unknown = [
        name for name in conditions.__struct_fields__ if getattr(conditions, name) in ("", [], None)
    ]
    assert unknown == []
    assert conditions.nat
    assert conditions.program == "iputils"
    assert conditions.interval_s == pytest.approx(0.005, abs=0.003)
    again = run("calibrate", "--from", captures[0], "-o", file)
    assert again.returncode == 1
    assert "exists" in again.stderr


@pytest.mark.kernel
def test_captures_without_natives_are_served_by_a_calibration(
    captures: tuple[Path, ...], tmp_path: Path
) -> None:
    one, _, alone = captures
    assert maceproc.analyze(alone).native.correction is None
    file = tmp_path / "c.json"
    assert run("calibrate", "--from", one, "-o", file).returncode == 0
    analysis = maceproc.analyze(alone, calibration=file)
    assert analysis.native.source == CALIBRATION
    assert analysis.native.correction is not None
    corrected = analysis.rtts[(analysis.rtts["status"] == "corrected") & (analysis.rtts["seq"] > 1)]
    shift = set(corrected["native_rtt_ns"] - corrected["bare_metal_rtt_ns"])
    assert shift == {round(analysis.native.correction.shift_ns)}
    name, _ = answer(analysis).facts[0]
    assert NATIVE_RTT.name.endswith(f", {name}")
    done = run("analyze", alone, "--calibration", file)
    assert "native RTT by a calibration" in done.stdout
    assert "calibrated by one.dat" in " ".join(done.stdout.split())


@pytest.mark.kernel
def test_natives_of_the_same_capture_serve_it_otherwise(captures: tuple[Path, ...]) -> None:
    analysis = maceproc.analyze(captures[0])
    assert analysis.native.source == ITSELF
    assert analysis.native.left.rounds == 2  # the third and the fourth of six
    assert {"native traced", "native untraced"} <= set(analysis.rtts["arm"])
    truth = [f for f in analysis.findings["message"] if "this is a lab" in f]
    assert len(truth) == 1


@pytest.mark.kernel
def test_compared_native_rtts_have_the_uncertainty_of_what_was_added(
    captures: tuple[Path, ...],
) -> None:
    contrasts = maceproc.compare(captures[0], captures[1]).contrasts.set_index("quantity")
    width = contrasts["high_ns"] - contrasts["low_ns"]
    assert width["container, as native"] > width["container, corrected"]
    given = make_calibration(
        [(a.capture, a.rtts, a.native) for a in [maceproc.analyze(captures[0])]]
    )
    same = [maceproc.analyze(path, calibration=given) for path in captures[:2]]
    again = maceproc.compare(*same).contrasts.set_index("quantity")
    narrow = again["high_ns"] - again["low_ns"]
    assert narrow["container, as native"] < width["container, as native"]


@pytest.mark.kernel
def test_another_machine_s_calibration_is_refused_by_name(
    captures: tuple[Path, ...], tmp_path: Path
) -> None:
    analyses = [maceproc.analyze(captures[0])]
    given = make_calibration([(a.capture, a.rtts, a.native) for a in analyses])
    given.conditions.machine = "0123456789abcdef"
    analysis = maceproc.analyze(captures[2], calibration=given)
    assert analysis.rtts["native_rtt_ns"].isna().all()
    (refused,) = analysis.findings[analysis.findings["finding"] == "calibration"].itertuples()
    assert refused.level == "problem"
    assert "refused: the machine" in refused.message


@pytest.mark.kernel
def test_several_captures_make_one_calibration_if_their_conditions_agree(
    captures: tuple[Path, ...],
) -> None:
    analyses = [maceproc.analyze(path) for path in captures[:2]]
    made_of = [(a.capture, a.rtts, a.native) for a in analyses]
    both = make_calibration(made_of)
    assert [one.address for one in both.measured] == [REMOTE_IPV4, SECOND_IPV4]
    sidecar = analyses[1].capture.sidecar
    assert sidecar is not None
    awake = msgspec.structs.replace(
        sidecar, machine=msgspec.structs.replace(sidecar.machine, awake=True)
    )
    other = msgspec.structs.replace(analyses[1].capture, sidecar=awake)
    with pytest.raises(AnalysisError, match="kept awake"):
        make_calibration([made_of[0], (other, *made_of[1][1:])])


@pytest.mark.kernel
def test_what_has_no_natives_makes_no_calibration(
    captures: tuple[Path, ...], tmp_path: Path
) -> None:
    done = run("calibrate", "--from", captures[2], "-o", tmp_path / "c.json")
    assert done.returncode == 1
    assert "was not run from the host" in done.stderr
    assert not (tmp_path / "c.json").exists()


@pytest.mark.kernel
def test_the_sidecar_keeps_a_calibration_and_it_is_used(
    captures: tuple[Path, ...], tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    assert run("calibrate", "--from", captures[0], "-o", file).returncode == 0
    trace = tmp_path / "trace.dat"
    words = ("--lab", "--no-baseline", "--calibration", file, "-o", trace, "--", *PING)
    assert run("record", "--rounds", "1", *words).returncode == 0
    sidecar = load_sidecar(sidecar_path(trace))
    assert sidecar.calibration == load_calibration(file)
    # That lab's remote is a program, where it can be one: another outer device.
    analysis = maceproc.analyze(trace)
    known = analysis.native.doubts
    assert (analysis.native.source == CALIBRATION) != any(doubt.refuses for doubt in known)
    save_sidecar(sidecar_path(trace), sidecar)
    assert load_sidecar(sidecar_path(trace)) == sidecar


def test_a_check_tells_whether_it_holds() -> None:
    old = made()
    later = msgspec.structs.replace(old.measured[0], made_utc_ns=10**18 + 10**12)
    same = msgspec.structs.replace(old, measured=[later])
    holds, lines = check_lines(old, same)
    assert holds
    assert "made 16.7 min ago" in lines[0]
    moved = msgspec.structs.replace(later, terms_ns=[25_000.0, 2_000.0, 0.0])
    holds, lines = check_lines(old, msgspec.structs.replace(old, measured=[moved]))
    assert not holds
    other = msgspec.structs.replace(MADE_FOR, kernel="6.19")
    holds, lines = check_lines(old, msgspec.structs.replace(same, conditions=other))
    assert not holds
    assert "refused: the kernel: 6.19 here, 6.18 there" in lines


@pytest.mark.kernel
def test_calibrate_records_and_checks(tmp_path: Path) -> None:
    file, kept = tmp_path / "c.json", tmp_path / "kept.dat"
    with Lab(f"calibration-{os.getpid()}") as lab:
        where = ("--lab", lab.name, "--rounds", "6")
        done = run("calibrate", *where, "--keep", kept, "-o", file, "--", *PING, REMOTE_IPV4)
        assert done.returncode == 0, done.stderr
        assert load_sidecar(sidecar_path(kept)).rounds == 6
        checked = run("calibrate", "--rounds", "6", "--check", file)
    assert checked.returncode in (0, 1), checked.stderr
    assert ("still holds" if checked.returncode == 0 else "does not hold") in checked.stdout
    assert "us then," in checked.stdout


@pytest.mark.parametrize(
    "words", [(), ("--from", "x.dat", "--", "ping"), ("--from", "x.dat", "--check", "c.json")]
)
def test_a_command_line_that_says_nothing_or_too_much_is_refused(words: tuple[str, ...]) -> None:
    assert run("calibrate", *words).returncode == 2


def test_an_old_capture_says_what_to_do() -> None:
    findings = maceproc.analyze(path_of("idle")).findings.set_index("finding")
    assert "maceproc calibrate" in findings.loc["no native RTT", "advice"]
