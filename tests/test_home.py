"""A release names the repository that it is published from; the sources name none."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOME = "https://host.example/owner/name"
FILES = ("pyproject.toml", "CITATION.cff", "README.md", "docs/home.py")
PUBLISHED = "[project.urls]" in (ROOT / "pyproject.toml").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if PUBLISHED:
        pytest.skip("this is an sdist, which names its home")
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def write_home(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(checkout / "docs/home.py"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_release_names_its_home_in_every_place(checkout: Path) -> None:
    assert write_home(checkout, f"{HOME}/", "--ref", "v1.2.3").returncode == 0
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Homepage"] == HOME
    assert all(url.startswith(HOME) for url in project["urls"].values())
    assert project["scripts"]["maceproc"]
    assert f'repository-code: "{HOME}"\n' in (checkout / "CITATION.cff").read_text()
    readme = (checkout / "README.md").read_text()
    links = re.findall(r"\]\((\S+?)\)", readme)
    assert [link for link in links if "://" not in link] == []
    assert f"]({HOME}/raw/v1.2.3/docs/page.png)" in readme  # a picture: its bytes, not its page
    for link in (link for link in links if link.startswith(HOME)):
        path = link.removeprefix(f"{HOME}/").split("/", 2)[2].partition("#")[0]
        assert (ROOT / path).is_file(), link


def test_a_home_is_written_once_and_is_an_address(checkout: Path) -> None:
    refused = write_home(checkout, "somewhere", "--ref", "v1")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert write_home(checkout, HOME, "--ref", "v1").returncode == 0
    again = write_home(checkout, HOME, "--ref", "v1")
    assert again.returncode == 1
    assert "names a home already" in again.stderr
