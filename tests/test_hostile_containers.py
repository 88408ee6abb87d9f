"""Containers that attack whoever records in them: nothing of theirs runs but by their engine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maceproc.capture_files import load_sidecar, sidecar_path
from maceproc.recording.output import OUTPUT_LIMIT_BYTES
from tests.engine import IMAGE, Engine, Podman

pytestmark = pytest.mark.kernel

REMOTE = "192.0.2.2"
PING = ("ping", "-i", "0.01", "-c", "5")

# A root outside of its container's pid namespace reaches the machine's files by its first process.
BREAK_OUT = """#!/bin/sh
busybox mkdir -p /tmp/proc
busybox mount -t proc proc /tmp/proc
for root in /proc/1/root /tmp/proc/1/root /proc/[0-9]*/root /tmp/proc/[0-9]*/root
do echo "$* ($(busybox id -u))" >> $root{canary}/owned
done
exec /bin/{program} "$@"
"""
CONFINED = {
    "plain": (),
    "no capabilities": ("--cap-drop=ALL", "--sysctl=net.ipv4.ping_group_range=0 2147483647"),
    "another user": ("--user=65534:65534",),
    "no new privileges": ("--security-opt=no-new-privileges",),
}


@contextmanager
def image_with_ping(
    engine: Engine, tmp_path: Path, script: str, *changes: str, also: str = ""
) -> Iterator[str]:
    """Import an image whose /usr/bin/ping is a script, and the true one beside it; gives its name.

    `changes` are what `docker import --change` takes; `also` is another place of the true one.
    """
    files = tmp_path / "files"
    files.mkdir()
    subprocess.run(["tar", "-C", str(files), "-xf", str(engine.archive(IMAGE))], check=True)
    (files / "usr/bin/ping").rename(files / "bin/true-ping")
    if also:
        place = files / also.lstrip("/")
        place.parent.mkdir(parents=True)
        shutil.copy(files / "bin/true-ping", place)
    (files / "usr/bin/ping").write_text(script)
    (files / "usr/bin/ping").chmod(0o755)
    (files / "tmp").mkdir(exist_ok=True)
    (files / "tmp").chmod(0o1777)
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", str(files), "-cf", str(archive), "."], check=True)
    name = f"hostile/{os.urandom(4).hex()}"
    engine.docker("import", *(f"--change={change}" for change in changes), str(archive), name)
    try:
        yield name
    finally:
        engine.docker("rmi", "--force", name)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory of the machine that anybody may write to, were he there."""
    place = tmp_path / "canary"
    place.mkdir()
    for directory in (place, *place.parents[:-2]):
        directory.chmod(0o777 if directory == place else 0o755)
    return place


@pytest.mark.parametrize("confined", CONFINED)
def test_no_ping_of_a_container_reaches_the_machine(
    engine: Engine, tmp_path: Path, canary: Path, confined: str
) -> None:
    script = BREAK_OUT.format(canary=canary, program="true-ping")
    trace = tmp_path / "trace.dat"
    with (
        image_with_ping(engine, tmp_path, script) as image,
        engine.container("hostile", *CONFINED[confined], image=image) as name,
    ):
        for words in (
            ("--container", name, "--", *PING, REMOTE),
            ("--", "docker", "run", *CONFINED[confined], image, *PING, REMOTE),
        ):
            done = engine.maceproc("record", "--rounds", "1", "-o", trace, "--force", *words)
            assert list(canary.iterdir()) == []
            assert done.returncode == 0, done.stderr
            made = load_sidecar(sidecar_path(trace))
            assert [run.arm for run in made.runs][:2] == ["container traced", "container untraced"]
            assert all("5 received" in run.output for run in made.runs)


def test_a_program_by_its_path_in_an_image_is_not_run_here(
    engine: Engine, tmp_path: Path, canary: Path
) -> None:
    trace, program = tmp_path / "trace.dat", tmp_path / "evil/ping"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $* >> {canary}/owned\n")
    program.chmod(0o755)
    entry = f'ENTRYPOINT ["{program}", "-i", "0.01", "-c", "5", "{REMOTE}"]'
    with image_with_ping(engine, tmp_path, "", entry, also=str(program)) as image:
        done = engine.maceproc("record", "--rounds", "1", "-o", trace, "--", "docker", "run", image)
    assert done.returncode == 0, done.stderr
    made = load_sidecar(sidecar_path(trace))
    assert made.runs[0].argv[0] == str(program)
    assert made.runs[-1].arm == "native untraced"
    assert "5 received" in made.runs[-1].output
    assert made.native is not None
    assert made.native.program == shutil.which("ping")
    assert list(canary.iterdir()) == []


