"""The first steps that README and Getting started tell a newcomer to type.

`make test-newcomers` types all of them in fresh systems, which takes minutes. Here the installation
is typed in this system, without what pip would fetch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.fresh_system import ROOT, this_system
from tests.newcomers import README, SOURCE, docs_lines, readme_lines, section

INSTALLED = re.compile(r"^apt install (.* python3-venv)$", re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text()


def test_readme_and_docs_tell_to_install_the_same() -> None:
    packages = [INSTALLED.findall(lines) for lines in (readme_lines(), docs_lines())]
    assert packages[0] == packages[1]
    assert len(packages[0]) == 1


def test_the_packages_are_those_that_make_demo_installs() -> None:
    """All but those that a compiler needs, which is optional, and what Debian always has."""
    of_make = set(re.findall(r"([\w-]+)=(?:trace-cmd|ping|ip|iptables)\b", MAKEFILE))
    told = set(INSTALLED.findall(readme_lines())[0].split())
    assert told == of_make | {"python3-venv"}


def test_what_a_newcomer_types_is_whole() -> None:
    readme, docs = readme_lines(), docs_lines()
    assert readme.index("make demo") < readme.index("pip install") < readme.index("maceproc run")
    assert docs.index("pip install") < docs.index("maceproc record") < docs.index("import maceproc")
    for lines in (readme, docs):
        assert subprocess.run(["bash", "-n"], input=lines, text=True, check=False).returncode == 0


OWN_PYTHON = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"


def own_python_makes_environments() -> bool:
    argv = ["/usr/bin/python3", "-c", OWN_PYTHON]
    if not shutil.which(argv[0]):
        return False
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts an overlay")
@pytest.mark.skipif(not own_python_makes_environments(), reason="needs the system's python3-venv")
def test_the_installation_is_typed_in_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines as they are; pip is told by its environment to leave the dependencies out."""
    lines = section(README, "Install it").split("With pipx")[0]
    typed = "\n".join(re.findall(r"^    (\S.*)$", lines, re.MULTILINE))
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    try:
        with this_system() as system:
            system.bring_source(SOURCE)
            typed = typed.replace("apt install", "true apt install")  # `make test` has done that
            system.type(typed, directory=SOURCE)
            asked = "realpath /usr/local/bin/maceproc; ls /opt/maceproc/lib/python3*/site-packages"
            shown = system.type(asked).splitlines()
    except OSError as error:
        pytest.skip(f"no overlay of this system: {error}")
    except subprocess.CalledProcessError as error:
        if "No matching distribution found for setuptools" in error.output:
            pytest.skip("pip reaches no package index")
        pytest.fail(error.output)
    assert "/opt/maceproc/bin/maceproc" in shown
    assert "maceproc" in shown
