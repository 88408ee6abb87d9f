"""Type the first steps of README and of Getting started in fresh systems, as a newcomer does.

    python -m tests.newcomers                      # all systems: minutes, most of them installing
    python -m tests.newcomers debian-13 --docs     # one of them, one of the two

Every line is typed as it is written there, by root, in the directory of the source; nothing is
shortened. What is set from outside is which package index pip asks, and that apt's question is
answered with yes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fresh_system import FRESH, ROOT, FreshSystem, fresh_system

SOURCE = "/root/maceproc"  # where the newcomer has unpacked it
README = (ROOT / "README.md").read_text()
GETTING_STARTED = (ROOT / "docs/getting-started.md").read_text()
PYTHON = "/opt/maceproc/bin/python"
BLOCK = re.compile(r"^```(sh|python)(?: title=\"(.*?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Of Getting started: what needs no container engine and no trace that is not there yet.
DOCS_SECTIONS = ("Getting started", "In the lab, without any container", "One ping", "In Python")


def section(text: str, heading: str) -> str:
    """Return what follows a heading of Markdown, up to the next of its kind."""
    pattern = rf"^##? {re.escape(heading)}[^\n]*\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def readme_lines() -> str:
    """Return what the README tells a newcomer to type: Try it, and Install it."""
    typed = section(README, "Try it") + section(README, "Install it")
    return "\n".join(re.findall(r"^    (\S.*)$", typed, re.MULTILINE))


def docs_lines() -> str:
    """Return what Getting started tells a newcomer to type, its Python as a script of its own."""
    blocks = [
        found.groups()
        for heading in DOCS_SECTIONS
        for found in BLOCK.finditer(section(GETTING_STARTED, heading))
    ]
    python = f"{PYTHON} - <<'END'\n{{}}END"
    return "\n".join(
        code if language == "sh" else python.format(code) for language, _, code in blocks
    )


def left_by_readme(system: FreshSystem) -> None:
    """Raise where the README's lines did not leave what they say."""
    for name in ("build/demo/trace.dat", "trace.dat", "trace.dat.json", "trace.html"):
        assert (system.root / SOURCE.lstrip("/") / name).stat().st_size, name


def left_by_docs(system: FreshSystem) -> None:
    """Raise where Getting started's lines did not leave what they say."""
    for name in ("trace.dat", "trace.dat.json"):
        assert (system.root / SOURCE.lstrip("/") / name).stat().st_size, name


GUIDES = {"readme": (readme_lines, left_by_readme), "docs": (docs_lines, left_by_docs)}


def try_out(name: str, guide: str) -> bool:
    """Type a guide's lines in a system; print how that went, and what was shown if it failed."""
    lines, check = GUIDES[guide]
    began = time.monotonic()
    try:
        with fresh_system(name) as system:
            system.bring_source(SOURCE)
            # A fresh system of ours knows no packages yet; an installed one does.
            system.type("apt-get update -qq")
            shown = system.type(lines(), directory=SOURCE)
            check(system)
    except subprocess.CalledProcessError as error:
        print(error.output)
        print(f"{name} {guide}: failed in the last line above")
        return False
    Path(ROOT / f"build/systems/{name}-{guide}.txt").write_text(shown)
    print(f"{name} {guide}: passed in {time.monotonic() - began:.0f} s")
    return True


def main() -> int:
    """Try the systems that are named; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", choices=[[], *FRESH], metavar="|".join(FRESH))
    for guide in GUIDES:
        parser.add_argument(f"--{guide}", dest="guides", action="append_const", const=guide)
    told = parser.parse_args()
    tried = [
        try_out(name, guide) for name in told.systems or FRESH for guide in told.guides or GUIDES
    ]
    return 0 if all(tried) else 1


if __name__ == "__main__":
    sys.exit(main())