@pytest.mark.parametrize("confined", ["plain", "no new privileges", "another user"])
def test_an_image_on_the_host_s_network_is_confined(
    engine: Engine, tmp_path: Path, canary: Path, confined: str
) -> None:
    told = 'grep -E "^(Uid|CapEff|NoNewPrivs|Seccomp):" /proc/self/status >&2\n'
    script = told + BREAK_OUT.format(canary=canary, program="true-ping")
    script = "#!/bin/sh\nbusybox " + script.removeprefix("#!/bin/sh\n")
    trace = tmp_path / "trace.dat"
    options = (*CONFINED[confined], "--cap-drop=MKNOD", "--read-only", "--tmpfs=/tmp")
    with (
        image_with_ping(engine, tmp_path, script) as image,
        engine.container("hostile", *options, image=image) as name,
    ):
        ping = ("--container", name, "--native", "image", "--", *PING, REMOTE)
        done = engine.maceproc("record", "--rounds", "1", "-o", trace, *ping)
        left = engine.docker("ps", "--all", "--quiet", "--filter", "name=maceproc-")
    assert done.returncode == 0, done.stderr
    assert left == ""
    assert list(canary.iterdir()) == []
    made = load_sidecar(sidecar_path(trace))
    if confined == "another user":  # on the host's network, pings are root's: it stays this user
        assert "the container's image cannot ping from the host's network" in " ".join(made.notes)
        assert made.native is None
        return
    runs = made.runs
    assert [run.arm for run in runs][-1] == "native untraced"
    inside, *_, native = (
        [line for line in run.errors.splitlines() if line[:4] in ("Uid:", "CapE", "NoNe", "Secc")]
        for run in runs
    )
    assert len(inside) == 4
    assert native == inside


def test_podman_runs_its_programs_itself(
    engine: Engine, podman: Podman, tmp_path: Path, canary: Path
) -> None:
    trace = tmp_path / "trace.dat"
    script = BREAK_OUT.format(canary=canary, program="true-ping")
    with image_with_ping(engine, tmp_path, script):
        podman("import", str(tmp_path / "image.tar"), "hostile")
    with podman.container("hostile", "--cap-drop=MKNOD", image="hostile") as name:
        for choice in ("host", "image"):
            words = ("--container", name, "--native", choice, "--", *PING, REMOTE)
            done = engine.maceproc(
                "record", "--rounds", "1", "-o", trace, "--force", *words, env=podman.env
            )
            assert done.returncode == 0, done.stderr
            made = load_sidecar(sidecar_path(trace))
            assert made.native is not None
            assert (made.native.by, made.runs[-1].arm) == (choice, "native untraced")
            assert list(canary.iterdir()) == []


ENDLESS_VERSION = """#!/bin/sh
case "$*" in *-V*) {instead} ;; esac
exec /bin/true-ping "$@"
"""


def refused(engine: Engine, trace: Path, *words: str) -> str:
    done = engine.maceproc("record", "--rounds", "1", "-o", trace, *words)
    assert done.returncode
    assert done.stderr.startswith("maceproc: ")
    assert done.stderr.count("\n") == 1
    assert not trace.exists()
    return done.stderr


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        ("while :; do busybox sleep 1; done", "did not end within 10 s"),
        ("while :; do echo ping from iputils; done", "printed more than 64 KiB"),
    ],
)
def test_a_version_without_end(engine: Engine, tmp_path: Path, instead: str, why: str) -> None:
    script = ENDLESS_VERSION.format(instead=instead)
    with (
        image_with_ping(engine, tmp_path, script) as image,
        engine.container("endless", image=image) as name,
    ):
        said = refused(engine, tmp_path / "a.dat", "--container", name, "--", *PING, REMOTE)
        assert f"`ping -V` in container 'endless' {why}" in said
        assert "ping" not in engine.docker("top", name)


def test_a_ping_that_prints_without_end(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    script = '#!/bin/sh\ncase "$*" in *-V*) exit 0 ;; esac\nexec busybox yes "64 bytes from me"\n'
    with (
        image_with_ping(engine, tmp_path, script) as image,
        engine.container("chatty", image=image) as name,
    ):
        ping = ("--no-baseline", "--container", name, "--", *PING, REMOTE)
        done = engine.maceproc("record", "--rounds", "1", "-o", trace, *ping)
        (run,) = load_sidecar(sidecar_path(trace)).runs
        assert run.cut
        assert len(run.output) == OUTPUT_LIMIT_BYTES
        assert "yes" not in engine.docker("top", name)
    assert done.returncode in (0, 70), done.stderr
    found = engine.maceproc("analyze", trace)
    assert "1 of 1 runs printed more than is kept" in found.stdout + found.stderr
