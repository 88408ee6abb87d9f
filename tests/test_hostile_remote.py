"""A remote host that lies in its replies makes up no pings, and gets no wrong correction."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import maceproc
from maceproc.recording.lab import NETNS_DIR, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from maceproc.reporting.report import as_text
from tests import hostile_remote
from tests.hostile_remote import WAYS, way_of

pytestmark = pytest.mark.kernel

COUNT = 60
TRUE = {"honest", "twice", "honest and other number"}  # their own reply came, as it was sent


TAME = ("honest", "honest", "silent", "no payload", "honest")
"""Lies that leave every reply its line: what is true beside them can be told."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@contextmanager
def remote(lab: Lab, *ways: str) -> Iterator[None]:
    """Answer in these ways, in turn."""
    inside = ["nsenter", f"--net={NETNS_DIR / lab.netns('remote')}", "--"]
    argv = [*inside, sys.executable, hostile_remote.__file__, *ways]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("options", [(), ("-U", "-p", "ff")], ids=" ".join)
@pytest.mark.parametrize("ways", [WAYS, TAME], ids=["every lie", "tame lies"])
def test_a_remote_that_lies(
    lab: Lab, tmp_path: Path, options: tuple[str, ...], ways: tuple[str, ...]
) -> None:
    # A lie about when a request was sent makes ping wait for twice the RTT that follows from it.
    ping = ["ping", "-i", "0.01", "-c", str(COUNT), "-w", "3", *options]
    with remote(lab, *ways):
        capture = record(ping, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    analysis = maceproc.analyze(capture.trace)
    rtts = analysis.rtts
    assert as_text(analysis)
    assert analysis.as_html()
    assert capture.sidecar
    said = re.search(r"(\d+) packets transmitted", capture.sidecar.runs[0].output)
    assert said  # with -w, ping sends on until it has COUNT replies that it believes
    sent = int(said[1])
    assert set(rtts["seq"]) >= set(range(1, sent + 1))
    strange = rtts[~rtts["seq"].between(1, sent)]  # replies to what was never sent
    assert set(strange["status"]) <= {"error"}
    corrected = rtts[rtts["status"] == "corrected"]
    wrong = corrected[~corrected["seq"].map(lambda seq: way_of(seq, ways) in TRUE).astype(bool)]
    assert list(wrong["seq"].map(lambda seq: way_of(seq, ways))) == []
    # Whoever is corrected took as long as its own packets did, not as the remote says.
    assert (corrected["rtt_ns"] < 50_000_000).all()
    if ways is TAME:
        honest = rtts[rtts["seq"].map(lambda seq: way_of(seq, ways) == "honest").astype(bool)]
        assert (honest["status"] == "corrected").mean() >= 0.5, honest["rule"].value_counts()
    # Where replies come that no line speaks of, refusing all of them is right too.
