"""What recorders leave is put together whole, without following links and without much memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maceproc import read_events
from maceproc.errors import CaptureError
from maceproc.recording import written
from maceproc.recording.written import events_written, join_remains
from maceproc.tracedat import salvage as salvaging
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.counting import count_events, pages_of_cpu
from maceproc.tracedat.salvage import salvage
from tests.recorded import NAMES, path_of

PEAK = "import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def pieces(name: str, directory: Path) -> dict[tuple[str, int], list[bytes]]:
    """The pages of a capture, by instance and CPU."""
    with open_trace(path_of(name)) as trace:
        return {
            (buffer.name, cpu.cpu): [bytes(page) for page in pages_of_cpu(trace, buffer, cpu)]
            for buffer in trace.buffers
            for cpu in buffer.cpus
        }


@pytest.mark.parametrize("name", NAMES)
def test_events_are_counted_as_they_are_read(name: str) -> None:
    read = read_events(path_of(name), fields=())
    counted = sum(sum(cpus.values()) for cpus in count_events(path_of(name)).values())
    assert counted == sum(len(table) for table in read.events.values())


def test_counting_and_joining_load_no_pandas(tmp_path: Path) -> None:
    script = "import sys, maceproc.tracedat.after_recording; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"numpy", "pandas", "scipy", "rich"} & set(loaded)
    assert written.REST == salvaging.REST


def test_a_rest_follows_its_piece(tmp_path: Path) -> None:
    for (instance, cpu), pages in pieces("loaded", tmp_path).items():
        piece = tmp_path / f"lost.dat.{instance}.cpu{cpu}"
        half = len(pages) // 2
        piece.write_bytes(b"".join(pages[:half]))
        piece.with_name(f"{piece.name}.rest").write_bytes(b"".join(pages[half:]))
    saved = salvage(tmp_path / "lost.dat", tmp_path / "saved.dat", path_of("loaded"), "mono")
    assert count_events(saved.trace) == {
        name: cpus for name, cpus in count_events(path_of("loaded")).items() if cpus
    }
    ours, whole = read_events(saved.trace), read_events(path_of("loaded"))
    assert {name: len(table) for name, table in ours.events.items()} == {
        name: len(table) for name, table in whole.events.items()
    }
    assert (saved.trace.stat().st_mode & 0o777) == 0o600


def test_a_rest_follows_what_is_in_the_trace(tmp_path: Path) -> None:
    """trace-cmd wrote its file, but one of its processes had died."""
    trace = tmp_path / "trace.dat"
    shutil.copy(path_of("loaded"), trace)
    before = count_events(trace)
    (instance,) = (name for name, cpus in before.items() if cpus)
    last = pieces("loaded", tmp_path)[instance, 1][-1]
    trace.with_name(f"trace.dat.{instance}.cpu1.rest").write_bytes(last)
    join_remains(trace, "mono")
    after = events_written(trace, instance)
    assert after[0] == before[instance][0]
    assert after[1] > before[instance][1]
    assert [path.name for path in tmp_path.iterdir()] == ["trace.dat"]


def test_a_page_that_is_not_whole_is_told(tmp_path: Path) -> None:
    ((instance, cpu), pages), *_ = pieces("loaded", tmp_path).items()
    (tmp_path / f"lost.dat.{instance}.cpu{cpu}").write_bytes(pages[0] + pages[1][:100])
    saved = salvage(tmp_path / "lost.dat", tmp_path / "saved.dat", path_of("loaded"))
    assert saved.pages == 1
    assert any("the last 100 bytes are no whole page" in note for note in saved.notes)


def test_nothing_is_not_salvaged(tmp_path: Path) -> None:
    (tmp_path / "lost.dat.cpu0").touch()
    (tmp_path / "lost.dat.cpu1").write_bytes(b"x" * 100)
    with pytest.raises(CaptureError, match="nothing to salvage"):
        salvage(tmp_path / "lost.dat", tmp_path / "saved.dat", path_of("loaded"))
    assert not (tmp_path / "saved.dat").exists()


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_planted_link_is_not_copied(tmp_path: Path, plant: object) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"root" * 4096)
    plant(tmp_path / "lost.dat.cpu0", secret)  # type: ignore[operator]
    with pytest.raises(CaptureError, match="link"):
        salvage(tmp_path / "lost.dat", tmp_path / "saved.dat", path_of("loaded"))
    assert not (tmp_path / "saved.dat").exists()


def test_the_output_is_not_written_through_a_link(tmp_path: Path) -> None:
    ((_, cpu), pages), *_ = pieces("loaded", tmp_path).items()
    (tmp_path / f"lost.dat.cpu{cpu}").write_bytes(pages[0])
    (tmp_path / "saved.dat").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CaptureError, match=r"saved.dat: exists"):
        salvage(tmp_path / "lost.dat", tmp_path / "saved.dat", path_of("loaded"))
    assert not (tmp_path / "elsewhere").exists()


def test_memory_does_not_grow_with_the_pieces(tmp_path: Path) -> None:
    def peak_kb(size: int) -> int:
        with (tmp_path / "lost.dat.cpu0").open("wb") as piece:
            piece.write(bytes(4096))
            os.truncate(piece.fileno(), size)
        words = f"salvage(Path({str(tmp_path / 'lost.dat')!r}), Path({str(tmp_path / 'a.dat')!r}), "
        words += f"Path({str(path_of('loaded'))!r}))"
        script = f"from pathlib import Path; from maceproc.tracedat.salvage import salvage; {words}"
        said = subprocess.check_output([sys.executable, "-c", f"{script}; {PEAK}"], text=True)
        (tmp_path / "a.dat").unlink()
        return int(said)

    assert peak_kb(64 << 20) < peak_kb(1 << 20) + 8 * 1024
