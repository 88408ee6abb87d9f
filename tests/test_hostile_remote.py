"""A remote host that lies in its replies makes up no pings, and gets no wrong correction."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import maceproc
from maceproc.recording.lab import NETNS_DIR, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from maceproc.reporting.report import as_text
from tests import hostile_remote
from tests.hostile_remote import way_of

pytestmark = pytest.mark.kernel

COUNT = 60
TRUE = {"honest", "twice", "honest and other number"}  # their own reply came, as it was sent


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        inside = ["nsenter", f"--net={NETNS_DIR / lab.netns('remote')}", "--"]
        argv = [*inside, sys.executable, hostile_remote.__file__]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as remote:
            assert remote.stdout is not None
            assert remote.stdout.readline() == b"ready\n"
            yield lab
            remote.kill()


@pytest.mark.parametrize("options", [(), ("-U", "-p", "ff")], ids=" ".join)
def test_a_remote_that_lies(lab: Lab, tmp_path: Path, options: tuple[str, ...]) -> None:
    # A lie about when a request was sent makes ping wait for twice the RTT that follows from it.
    ping = ["ping", "-i", "0.01", "-c", str(COUNT), "-w", "3", *options]
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
    # Refusing all of them is right too: replies came that no line speaks of.
    corrected = rtts[rtts["status"] == "corrected"]
    wrong = corrected[~corrected["seq"].map(way_of).isin(TRUE)]
    assert list(wrong["seq"].map(way_of)) == []
    # Whoever is corrected took as long as its own packets did, not as the remote says.
    assert (corrected["rtt_ns"] < 50_000_000).all()
