"""Which module may import which, how large they are, and what recording must not load.

The map is in docs/architecture.md. Every import counts, also one inside a function or below
``if TYPE_CHECKING``; only what ``maceproc/__init__.py`` offers to users does not. What still breaks
a rule is listed in `TOLERATED` and `CIRCLES`; an entry that is no longer needed fails the test, so
the lists can only shrink.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from statistics import median

import pytest

PACKAGE = Path(__file__).parents[1] / "maceproc"

# The rooms in the order of the pipeline, and the modules or packages that each consists of.
ROOMS = {
    "words": "errors units schema statistics ledger series foreign_text whole_file worker "
    "echo_rows memory",
    "capture": "calibration capture sidecar_checks capture_files uplinks",
    "reading": "tracedat tracetext pings traces perfdata echoes pairing retis",
    "recording": "recording",
    "following": "following",
    "analysis": "analysis",
    "reporting": "reporting",
    "pipeline": "pipeline comparison many shortcuts",
    "tools": "doctor doctor_programs selftest selftest_report experiment predecessors watching "
    "fleet",
    "cli": "cli __main__",
}
ROOM_OF = {name: room for room, names in ROOMS.items() for name in names.split()}

# Which rooms each room may use besides itself.
MAY_USE = {
    "words": set(),
    "capture": {"words"},
    "reading": {"words", "capture"},
    "recording": {"words", "capture"},
    "following": {"words", "capture", "reading"},
    "analysis": {"words", "capture", "reading", "following"},
    "reporting": {"words", "capture", "reading", "following", "analysis"},
    "pipeline": {"words", "capture", "reading", "following", "analysis", "reporting"},
    "tools": set(ROOMS) - {"cli"},
    "cli": set(ROOMS),
}

MODULE_LINES, MEDIAN_LINES, FUNCTION_LINES = 400, 150, 60

# What breaks a rule today: module or module:function, and its size.
TOLERATED: set[str] = set()

CIRCLES: set[str] = set()


def modules() -> dict[str, ast.Module]:
    """Every module by its name below ``maceproc``; the package itself is ``""``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        name = name.removesuffix(".__init__")
        found["" if name == "__init__" else name] = ast.parse(path.read_text())
    return found


MODULES = modules()
COMPILED = {"_native", "_hops"}


@cache
def imports(name: str) -> frozenset[str]:
    """Return the modules of this package that a module imports, wherever it does."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            package, *parts = target.split(".")
            if package != "maceproc" or (parts and parts[-1] in COMPILED):
                continue
            while parts and ".".join(parts) not in MODULES:
                parts.pop()
            found.add(".".join(parts))
    return frozenset(found - {"", name})


def room_of(name: str) -> str:
    first = name.partition(".")[0]
    assert first in ROOM_OF, f"{name}: say in ROOMS which room it is in"
    return ROOM_OF[first]


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_go_with_the_stream(name: str) -> None:
    mine = room_of(name)
    wrong = [
        other
        for other in imports(name)
        if room_of(other) != mine and room_of(other) not in MAY_USE[mine]
    ]
    assert not wrong, f"{name} ({mine}) imports {', '.join(wrong)}"


def reached(name: str) -> set[str]:
    """Every module that a module imports, itself or through others."""
    found: set[str] = set()
    left = [name]
    while left:
        new = set(imports(left.pop())) - found
        found |= new
        left += new
    return found


def test_no_two_modules_import_each_other() -> None:
    circles = {name for name in MODULES if name in reached(name)}
    assert circles == CIRCLES, "remove from CIRCLES what is none by now; make no new ones"


def test_every_room_has_something_in_it() -> None:
    known = {name.partition(".")[0] for name in MODULES if name}
    assert {room_of(name) for name in known} == set(ROOMS)


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_map_names_every_module(file: str) -> None:
    words = set(re.findall(r"\w+", (PACKAGE.parent / file).read_text()))
    missing = set(ROOM_OF) - words - {"__main__"}
    assert not missing, f"add to the map in {file}: {', '.join(sorted(missing))}"


def test_what_records_loads_neither_numpy_nor_pandas() -> None:
    recording = [f"maceproc.{name}" for name in MODULES if name.startswith("recording")]
    code = f"import sys, {', '.join(recording)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "maceproc.recording.record" in loaded
    assert not loaded & {"numpy", "pandas", "scipy"}


def lines_of(name: str) -> int:
    path = PACKAGE.joinpath(*name.split(".")) if name else PACKAGE
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(file.read_text().splitlines())


def too_large() -> set[str]:
    """Modules and functions that are larger than allowed."""
    found = {name for name in MODULES if lines_of(name) > MODULE_LINES}
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.add(f"{name}:{node.name}")
    return found


def test_modules_and_functions_are_short() -> None:
    assert too_large() <= TOLERATED


def test_what_is_tolerated_is_still_needed() -> None:
    assert too_large() >= TOLERATED, "remove from TOLERATED what is short by now"


def test_most_modules_are_short() -> None:
    assert median(lines_of(name) for name in MODULES if name) <= MEDIAN_LINES


def test_every_package_is_in_what_is_published() -> None:
    """An editable install finds them all by itself; a wheel holds those that are named."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    named = project["tool"]["setuptools"]["packages"]
    there = [
        ".".join(file.parent.relative_to(PACKAGE.parent).parts)
        for file in PACKAGE.rglob("__init__.py")
    ]
    assert sorted(named) == sorted(there)
