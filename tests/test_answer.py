"""Every report begins with the answer: a sentence, a verdict and why, and the numbers."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner

from maceproc.cli import cli
from maceproc.cli.analyze import end_without_replies
from maceproc.cli.live import LivePings
from maceproc.comparison import compare
from maceproc.errors import TracingError
from maceproc.following.event_costs import UNTOLD
from maceproc.following.lost_pings import last_seen, loss_doubts, lost_by_arm
from maceproc.following.soundness import judge
from maceproc.ledger import INBOUND, OUTBOUND, OUTER_QUEUE
from maceproc.recording.event_sets import choose_events
from maceproc.recording.session import Progress
from maceproc.reporting.answer import answer, median_of
from maceproc.reporting.report import as_text
from maceproc.reporting.report_tables import event_cost_lines
from maceproc.schema import FINDINGS
from maceproc.series import CORRECTED
from tests.recorded import NAMES, analyzed, path_of


def findings(*levels: str) -> pd.DataFrame:
    return FINDINGS.from_rows(
        [(f"name {n}", level, f"why {n}", "") for n, level in enumerate(levels)]
    )


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (("problem", "warning", "note"), "do not use: why 0"),
        (("warning", "warning", "note"), "with care: why 0 (and 1 more warning)"),
        (("note",), "sound: no reason to doubt these numbers was found"),
        ((), "sound: no reason to doubt these numbers was found"),
    ],
)
def test_the_gravest_finding_is_the_verdict(levels: tuple[str, ...], sentence: str) -> None:
    assert judge(findings(*levels)).sentence == sentence


def test_a_warning_about_the_bare_metal_rtt_does_not_judge_a_native_rtt_that_held() -> None:
    rows = [("corrected is not native", "warning", "it is 5 us from it", ""), ("n", "note", "", "")]
    about = FINDINGS.from_rows(rows)
    assert judge(about).sentence == "with care: it is 5 us from it"
    assert judge(about, native_held=True).sentence == (
        "sound: no reason to doubt the native RTT was found; of the bare-metal RTT see the findings"
    )
    more = FINDINGS.from_rows([*rows, ("drift", "warning", "rounds differ", "")])
    assert judge(more, native_held=True).sentence == "with care: rounds differ"
    problem = FINDINGS.from_rows([("corrected is not native", "problem", "why", "")])
    assert judge(problem, native_held=True).verdict == "do not use"


def test_the_finding_about_the_headline_s_number_is_the_reason_of_the_verdict() -> None:
    for name in ("native RTT", "calibration"):
        rows = [("drift", "warning", "rounds differ", ""), (name, "warning", "it is off", "")]
        judged = judge(FINDINGS.from_rows(rows))
        assert judged.sentence == "with care: it is off (and 1 more warning)"


def test_a_negative_cost_of_tracing_is_never_a_finding() -> None:
    """Tracing cannot speed a ping up, so neither report nor answer says that it did."""
    analysis = analyzed("every_event")
    costs = analysis.event_costs.assign(
        cost_ns=-6300.0, low_ns=-20_000.0, high_ns=7000.0, verdict=UNTOLD, basis="measured"
    )
    for line in list(event_cost_lines(costs))[1:]:
        assert line.endswith("traced - untraced is -6.3 us (-20.0 to +7.0): not told from nothing")


@pytest.mark.parametrize("name", NAMES)
def test_lists_fit_80_columns_too(name: str) -> None:
    for verb in ("events", "pings"):
        printed = CliRunner().invoke(cli, [verb, str(path_of(name))]).stdout
        assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_a_report_begins_with_the_answer_and_fits_80_columns(name: str) -> None:
    text = as_text(analyzed(name))
    lines = text.splitlines()
    begin = " ".join(text.split("\n\n")[0].split())
    assert begin == answer(analyzed(name)).sentence.replace("\u00a0", " ").replace("\u2212", "-")
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith(" ") for line in lines)
    assert "  verdict " in text.split("\n\n")[1]
    for row in analyzed(name).findings.itertuples():
        if row.advice:
            assert f"-> {' '.join(row.advice.split()[:3])}" in " ".join(text.split())


def test_the_corrected_median_is_that_of_the_table_within_its_interval() -> None:
    analysis = analyzed("idle")
    median = median_of(analysis, CORRECTED)
    table = analysis.series.set_index("series")
    assert median.estimate_ns == table.loc[CORRECTED.name, "median_ns"]
    assert median.low_ns <= median.estimate_ns <= median.high_ns


def test_the_rtt_without_the_container_has_the_name_of_its_series() -> None:
    name, text = answer(analyzed("idle")).facts[0]
    assert (name, "bare_metal_rtt_ns" in text) == ("corrected", True)
    assert CORRECTED.name.endswith(f", {name}")
    assert answer(analyzed("native")).facts[0][0] == "native"


def test_steps_say_in_which_segment_they_are() -> None:
    steps = analyzed("every_event").steps
    assert list(dict.fromkeys(steps["segment"])) == [OUTBOUND.name, OUTER_QUEUE.name, INBOUND.name]
    waits = steps[steps["segment"] == OUTER_QUEUE.name]
    assert list(waits["end"].str.endswith("net_dev_start_xmit")) == [True]
    assert "outer device" not in answer(analyzed("every_event")).facts[2][1]


def lost(analysis, *, all_of_them: bool):
    """Return an analysis as if the replies of some pings had not come."""
    pings, rtts = (t.astype({"status": object}) for t in (analysis.pings, analysis.rtts))
    rows = pings.index if all_of_them else pings.index[:7]
    pings.loc[rows, "status"] = rtts.loc[rows, "status"] = "unanswered"
    return replace(analysis, pings=pings, rtts=rtts)


def test_lost_pings_are_told_with_where_they_were_last_seen() -> None:
    analysis = lost(analyzed("idle"), all_of_them=False)
    counts = lost_by_arm(analysis.pings)
    assert counts["lost"].sum() == 7
    assert counts["sent"].sum() == len(analysis.pings)
    seen = last_seen(analysis.rtts, analysis.hops)
    assert seen.sum() == 7
    (finding,) = loss_doubts(analysis.pings, analysis.rtts, analysis.hops)
    assert finding.level == "warning"
    assert str(seen.index[0]) in finding.message
    assert "No reply came to 7 of 200 container traced pings." in answer(analysis).sentence
    assert "lost" in as_text(analysis)


def test_no_reply_at_all_is_a_problem_and_a_status() -> None:
    analysis = lost(analyzed("idle"), all_of_them=True)
    doubts = list(loss_doubts(analysis.pings, analysis.rtts, analysis.hops))
    assert [doubt.level for doubt in doubts] == ["problem"]
    with pytest.raises(SystemExit):
        end_without_replies(replace(analysis, findings=FINDINGS.from_rows(doubts)))
    end_without_replies(analyzed("idle"))


def test_compare_and_explain_begin_with_the_answer() -> None:
    text = str(compare(analyzed("idle"), analyzed("loaded")))
    assert text.startswith("loaded against idle: the median RTT")
    assert max(map(len, text.splitlines())) <= 80
    told = CliRunner().invoke(cli, ["explain", str(path_of("idle")), "3"]).stdout
    assert told.startswith("icmp_seq 3, round 1, container traced: corrected. Ping printed")
    assert max(map(len, told.splitlines())) <= 80


def test_live_pings_are_counted_as_ping_counts_them() -> None:
    pings = LivePings()
    printed = "".join(r.output for r in analyzed("idle").capture.sidecar.runs[:1])
    pings.follow(Progress(0, 2, "container traced"))
    for start in range(0, len(printed), 37):  # in pieces, as a pipe gives them
        pings.read(printed[start : start + 37].encode())
    pings.read(b"64 bytes from x: icmp_seq=1 time=2.5 ms\n64 bytes from x: icmp_seq=4 time=1 ms\n")
    ((arm, runs, replies, loss, last, *_),) = pings.rows()
    assert (arm, runs, replies, last) == ("container traced", "1", "42", "1000.0")
    assert loss == "4.5 %"  # 2 of 44
    pings.table()


def test_a_mistyped_event_gets_a_suggestion() -> None:
    available = ["net:net_dev_queue", "net:netif_rx"]
    with pytest.raises(TracingError) as caught:
        choose_events("net:net_dev_quue", available, [])
    assert "did you mean net:net_dev_queue?" in str(caught.value)
