"""Programs that send echoes in other ways than ping: corrected right, or refused; never wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import maceproc
from maceproc import Lab
from maceproc.recording.lab import REMOTE_IPV4, REMOTE_IPV6
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from tests.test_record import in_private_mounts

NEXT_CALL_NS = 5_000_000  # a socket's calls follow one another by more

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.mark.parametrize(
    ("threads", "targets", "option", "corrected"),
    [
        (1, [REMOTE_IPV4], "none", "all"),
        (1, [REMOTE_IPV4, REMOTE_IPV4], "none", "any"),
        (6, [REMOTE_IPV4, REMOTE_IPV6], "none", "none"),  # a run's calls are those of one task
        (1, [REMOTE_IPV6], "hop", "none"),
        (1, [REMOTE_IPV6], "destination", "none"),
    ],
    ids=["a socket", "two sockets", "threads", "hop-by-hop header", "destination header"],
)
def test_own_pingers_are_corrected_right_or_refused(
    lab: Lab, tmp_path: Path, threads: int, targets: list[str], option: str, corrected: str
) -> None:
    log = tmp_path / "log"
    argv = [sys.executable, "-m", "tests.logged_pinger", str(log)]
    argv += [str(threads), "20", "0.005", option, *targets]
    record(argv, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    rtts = maceproc.analyze(tmp_path / "trace.dat").rtts
    sent = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert len(rtts) >= len(sent) > 0
    used = rtts[rtts["status"] == "corrected"]
    for row in used.itertuples():
        own = [
            sent_ns
            for seq, sent_ns, rtt_ns in sent
            if seq == row.seq and abs(rtt_ns - row.rtt_ns) <= 1000
        ]
        assert any(0 <= row.sent_ns - sent_ns < NEXT_CALL_NS for sent_ns in own), (row, own)
    # Where a call was held up after its stamp, the ping is refused.
    share = len(used) / len(rtts)
    at_least, at_most = {"all": (0.5, 1), "any": (0, 1), "none": (0, 0)}[corrected]
    assert at_least <= share <= at_most, rtts["reason"].value_counts()


def test_options_of_ping(lab: Lab, tmp_path: Path) -> None:
    for number, options in enumerate(
        ["-M do -s 1200 -Q 0xb8 192.0.2.2", "-m 7 -I eth0 192.0.2.2", f"-I eth0 {REMOTE_IPV6}"]
    ):
        argv = ["ping", "-i", "0.005", "-c", "30", *options.split()]
        record(argv, lab_site(lab), tmp_path / f"{number}.dat", baseline=False)
        rtts = maceproc.analyze(tmp_path / f"{number}.dat").rtts
        assert (rtts["status"] == "corrected").mean() >= 0.7, rtts["reason"].value_counts()


@pytest.fixture
def second(lab: Lab) -> str:
    """A second address of the remote."""
    address = REMOTE_IPV4.rpartition(".")[0] + ".77"
    argv = ["ip", "-n", lab.netns("remote"), "address", "replace", f"{address}/24", "dev", "wire0"]
    subprocess.run(argv, check=True)
    return address


@pytest.mark.skipif(shutil.which("fping") is None, reason="no fping here")
def test_fping_with_several_targets(lab: Lab, second: str, tmp_path: Path) -> None:
    argv = ["fping", "-c", "15", "-p", "20", "-i", "2", REMOTE_IPV4, second]
    record(argv, lab_site(lab), tmp_path / "t.dat", baseline=False)
    rtts = maceproc.analyze(tmp_path / "t.dat").rtts
    assert rtts.groupby("target", observed=True).size().to_dict() == {REMOTE_IPV4: 15, second: 15}
    assert (rtts["status"] == "corrected").mean() >= 0.7, rtts["reason"].value_counts()
    calls = rtts["sent_ns"].dropna()
    assert calls.is_unique  # no two pings are given the same request


def test_a_name_with_two_addresses(lab: Lab, second: str, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(f"{REMOTE_IPV4} both.test\n{second} both.test\n")
    words = ["--lab", lab.name, "--no-baseline", "-o", str(tmp_path / "t.dat")]
    ping = ["ping", "-n", "-i", "0.01", "-c", "15", "both.test"]
    script = f'mount --bind {tmp_path}/hosts /etc/hosts; "$@"'
    done = in_private_mounts(script, *words, "--", *ping)
    assert done.returncode == 0, done.stderr
    assert "both.test has 2 addresses, and the path is that to 192.0.2." in done.stderr
    rtts = maceproc.analyze(tmp_path / "t.dat").rtts
    assert (rtts["status"] == "corrected").mean() >= 0.7, rtts["reason"].value_counts()
