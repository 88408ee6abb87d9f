"""The self-test passes on this kernel, and fails when the delay is not what it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from maceproc import selftest
from maceproc.cli import cli
from maceproc.recording.lab import Lab
from maceproc.selftest import Bucket


def test_a_train_waits_longer_and_longer() -> None:
    bucket = Bucket(bytes_per_s=1e6, burst_bytes=1100)  # 1 us a byte
    waits = bucket.waits_ns(np.array([0.0, 0.0, 0.0]), 1000)
    assert waits == pytest.approx([0, 900e3, 1900e3])  # 100 bytes are left over from the first


def test_a_packet_that_comes_late_waits_less() -> None:
    bucket = Bucket(bytes_per_s=1e6, burst_bytes=1000)
    assert bucket.waits_ns(np.array([0.0, 400e3, 5e6]), 1000) == pytest.approx([0, 600e3, 0])


@pytest.mark.kernel
def test_a_known_delay_is_found_where_it_is() -> None:
    done = CliRunner().invoke(cli, ["selftest"], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    assert done.stdout.count("ok ") == 10
    assert "Noise floor" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("PASS")


@pytest.mark.kernel
def test_a_wrong_delay_is_told(tmp_path) -> None:
    with Lab() as lab:
        injection = selftest._injections(lab)[0]
        with selftest._bucket(lab, injection, 500_000) as bucket:
            analysis = selftest._trains(lab, tmp_path / "trace.dat")
    wrong = Bucket(bucket.bytes_per_s * 1.1, bucket.burst_bytes)
    passed = {c.what: c.passed for c in selftest.check_delays(analysis, injection, wrong)}
    assert not passed["the outbound crossing"]
    assert passed["the corrected RTT"]
    elsewhere = injection._replace(direction="inbound")
    with pytest.raises(selftest.LabError, match="trains"):
        list(selftest.check_delays(analysis, elsewhere, bucket))
