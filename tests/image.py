"""Build the image of the Dockerfile, and record with it as Getting started says: minutes.

    python -m tests.image

The official base image is not pulled: the same release of Debian is made here (see
`tests.fresh_system`). One engine builds, on the machine's network; the other runs, in a lab.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import maceproc
from tests.engine import Builder, Engine, started_builder, started_engine
from tests.fresh_system import ROOT, archive_of, pip_settings
from tests.newcomers import BLOCK, GETTING_STARTED, section

BASE = "maceproc-base"
IMAGE = "maceproc"


def documented() -> str:
    """Return the commands of Getting started that build the image and use it."""
    found = BLOCK.findall(section(GETTING_STARTED, "As an image"))
    return "\n".join(code for _, _, code in found)


def import_base(builder: Builder, directory: Path) -> None:
    """Import a minimal Debian as base image; its pip asks the index that this machine asks."""
    root = directory / "base"
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xf", str(archive_of("debian-13"))], check=True)
    pip = pip_settings()
    for place, file in pip.files.items():
        copy = root / place.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    # A build sees no directory of this machine, such as a second index that is one.
    options = [
        f"{name.removeprefix('PIP_').lower().replace('_', '-')} = {value}"
        for name, value in pip.environment.items()
        if not any(directory in value for directory in pip.directories)
    ]
    (root / "etc/pip.conf").write_text("\n".join(["[global]", *options, ""]))
    archive = directory / "base.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    builder.docker("import", str(archive), BASE)


def build(builder: Builder, command: str) -> None:
    """Build the image with the documented command; what differs here are base and network."""
    told = f"docker build --network host --build-arg BASE={BASE} "
    line = command.replace("docker build ", told)
    subprocess.run(["bash", "-ec", line], cwd=ROOT, env=builder.env, check=True)


@contextmanager
def moved(builder: Builder, engine: Engine, directory: Path) -> Iterator[None]:
    """Give the image from the engine that built it to the one that runs it."""
    archive = directory / "image.tar"
    builder.docker("save", "--output", str(archive), IMAGE)
    engine.docker("load", "--input", str(archive))
    archive.unlink()
    yield
    engine.docker("rmi", "--force", IMAGE)


def use(engine: Engine, commands: str, directory: Path) -> None:
    """Record in a container with the image, and analyze that; raise where something is missing."""
    socket = engine.env["DOCKER_HOST"].removeprefix("unix://")
    shorter = [
        ("/var/run/docker.sock:", f"{socket}:"),
        ("192.0.2.1", "192.0.2.2"),
        ("-c 100", "-c 20 -i 0.01"),
    ]
    for written, here in shorter:
        assert written in commands, written
        commands = commands.replace(written, here)
    with engine.container("web"):
        print(engine.shell(f"cd {directory}\n{commands}"))
    for name in ("trace.dat", "trace.dat.json", "trace.html"):
        assert (directory / name).stat().st_size, name
    rtts = maceproc.analyze(directory / "trace.dat").rtts
    own = rtts[rtts["arm"] == "container traced"]
    assert len(own) == 100
    assert (own["status"] == "corrected").mean() > 0.9, own["reason"].value_counts()


def main() -> int:
    """Build, record, analyze; return the exit status."""
    commands = documented()
    built, used = re.split(r"(?<=maceproc \.)\n", commands, maxsplit=1)
    with (
        tempfile.TemporaryDirectory(prefix="maceproc-image-") as place,
        started_engine() as engine,
    ):
        directory = Path(place)
        with started_builder(engine) as builder:
            import_base(builder, directory)
            build(builder, built)
            with moved(builder, engine, directory):
                captures = directory / "captures"
                captures.mkdir()
                use(engine, used, captures)
    print("image: built, and recorded with")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("DOCKER_BUILDKIT", "0" if shutil.which("docker-buildx") is None else "1")
    sys.exit(main())
