"""Fresh Debian and Ubuntu systems in a directory, in which tests type what a newcomer types.

A system is made by mmdebstrap(1) from the distribution's own archive, and kept as a tar archive in
``build/systems``, so that the next run unpacks it. Commands run in it under chroot(2), in a mount
namespace of their own, on the network of the machine: nothing outside the directory changes, and
nothing stays mounted.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
SYSTEMS = ROOT / "build/systems"
NOT_SOURCE = (".git", ".venv", "build", "*.egg-info", "*.so", "__pycache__", ".*_cache")


class System(NamedTuple):
    """A release of a distribution, and where it is had from."""

    suite: str
    mirror: str
    components: str
    keyring: str
    keyring_package: str  # of Debian 13, where this machine does not have the keyring


DEBIAN = ("http://deb.debian.org/debian", "main")
DEBIAN_KEYS = ("debian-archive-keyring.gpg", "debian-archive-keyring")
UBUNTU = ("http://archive.ubuntu.com/ubuntu", "main,universe")
UBUNTU_KEYS = ("ubuntu-archive-keyring.gpg", "ubuntu-keyring")
FRESH = {
    "debian-12": System("bookworm", *DEBIAN, *DEBIAN_KEYS),
    "debian-13": System("trixie", *DEBIAN, *DEBIAN_KEYS),
    "ubuntu-24.04": System("noble", *UBUNTU, *UBUNTU_KEYS),
}
KEYRINGS = Path("/usr/share/keyrings")

# What enters a root: $1 is the root, the next words, up to "--", are directories of this machine to
# show in it, the rest is the command. The root is mounted on itself: programs inside remount "/",
# which must be a mount point.
ENTER = """
set -e
root=$1; shift
mount --bind "$root" "$root"
cd "$root"
for name in dev proc sys; do mount --rbind --make-rslave "/$name" "$root/$name"; done
for name in run tmp; do mount -t tmpfs tmpfs "$root/$name"; done
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
    shift
done
shift
exec chroot . "$@"
"""


class FreshSystem:
    """A system in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def type(self, lines: str, *, directory: str = "/", timeout_s: float = 600) -> str:
        """Type lines into a shell; return all that is shown.

        Raises
        ------
        subprocess.CalledProcessError
            A line failed; the error's output ends with it.
        """
        pip = pip_settings()
        for place, file in pip.files.items():
            copy = self.root / place.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        environment = {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM": "dumb",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        unshare = ["unshare", "--mount", "--fork", "--kill-child"]
        enter = ["sh", "-c", ENTER, "enter", str(self.root), *pip.directories, "--"]
        # In a file, not on standard input: what is typed may read that.
        script = self.root / "root/typed.sh"
        script.write_text(f"set -e; cd {shlex.quote(directory)}; set -v\n{lines}\n")
        done = subprocess.run(
            [*unshare, *enter, "bash", "/root/typed.sh"],
            env=environment | pip.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=timeout_s,
        )
        return done.stdout

    def bring_source(self, directory: str) -> None:
        """Copy the project's source into the system, without what is built from it."""
        ignore = shutil.ignore_patterns(*NOT_SOURCE)
        shutil.copytree(ROOT, self.root / directory.lstrip("/"), ignore=ignore)


@contextmanager
def fresh_system(name: str) -> Iterator[FreshSystem]:
    """Give a system that nobody has used, in a directory that is removed afterwards."""
    archive = archive_of(name)
    with TemporaryDirectory(prefix="maceproc-system-", dir=SYSTEMS) as place:
        root = Path(place) / "root"
        root.mkdir()
        subprocess.run(["tar", "-C", str(root), "-xf", str(archive)], check=True)
        (root / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text())
        # What a newcomer answers when apt asks.
        (root / "etc/apt/apt.conf.d/90yes").write_text('APT::Get::Assume-Yes "true";\n')
        yield FreshSystem(root)


@contextmanager
def this_system() -> Iterator[FreshSystem]:
    """Give this machine's own system, whose files can be changed without changing the machine's.

    Raises
    ------
    OSError
        Its file system cannot lie below an overlay.
    """
    with TemporaryDirectory(prefix="maceproc-overlay-") as place:
        # On a tmpfs: the machine's own file system may be an overlay, which cannot be the upper.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
        try:
            upper, work, root = (Path(place) / name for name in ("upper", "work", "root"))
            for directory in (upper, work, root):
                directory.mkdir()
            options = f"lowerdir=/,upperdir={upper},workdir={work}"
            mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(root)]
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(done.stderr.strip())
            try:
                yield FreshSystem(root)
            finally:
                subprocess.run(["umount", str(root)], check=True)
        finally:
            subprocess.run(["umount", place], check=True)


def archive_of(name: str) -> Path:
    """Return the tar archive of a minimal system; make it where it is not there yet."""
    system = FRESH[name]
    archive = SYSTEMS / f"{name}.tar"
    if not archive.exists():
        SYSTEMS.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_suffix(".unfinished.tar")
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=apt", "--mode=root"]
        argv += [f"--components={system.components}", f"--keyring={_keyring(system)}"]
        subprocess.run([*argv, system.suite, str(unfinished), system.mirror], check=True)
        unfinished.rename(archive)
    return archive


def _keyring(system: System) -> Path:
    """Return the file that the archive's signature is checked with."""
    if (KEYRINGS / system.keyring).exists():
        return KEYRINGS / system.keyring
    kept = SYSTEMS / system.keyring
    if not kept.exists():
        with fresh_system("debian-13") as debian:
            package = system.keyring_package
            debian.type(
                f"apt-get update -qq; cd /root; apt-get download {package}; dpkg -x *.deb ."
            )
            shutil.copy(debian.root / "root/usr/share/keyrings" / system.keyring, kept)
    return kept


class PipSettings(NamedTuple):
    """How pip is set up on this machine, so that a fresh system asks the same package index."""

    environment: dict[str, str]
    directories: list[str]  # that the settings name
    files: dict[str, Path]  # where the settings expect a file, and which of this machine it is


def pip_settings() -> PipSettings:
    """Ask pip for its settings; return them as environment variables."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.partition(".")
        if section == "global":
            settings.setdefault(f"PIP_{option.upper().replace('-', '_')}", value.strip("'\""))
    directories: set[str] = set()
    files: dict[str, Path] = {}
    for name, value in settings.items():
        words = value.split()
        for at, word in enumerate(words):
            path = Path(urlsplit(word).path)
            if path.is_absolute() and path.is_dir() and word.startswith(("/", "file:")):
                # An index names files beside itself.
                directories.add(str(path.parent if word.startswith("file:") else path))
            elif word.startswith("/") and path.is_file():
                words[at] = f"/srv/pip/{path.name}"
                files[words[at]] = path
        settings[name] = " ".join(words)
    return PipSettings(settings, sorted(directories), files)
