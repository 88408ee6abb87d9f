"""Both tracers in one capture: identity settles what events alone cannot tell."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import maceproc
from benchmarks.witness import rivals
from maceproc import pipeline
from maceproc.capture_files import echoes_path
from maceproc.cli import cli
from maceproc.echo_rows import ANSWERED
from maceproc.following.follow import Followed
from maceproc.following.losses import is_partial
from maceproc.following.settling import settle
from maceproc.pairing import Rows
from maceproc.pings import parse_runs, pings_table
from maceproc.recording.lab import REMOTE_IPV4, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from maceproc.tracedat.windows import windows_of
from tests.test_by_identity import rows_of, run_of, sidecar_of
from tests.test_witness import by_hand, needs_both


def followed(rows: Rows) -> Followed:
    """Return what an analysis of events that is right in all would have found."""
    rtts, crossed, hops = by_hand(rows)
    runs = list(parse_runs(sidecar_of(run_of(len(rows))).runs))
    rtts = rtts.assign(matched_by="time", tx_stack_ns=1_000, delivery_ns=500)
    return Followed(hops, crossed, pings_table(runs), rtts, runs)


def changed(found: Followed, place: int, **values: object) -> Followed:
    rtts = found.rtts.astype(object)
    for name, value in values.items():
        rtts.loc[place, name] = value
    return found._replace(rtts=rtts)


def open_one(found: Followed, place: int, status: str) -> Followed:
    gone = {name: pd.NA for name in found.rtts if name.endswith(("_ns", "_journey"))}
    del gone["rtt_ns"], gone["rtt_resolution_ns"]
    return changed(found, place, **gone, status=status, reason="because", rule="some")


def test_what_is_certain_stays() -> None:
    rows = rows_of(10)
    found = followed(rows)
    rtts, findings = settle(found, sidecar_of(run_of(10)), rows)
    pd.testing.assert_frame_equal(
        rtts.astype(object), found.rtts[rtts.columns].astype(object), check_dtype=False
    )
    assert len(findings) == 1
    assert "20 matches" in findings[0][2]
    assert "0 were wrong; 0 pings were settled" in findings[0][2]


@pytest.mark.parametrize("status", ["ambiguous", "incomplete"])
def test_what_was_open_is_settled(status: str) -> None:
    rows = rows_of(10)
    rtts, findings = settle(open_one(followed(rows), 4, status), sidecar_of(run_of(10)), rows)
    assert (rtts["status"] == "corrected").all()
    assert rtts["matched_by"].tolist() == ["time"] * 4 + ["identity"] + ["time"] * 5
    assert rtts["reason"].tolist() == [""] * 10
    assert rtts["bare_metal_rtt_ns"].nunique() == 1
    assert rtts["outbound_journey"].tolist() == list(range(0, 20, 2))
    assert rtts["inbound_journey"].tolist() == list(range(1, 20, 2))
    assert rtts["tx_stack_ns"].isna().sum() == 1
    assert "1 pings were settled" in findings[0][2]


def test_what_identity_does_not_know_stays_open() -> None:
    rows = rows_of(10)
    found = open_one(open_one(followed(rows), 2, "ambiguous"), 3, "ambiguous")
    rows["flags"][2], rows["received_ns"][2] = ANSWERED, 0
    kept = rows[[n for n in range(10) if n != 3]]
    rtts, _ = settle(found, sidecar_of(run_of(10)), kept)
    assert rtts["status"].tolist() == [
        "ambiguous" if n in (2, 3) else "corrected" for n in range(10)
    ]
    assert set(rtts["reason"][[2, 3]]) == {"because"}


def test_a_wrong_match_is_mended_and_told() -> None:
    rows = rows_of(10)
    found = followed(rows)
    wrong = changed(found, 5, inbound_journey=13, bare_metal_rtt_ns=1, inbound_ns=2)
    rtts, findings = settle(wrong, sidecar_of(run_of(10)), rows)
    assert rtts["inbound_journey"].tolist() == list(range(1, 20, 2))
    assert rtts["bare_metal_rtt_ns"].nunique() == 1
    assert rtts["matched_by"][5] == "identity"
    assert [finding[1] for finding in findings] == ["note", "problem"]


@pytest.mark.kernel
class TestRecorded:
    """Floods in one container, with both tracers."""

    pytestmark = needs_both

    def test_floods_of_one_container_are_told_whole(self, tmp_path: Path) -> None:
        flood = ["-f", "-q", REMOTE_IPV4]
        path = tmp_path / "t.dat"
        command = ["ping", "-i", "0.005", "-c", "100", REMOTE_IPV4]
        noise = [("container", flood), ("container", flood), ("container2", flood)]
        with Lab(containers=2) as lab, rivals(lab, *noise):
            both = {"tracer": "ftrace+bpf", "buffer_kb": 65536}
            record(command, lab_site(lab), path, baseline=False, **both)  # type: ignore[arg-type]
        assert echoes_path(path).exists()
        analysis = maceproc.analyze(path)
        answered = analysis.rtts[analysis.rtts["status"] != "unanswered"]
        assert len(answered) > 50
        assert (answered["status"] == "corrected").all()
        told = analysis.findings[analysis.findings["finding"] == "identity"]
        assert told["level"].tolist() == ["note"]
        assert ", 0 were wrong;" in told["message"].iloc[0]
        done = CliRunner().invoke(cli, ["explain", str(path), str(answered["seq"].iloc[0])])
        assert done.exit_code == 0, done.output
        windows = windows_of(path, 200_000)
        assert len(windows) > 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "windows_for", lambda *_: windows)
            found = maceproc.analyze(path)
        assert is_partial(found.trace), "it was read as a whole"
        assert found.as_dict() == analysis.as_dict()
