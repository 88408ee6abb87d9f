import json
from pathlib import Path

import pytest

from maceproc.capture import (
    Hop,
    Link,
    Machine,
    Namespace,
    Run,
    Sidecar,
    Target,
    Tracing,
    load_sidecar,
    open_capture,
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
            path=[Hop(netns="container", dev="eth0"), Hop(netns="host", dev="eth0")],
            nat=True,
        ),
        runs=[
            Run(round=1, place="container", traced=True, argv=["ping"], output="1 \u00b5s\n"),
            Run(round=1, place="native", traced=False, argv=["ping"], exit_status=-9),
        ],
        namespaces=[
            Namespace(name="host", inode=1, links=[Link(ifindex=2, name="eth0", peer_ifindex=2)])
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
