import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.recording import entrances
from maceproc.recording.bounded import run_bounded
from maceproc.recording.engines import Container
from maceproc.recording.entrances import MARK, EngineExec
from maceproc.recording.output import is_full, make_output, printed_text
from maceproc.recording.record import Interruption


def test_what_a_program_prints() -> None:
    done = run_bounded(["sh", "-c", "echo out; echo error >&2; printf '\\377'; exit 3"])
    assert (done.returncode, done.stdout, done.stderr, done.ended) == (
        3, "out\n\\xff", "error\n", "",
    )  # fmt: skip


@pytest.mark.parametrize("redirected", ["", ">&2"])
def test_a_program_that_prints_without_end(redirected: str) -> None:
    done = run_bounded(["sh", "-c", f"yes {redirected}"], limit_bytes=3000)
    assert done.ended == "printed more than 2 KiB"
    assert len(done.stdout + done.stderr) == 3000


@pytest.mark.parametrize(
    "script",
    ["sleep 60", "sleep 60 &", "trap '' TERM; sleep 60", "exec >&- 2>&-; sleep 60"],
)
def test_a_program_that_does_not_end(script: str) -> None:
    began = time.monotonic()
    mark = f"mark-{os.urandom(8).hex()}"
    done = run_bounded(["env", f"{mark}=", "sh", "-c", script], timeout_s=0.3)
    assert done.ended or done.returncode < 0
    assert time.monotonic() - began < 30
    assert not [
        path for path in Path("/proc").glob("[0-9]*/environ") if mark.encode() in environment(path)
    ]


def environment(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@given(st.binary(max_size=300), st.integers(1, 200))
def test_output_is_kept_up_to_its_limit(printed: bytes, limit: int) -> None:
    fd = make_output("test", limit)
    done = subprocess.run(["cat"], input=printed, stdout=fd, stderr=subprocess.PIPE, check=False)
    assert (done.returncode != 0) == (len(printed) > limit)
    assert printed_text(fd) in (printed[:limit].decode(errors="replace"), "")
    assert is_full(fd) or len(printed) != limit


@pytest.mark.parametrize("script", ["exec sleep 60", "trap '' INT TERM; exec sleep 60"])
def test_a_recorded_command_that_takes_longer_than_it_may(script: str) -> None:
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.DEVNULL) as process:
        watched = Interruption().watching(process, process.pid)
        with watched as running, running.no_longer_than(0.2):
            assert process.wait(30) == -signal.SIGKILL


def test_a_recorded_command_within_its_time_is_left_alone() -> None:
    with subprocess.Popen(["true"]) as process:
        watched = Interruption().watching(process, process.pid)
        with watched as running, running.no_longer_than(60):
            assert process.wait(30) == 0


def test_an_environment_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process can put a file that is never served where its environment is: see `_in_time`."""
    forever = threading.Event()
    monkeypatch.setattr(entrances, "START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(entrances, "CLOSING_TIME_S", 0.1)
    monkeypatch.setattr(entrances, "processes", lambda _: [os.getpid()])
    monkeypatch.setattr(EngineExec, "_is_marked", lambda *_: not forever.wait())
    inside = EngineExec(Container("docker", "0" * 12, "web", pid=1))
    with subprocess.Popen(["sleep", "60"]) as engine:
        assert inside.find_pid(engine) is None
        inside.end()
        engine.kill()
    forever.set()


# Overwrites its environment, so that no variable in it has an end. proc(5): env_start, env_end
NO_END = """
import ctypes, time
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, ord("A"), end - start)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_environments_of_a_hostile_container(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = EngineExec(Container("docker", "0" * 12, "web", pid=0))
    mark = {MARK: inside.mark}
    many = {f"V{number}": "x" for number in range(50_000)}
    pretended = {f"NO{MARK}": inside.mark, "LINES": f"\n{MARK}={inside.mark}\n"}
    hostile = [many, {"V": "x" * 100_000}, pretended]
    with contextlib.ExitStack() as running:

        def start(*argv: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE)
            running.enter_context(process)
            running.callback(process.kill)
            return process

        others = [start("/bin/sleep", "60", env=env) for env in hostile]
        others.append(start(sys.executable, "-c", NO_END, env=many))
        assert others[-1].stdout is not None
        assert others[-1].stdout.readline() == b"ready\n"
        command = start("/bin/sleep", "60", env={**many, **mark, "W": "x" * 100_000})
        engine = start("/bin/sleep", "60", env={})
        pids = [*(process.pid for process in others), command.pid]
        monkeypatch.setattr(entrances, "processes", lambda _: pids)
        assert inside.find_pid(engine) == command.pid
        inside.end()
        assert command.wait() == -signal.SIGKILL
        assert all(process.poll() is None for process in others)


def test_what_a_container_started_itself_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    container = Container("docker", "0" * 12, "web", pid=0)
    inside = EngineExec(container)
    marked = os.environ | {MARK: inside.mark}
    looked_at: list[int] = []
    look = EngineExec._is_marked

    def is_marked(self: EngineExec, pid: int) -> bool:
        looked_at.append(pid)
        return look(self, pid)

    monkeypatch.setattr(EngineExec, "_is_marked", is_marked)
    script = "sleep 60 & echo $!; wait"
    with (
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, env=marked) as first,
        subprocess.Popen(["sleep", "60"], env=marked) as command,
        subprocess.Popen(["sleep", "60"]) as engine,
    ):
        assert first.stdout is not None
        child = int(first.stdout.readline())
        inside = replace(inside, container=replace(container, pid=first.pid))
        members = [first.pid, child, command.pid]
        monkeypatch.setattr(entrances, "processes", lambda _: members)
        assert inside.find_pid(engine) == command.pid
        assert set(looked_at) == {command.pid}
        inside.end()  # all that has the mark
        assert [process.wait() for process in (first, command)] == [-signal.SIGKILL] * 2
        engine.kill()
