"""A Docker Engine for tests: its own daemon, in a lab's host namespace; nothing is pulled.

Podman, which has no daemon, can join it there, with storage of its own.

    container of the engine      host (dockerd, maceproc)          remote
    eth0 ----------------- veth... - docker0 - (NAT) - eth0 ------ wire0
    172.28.0.x                     172.28.0.1    192.0.2.1         192.0.2.2

Networks that a test makes get subnets of 172.29.0.0/16.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from maceproc.recording.lab import Lab

IMAGE = "maceproc/ping"  # busybox, and iputils ping
BUSYBOX_IMAGE = "maceproc/busybox"  # busybox and its ping; in no image is there a fping
SUBNET_IPV6 = "fd6d:6163:6500:28::/64"
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
APPLETS = ("sh", "sleep", "cat", "ip", "true")

CGROUP_OF_PODMAN = "libpod_parent"  # without systemd

PROGRAMS = ("dockerd", "docker", "busybox", "ping", "iptables", "ip6tables")


class NoEngineError(Exception):
    """No container engine can be started here."""


class Engine:
    """A running Docker Engine, and maceproc beside it."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.host = lab.netns("host")
        self._directory = directory
        # containerd takes it as the name of its namespace: no two underscores, none at the end.
        self._cgroup = f"maceproc-test-{secrets.token_hex(6)}"
        self._configuration = "{}"  # not the machine's own
        self._log: IO[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self.env = os.environ | {
            "DOCKER_HOST": f"unix://{directory}/docker.sock",
            "DOCKER_CONFIG": str(directory / "config"),
        }

    def __enter__(self) -> Engine:
        self._log = (self._directory / "log").open("wb")
        try:
            self._start()
            self._import_images()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._daemon is not None
        with suppress(subprocess.CalledProcessError):
            left = self.docker("ps", "--all", "--quiet").split()
            if left:
                self.docker("rm", "--force", *left)
        self._stop()
        if self._log:
            self._log.close()
        # A container on the host's network leaves this mounted.
        for namespace in (self._directory / "run/netns").glob("*"):
            subprocess.run(["umount", str(namespace)], capture_output=True, check=False)
        # A daemon with live-restore leaves its storage mounted.
        subprocess.run(["umount", self._directory / "data"], capture_output=True, check=False)
        for cgroup in Path("/sys/fs/cgroup").glob(f"**/{self._cgroup}"):
            with suppress(OSError):
                cgroup.rmdir()

    def _start(self) -> None:
        # nsenter, not `ip netns exec`: that hides /sys, and with it the cgroups.
        self._daemon = subprocess.Popen(
            self._in_host(self._dockerd()), stdout=self._log, stderr=self._log, process_group=0
        )
        self._wait_until_it_answers()

    def _stop(self) -> None:
        assert self._daemon is not None
        self._daemon.terminate()
        try:
            self._daemon.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have no daemon while the block runs; it is started again afterwards.

        Its containers end with it; those with the policy ``--restart always`` come back with it.
        """
        self._stop()
        try:
            yield
        finally:
            self._start()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Have the daemon killed while the block runs; it is started again afterwards.

        Its containers go on, and belong to the new daemon (``live-restore``).
        """
        assert self._daemon is not None
        containerd = (self._directory / "run/containerd/containerd.pid").read_text()
        self._daemon.kill()
        self._daemon.wait()
        # It is killed with the daemon, but later; a new daemon would still take it for its own.
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while Path("/proc", containerd).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield
        finally:
            self._configuration = '{"live-restore": true}'
            self._start()
            self._configuration = "{}"

    def docker(self, *words: str) -> str:
        """Run the docker command; return what it prints, without the last line's end."""
        return self._docker(words).stdout.rstrip()

    @contextmanager
    def container(self, name: str, *options: str, image: str = IMAGE) -> Iterator[str]:
        """Run a container that sleeps, as long as the block runs; gives its name."""
        try:
            # Where it cannot be started, it is there all the same.
            self.docker("run", "--detach", "--name", name, *options, image, "sleep", "600")
            yield name
        finally:
            with suppress(subprocess.CalledProcessError):  # the test may have removed it
                self.docker("rm", "--force", name)

    @contextmanager
    def network(self, name: str, *options: str) -> Iterator[str]:
        """Make a network, as long as the block runs; gives its name."""
        self.docker("network", "create", *options, name)
        try:
            yield name
        finally:
            self.docker("network", "rm", name)

    def pid(self, name: str) -> int:
        """Return the pid of a container's first process."""
        return int(self.docker("inspect", "--format", "{{.State.Pid}}", name))

    def maceproc(
        self, *words: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run maceproc on the engine's host, as its user would."""
        argv = self.maceproc_argv(*words)
        return subprocess.run(
            argv, env=env or self.env, capture_output=True, text=True, check=False
        )

    def maceproc_argv(self, *words: str | Path) -> list[str]:
        """Return the command line that runs maceproc on the engine's host."""
        return self._in_host([sys.executable, "-m", "maceproc", *map(str, words)])

    def shell(self, script: str, role: str = "host") -> str:
        """Run a shell script in a namespace of the lab; return what it prints."""
        argv = ["nsenter", f"--net=/run/netns/{self.lab.netns(role)}", "sh", "-ec", script]
        return _said(argv, self.env)

    def _in_host(self, argv: list[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.host}", "--", *argv]

    def _dockerd(self) -> list[str]:
        place = self._directory
        (place / "daemon.json").write_text(self._configuration)
        return [
            "dockerd",
            f"--config-file={place}/daemon.json",
            f"--host=unix://{place}/docker.sock",
            f"--pidfile={place}/pid",
            f"--data-root={place}/data",
            f"--exec-root={place}/run",
            f"--containerd-namespace={self._cgroup}",
            f"--cgroup-parent={self._cgroup}",
            # Docker's own default is refused where the machine allows less.
            "--default-ulimit=nofile=1024:1024",
            "--exec-opt=native.cgroupdriver=cgroupfs",  # also where systemd runs
            *self._storage_and_networks(),
        ]

    def _storage_and_networks(self) -> list[str]:
        return [
            "--storage-driver=vfs",
            "--bip=172.28.0.1/24",
            "--default-address-pool=base=172.29.0.0/16,size=24",
            "--ipv6",
            f"--fixed-cidr-v6={SUBNET_IPV6}",
            "--experimental",  # of which IPv6 NAT was a part, up to version 26
            "--ip6tables",
        ]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._docker(["info"], check=False).returncode:
            if self._daemon is None or self._daemon.poll() is not None:
                raise NoEngineError(f"dockerd ended: {self._last_words()}")
            if time.monotonic() > deadline:
                raise NoEngineError(f"dockerd does not answer: {self._last_words()}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        said = (self._directory / "log").read_text(errors="replace").splitlines()
        return said[-1] if said else "it said nothing"

    def _docker(
        self, words: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        argv = ["docker", *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            sys.stderr.write(done.stderr)  # the test's report shows it
            raise subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        return done

    def _import_images(self) -> None:
        for image, programs in ((IMAGE, ["ping"]), (BUSYBOX_IMAGE, [])):
            archive = self._directory / f"{image.replace('/', '-')}.tar"
            files = archive.with_suffix("")
            _make_image(files, programs)
            subprocess.run(["tar", "-C", str(files), "-cf", str(archive), "."], check=True)
            self.docker("import", str(archive), image)

    def archive(self, image: str) -> Path:
        """Return the file that an image was imported from."""
        return self._directory / f"{image.replace('/', '-')}.tar"


class Builder(Engine):
    """An engine on the machine's own network, where a build can fetch packages.

    It makes no network of its own and no rules: what it runs has the host's network or none.
    """

    def _in_host(self, argv: list[str]) -> list[str]:
        return argv

    def _storage_and_networks(self) -> list[str]:
        return ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]

    def _import_images(self) -> None:
        pass


class Podman:
    """Podman on the engine's host: its images, containers and networks apart from the machine's."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self.env = {name: value for name, value in engine.env.items() if name != "DOCKER_CONFIG"}
        self.env |= {
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
        }

    def __enter__(self) -> Podman:
        place = self._directory
        (place / "storage.conf").write_text(
            f"""
            [storage]
            driver = "vfs"
            graphroot = "{place}/root"
            runroot = "{place}/run"
            """
        )
        # Without systemd; limits that the machine may not raise.
        (place / "containers.conf").write_text(
            f"""
            [network]
            network_config_dir = "{place}/networks"
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "none"
            tmp_dir = "{place}/tmp"
            volume_path = "{place}/volumes"
            [containers]
            default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
            """
        )
        try:
            self("import", str(self._engine.archive(IMAGE)), IMAGE)
            self("run", "--rm", IMAGE, "true")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            said = error.stderr.strip().splitlines() or ["it said nothing"]
            raise NoEngineError(f"podman: {said[-1]}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(subprocess.CalledProcessError):
            self("rm", "--all", "--force")
        for cgroup in Path("/sys/fs/cgroup").glob(f"**/{CGROUP_OF_PODMAN}"):
            for empty in (cgroup / "conmon", cgroup):
                with suppress(OSError):  # somebody else has containers
                    empty.rmdir()

    @contextmanager
    def container(self, name: str, *options: str, image: str = IMAGE) -> Iterator[str]:
        """Run a container that sleeps, as long as the block runs; gives its name."""
        try:
            self("run", "--detach", "--name", name, *options, image, "sleep", "600")
            yield name
        finally:
            self("rm", "--force", "--ignore", name)

    def __call__(self, *words: str) -> str:
        """Run the podman command; return what it prints, without the last line's end."""
        argv = ["nsenter", f"--net=/run/netns/{self._engine.host}", "--", "podman", *words]
        return _said(argv, self.env).rstrip()


def _said(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a program and return what it printed; if it fails, the error tells what it said."""
    try:
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(f"it said: {error.stderr.strip() or 'nothing'}")
        raise


@contextmanager
def started_podman(engine: Engine) -> Iterator[Podman]:
    """Give Podman beside an engine; NoEngineError tells why it cannot be."""
    if shutil.which("podman") is None:
        raise NoEngineError("not installed: podman")
    with (
        tempfile.TemporaryDirectory(prefix="maceproc-podman-") as directory,
        Podman(engine, Path(directory)) as podman,
    ):
        yield podman


@contextmanager
def mounted_cgroups() -> Iterator[None]:
    """Mount the control groups that an engine needs, where no init has done that."""
    if " cgroup" in Path("/proc/self/mounts").read_text():
        yield
        return
    place = Path("/sys/fs/cgroup")
    _mount("tmpfs", place)
    # Columns of /proc/cgroups: name, hierarchy, number of groups, enabled.
    listed = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()[1:]]
    mounted = [name for name, *_, on in listed if on == "1" and _mount("cgroup", place / name)]
    if not mounted:  # a kernel without version 1
        _mount("cgroup2", place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--recursive", str(place)], check=False)


def _mount(kind: str, place: Path) -> bool:
    place.mkdir(exist_ok=True)
    options = ["-o", place.name] if kind == "cgroup" else []
    argv = ["mount", "-t", kind, *options, kind, str(place)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@contextmanager
def started_engine(remote: Literal["kernel", "program"] = "kernel") -> Iterator[Engine]:
    """Give an engine; NoEngineError tells why there can be none."""
    if os.geteuid() != 0:
        raise NoEngineError("not root")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise NoEngineError(f"not installed: {', '.join(missing)}")
    with (
        tempfile.TemporaryDirectory(prefix="maceproc-engine-") as directory,
        mounted_cgroups(),
        Lab(remote=remote) as lab,
        Engine(lab, Path(directory)) as engine,
    ):
        yield engine


@contextmanager
def started_builder(beside: Engine) -> Iterator[Builder]:
    """Give an engine that builds images, as another one runs them."""
    with (
        tempfile.TemporaryDirectory(prefix="maceproc-builder-") as directory,
        Builder(beside.lab, Path(directory)) as builder,
    ):
        yield builder


def _make_image(files: Path, programs: list[str]) -> None:
    """Lay out an image: busybox with some applets, and programs of this machine."""
    (files / "bin").mkdir(parents=True)
    (files / "etc").mkdir()
    _copy(_which("busybox"), files / "bin/busybox")
    for applet in APPLETS if programs else (*APPLETS, "ping"):
        (files / "bin" / applet).symlink_to("busybox")
    for program in programs:
        path = _which(program)
        _copy(path, files / "usr/bin" / program)
        for library in _libraries(path):
            _copy(library, files / str(library).lstrip("/"))


def _which(program: str) -> Path:
    return Path(shutil.which(program) or program)


def _libraries(program: Path) -> list[Path]:
    """Return the shared libraries of a program, as ldd(1) lists them."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    words = (word for line in listed.stdout.splitlines() for word in line.split())
    return [Path(word) for word in words if word.startswith("/")]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
