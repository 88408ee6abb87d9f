"""The smallest installation that records: an environment with what docs/fleet.md installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest

import maceproc
from tests.tracing import can_record

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "fleet.md").read_text()
NAME = re.compile(r"[A-Za-z0-9_.-]+")


def installed_by_guide() -> set[str]:
    """Return the packages that the guide's second pip command brings, with what they require."""
    (line,) = re.findall(r"^/opt/maceproc/bin/pip install ('click.*)$", GUIDE, re.MULTILINE)
    waiting = [NAME.match(word.strip("'"))[0] for word in line.split()]  # type: ignore[index]
    found: set[str] = set()
    while waiting:
        name = waiting.pop().lower()
        if name not in found:
            found.add(name)
            needed = [r for r in requires(name) or () if ";" not in r]
            waiting += [NAME.match(r)[0] for r in needed]  # type: ignore[index]
    return found


def install(name: str, site: Path) -> int:
    """Copy an installed package into another environment; return its size [bytes]."""
    size = 0
    for file in distribution(name).files or ():
        source = Path(str(distribution(name).locate_file(file)))
        if ".." in file.parts or not source.is_file() or file.suffix == ".pyc":
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        size += source.stat().st_size
    return size


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An environment's interpreter, and how much its packages have [bytes]."""
    directory = tmp_path_factory.mktemp("smallest")
    venv.create(directory, with_pip=False)
    (site,) = directory.glob("lib/python*/site-packages")
    size = sum(install(name, site) for name in installed_by_guide())
    own = [path for path in (ROOT / "maceproc").rglob("*") if path.suffix not in (".pyc", ".so")]
    for path in own:
        if path.is_file():
            target = site / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            size += path.stat().st_size
    return directory / "bin" / "python", size


def run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(python), *words], capture_output=True, text=True, check=False, env=environment,
        cwd=python.parent,
    )  # fmt: skip


def test_it_is_as_small_as_is_told(smallest: tuple[Path, int]) -> None:
    python, size = smallest
    for name in ("numpy", "pandas", "scipy", "jinja2"):
        assert run(python, "-c", f"import {name}").returncode != 0, name
    (told,) = re.findall(r"That is (\d+) MB of Python packages", GUIDE)
    assert size / 1e6 == pytest.approx(int(told), abs=3)


@pytest.mark.kernel
@pytest.mark.skipif(not can_record, reason="needs root and trace-cmd")
def test_it_records_what_the_whole_analyzes(smallest: tuple[Path, int], tmp_path: Path) -> None:
    python, _ = smallest
    trace = tmp_path / "t.dat"
    words = ["record", "--lab", "--rounds", "1", "--no-baseline", "-o", str(trace)]
    words += ["--", "ping", "-i", "0.02", "-c", "20"]
    done = run(python, "-m", "maceproc", *words)
    assert done.returncode == 0, done.stderr
    analysis = maceproc.analyze(trace)
    own = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    assert len(own) == 20
    assert (own["status"] == "corrected").sum() >= 10


def test_what_needs_more_says_so_in_one_line(smallest: tuple[Path, int], tmp_path: Path) -> None:
    done = run(smallest[0], "-m", "maceproc", "analyze", str(ROOT / "captures" / "native.dat"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
