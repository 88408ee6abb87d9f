import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from maceproc.recording.container_files import file_digest, open_in_root


def opened(root: Path, path: str) -> bytes | None:
    held = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = open_in_root(held, path)
    finally:
        os.close(held)
    if fd is None:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A container's files; a secret lies beside them."""
    (tmp_path / "secret").write_text("the machine's")
    files = tmp_path / "root"
    (files / "bin").mkdir(parents=True)
    (files / "bin/ping").write_text("its own")
    return files


@pytest.mark.parametrize("target", ["/bin/ping", "ping", "../bin/ping", "../../../../bin/ping"])
def test_links_stay_in_the_container(root: Path, target: str) -> None:
    (root / "bin/link").symlink_to(target)
    assert opened(root, "/bin/link") == b"its own"


@pytest.mark.parametrize("target", ["../../secret", "/proc/self/exe", "/etc/passwd", "link"])
def test_what_is_not_in_the_container_is_not_opened(root: Path, target: str) -> None:
    (root / "bin/link").symlink_to(target)
    assert opened(root, "/bin/link") is None


def test_only_regular_files_are_opened(root: Path) -> None:
    os.mkfifo(root / "bin/pipe")  # opening it would wait for who writes
    assert opened(root, "/bin/pipe") is None
    assert opened(root, "/bin") is None
    assert opened(root, "/bin/\udcff") is None
    assert opened(root, "/dev/null") is None


@pytest.mark.kernel
def test_what_is_mounted_over_the_container_s_files_is_not_opened(root: Path) -> None:
    script = f"mount -t tmpfs none {root}/bin; echo x > {root}/bin/ping; sleep 60"
    argv = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(argv) as process:
        try:
            there = Path(f"/proc/{process.pid}/root{root}")
            while _text(there / "bin/ping") != "x\n":
                assert process.poll() is None
            assert opened(there, "/bin/ping") is None
        finally:
            process.kill()


def _text(path: Path) -> str:
    """Return a file's text; empty while it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""


def test_digest(root: Path, tmp_path: Path) -> None:
    assert file_digest(str(root / "bin/ping")) == hashlib.sha256(b"its own").hexdigest()
    assert file_digest(str(tmp_path / "nothing")) == ""
    os.truncate(root / "bin/ping", 65 << 20)
    assert file_digest(str(root / "bin/ping")) == ""
