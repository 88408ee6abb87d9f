import json
import os
import random
from pathlib import Path

import pytest

from maceproc.capture import Link, Machine, Namespace, PathDevice, Run, Sidecar, Target, Tracing
from maceproc.capture_files import (
    identify,
    load_sidecar,
    open_capture,
    recording_directory,
    save_sidecar,
    sidecar_path,
)
from maceproc.errors import CaptureError


def sidecar() -> Sidecar:
    """A sidecar with something in every part."""
    return Sidecar(
        maceproc="0.1.0",
        command=["ping", "-c", "1", "192.0.2.2"],
        rounds=2,
        target=Target(
            kind="lab",
            address="192.0.2.2",
            path=[PathDevice(netns="container", dev="eth0"), PathDevice(netns="host", dev="eth0")],
            nat=True,
        ),
        runs=[
            Run(round=1, place="container", traced=True, argv=["ping"], output="1 \u00b5s\n"),
            Run(round=1, place="native", traced=False, argv=["ping"], exit_status=-9),
        ],
        namespaces=[
            Namespace(name="host", inode=1, links=[Link(ifindex=2, name="eth0", peer_ifindex=2)]),
            Namespace(name="container", inode=2),
        ],
        tracing=Tracing(
            events=["net:netif_rx"],
            event_set="list",
            clock="mono",
            instance="maceproc-1",
            buffer_size_kb=64,
            events_lost={"0": 7},
        ),
        machine=Machine(kernel="6.18", cpu="", cpus=2),
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = sidecar_path(tmp_path / "trace.dat")
    save_sidecar(path, sidecar())
    assert load_sidecar(path) == sidecar()
    assert [file.name for file in tmp_path.iterdir()] == ["trace.dat.json"]


def test_words_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    path = sidecar_path(tmp_path / "trace.dat")
    made = sidecar()
    made.command = ["ping", "-p", os.fsdecode(b"caf\xe9"), "\u65e5"]
    made.runs[0].argv = made.command
    made.target.name = os.fsdecode(b"\xff")
    save_sidecar(path, made)
    read = load_sidecar(path)
    assert read.command == read.runs[0].argv == ["ping", "-p", "caf\\xe9", "\u65e5"]
    assert read.target.name == "\\xff"


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat.json"
    save_sidecar(path, sidecar())
    document = json.loads(path.read_text())
    assert document["format"] == "maceproc capture"
    assert document["version"] == 1


def test_arm_is_place_and_tracing() -> None:
    assert [run.arm for run in sidecar().runs] == ["container traced", "native untraced"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 99}, "sidecar version 99.*upgrade"),
        ({"rounds": "three"}, r"Expected `int`, got `str` - at `\$.rounds`"),
        ({"format": "something else"}, r"at `\$.format`"),
        ({"runs": [{"round": 0}]}, r"missing required field `place` - at `\$.runs"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = tmp_path / "trace.dat.json"
    save_sidecar(path, sidecar())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CaptureError, match=complaint):
        load_sidecar(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_what_is_no_sidecar_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.dat.json"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match="not a capture's sidecar"):
        load_sidecar(path)


def test_a_trace_recorded_by_hand_has_no_sidecar(tmp_path: Path) -> None:
    trace = tmp_path / "by_hand.dat"
    with pytest.raises(CaptureError, match="no such file"):
        open_capture(trace)
    trace.touch()
    assert open_capture(trace).sidecar is None
    save_sidecar(sidecar_path(trace), sidecar())
    assert open_capture(trace).sidecar == sidecar()


def test_a_sidecar_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat.json"
    path.mkdir()
    with pytest.raises(CaptureError, match="cannot write the sidecar"):
        save_sidecar(path, sidecar())
    assert [file.name for file in tmp_path.iterdir()] == ["trace.dat.json"]


def identified(directory: Path, data: bytes) -> Path:
    """A trace with a sidecar that says which trace it belongs to."""
    trace = directory / "trace.dat"
    trace.write_bytes(data)
    mine = sidecar()
    mine.trace = identify(trace)
    save_sidecar(sidecar_path(trace), mine)
    return trace


@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 65537, 3_000_000])
def test_a_trace_and_its_sidecar_know_each_other(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    trace = identified(tmp_path, data)
    assert open_capture(trace).sidecar
    trace.write_bytes(data[: size // 2])  # cut, but the same
    assert open_capture(trace).sidecar
    for other in (data + b"more", random.Random(size + 1).randbytes(size)):
        if other != data:
            trace.write_bytes(other)
            with pytest.raises(CaptureError, match="belongs to another trace"):
                open_capture(trace)


def test_a_sidecar_is_written_through_no_link_and_for_its_owner_only(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for name in ("a.json", "a.json.partial"):
        (tmp_path / name).symlink_to(target)
    save_sidecar(tmp_path / "a.json", sidecar())
    assert not target.exists()
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600


def test_a_recording_that_goes_on_is_told(tmp_path: Path) -> None:
    recording_directory(tmp_path / "a.dat").mkdir()
    with pytest.raises(CaptureError, match=r"maceproc salvage .*a.dat"):
        open_capture(tmp_path / "a.dat")
