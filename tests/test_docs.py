"""The site builds without a warning, and what its pages tell people to type works.

Every ``sh`` and ``python`` block of a page is run, in the order of the page, with shorter pings and
the names of what the test has made. A block titled "Not run by the tests" is not run; one titled
"Typed in a fresh system" installs something, and is typed by `tests.newcomers`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import click
import matplotlib as mpl
import pytest

from maceproc import Lab, schema
from maceproc.capture_files import open_capture
from maceproc.cli import cli
from maceproc.following.verdicts import STATUSES
from maceproc.ledger import COLUMNS
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from maceproc.series import MEANING
from tests.recorded import path_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if path.name != "reading-trace-dat.md" and "experiment" not in path.parts
]
BLOCK = re.compile(r"^```(sh|python)(?: title=\"(.*?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = "Not run by the tests: "
TYPED_ELSEWHERE = ("Typed in a fresh system: ", "Typed with an image that is built for it: ")
BIN = Path(sys.executable).parent


class Block(NamedTuple):
    language: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups(default="")) for found in BLOCK.finditer(page.read_text())]


WITH_CODE = [page for page in PAGES if any(not b.title for b in blocks(page))]

# Commands


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a trace as text, and what its ping printed."""
    directory = tmp_path_factory.mktemp("by-hand")
    argv = ["ping", "-i", "0.01", "-c", "5"]
    with Lab() as lab:
        capture = record(argv, lab_site(lab), directory / "t.dat", baseline=False, events="full")
    report = ["trace-cmd", "report", "-t", "-l", str(capture.trace)]
    with (directory / "trace.txt").open("wb") as text:
        subprocess.run(report, stdout=text, check=True)
    sidecar = open_capture(capture.trace).sidecar
    assert sidecar is not None
    (directory / "ping.txt").write_text(sidecar.runs[0].output)
    return directory


@pytest.mark.kernel
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_what_a_page_tells_people_to_type(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    text = page.read_text()
    enter: list[str] = []
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    if not re.search(r"maceproc record (?!.* -o )", text):  # a page that begins with a capture
        for suffix in ("", ".json"):
            shutil.copy(f"{path_of('idle')}{suffix}", f"trace.dat{suffix}")
    with ExitStack() as stack:
        if "trace.txt" in text:
            for name in ("trace.txt", "ping.txt"):
                shutil.copy(request.getfixturevalue("by_hand") / name, name)
        if containers := set(re.findall(r"(?:record|watch) --container (\S+)", text)):
            engine = request.getfixturevalue("engine")
            for name in containers:
                stack.enter_context(engine.container(name))
            enter = ["nsenter", f"--net=/run/netns/{engine.host}", "--"]
            environment |= engine.env | {"PATH": environment["PATH"]}
        lab = f"docs-{os.getpid()}"
        stack.callback(Lab(lab).down)
        names: dict[str, Any] = {}
        for language, code in runnable(page, lab):
            if language == "python":
                exec(code, names)
            else:
                argv = [*enter, "bash", "-euo", "pipefail", "-c", code]
                done = subprocess.run(
                    argv, env=environment, capture_output=True, text=True, check=False, timeout=120
                )
                assert done.returncode == 0, f"{code}\n{done.stdout[-500:]}\n{done.stderr}"


def runnable(page: Path, lab: str) -> Iterator[tuple[str, str]]:
    """Give what is run of a page: shorter, and with the lab's names instead of the page's."""
    shorter = [
        (r"-c 100\b", "-c 5"),
        (r"-i 1\b", "-i 0.1"),
        (r"-i 0\.05\b", "-i 0.01"),
        (r"--rounds (5|10)\b", "--rounds 1"),
        (r"\bsleep \d+", "sleep 0.5"),
        (r"192\.0\.2\.1\b", "192.0.2.2"),
        (r"\beno1\b", "eth0"),
        (r"(explain \S+) \d+", r"\1 3"),
    ]
    named = [
        (r"maceproc lab (up|down)", rf"maceproc lab \1 --name {lab}"),
        (r"--lab ", f"--lab {lab} "),
        (r"\bmaceproc-container", f"{lab}-container"),
    ]
    is_up = False
    for block in blocks(page):
        if block.title:
            continue
        lines = []
        for line in block.code.splitlines() if block.language == "sh" else [block.code]:
            is_up |= "lab up" in line
            for pattern, text in (*shorter, *(named if is_up else ())):
                line = re.sub(pattern, text, line)  # noqa: PLW2901
            is_up &= "lab down" not in line
            lines.append(line)
        yield block.language, "\n".join(lines)


def test_what_is_not_run_says_so_and_is_little() -> None:
    titles = [block.title for page in PAGES for block in blocks(page) if block.title]
    assert all(title.startswith((NOT_RUN, *TYPED_ELSEWHERE)) for title in titles)
    run = [block for page in PAGES for block in blocks(page) if not block.title]
    assert sum(title.startswith(NOT_RUN) for title in titles) <= 6 < len(run)


def test_no_command_is_in_a_block_that_is_not_run() -> None:
    """Indented, or in a block of another language, a command would not be tested."""
    for page in PAGES:
        text = BLOCK.sub("", page.read_text())
        assert not re.search(r"^\s+(\$ )?maceproc ", text, re.MULTILINE), page
        assert not re.search(r"^```(bash|console|shell|py)\b", text, re.MULTILINE), page


def test_examples_in_help_are_understood() -> None:
    """Every example names a verb that exists and options it has; nothing is run."""
    examples = [
        line.strip().split()
        for command in (cli, *cli.commands.values())
        for line in (command.help or "").splitlines()
        if line.strip().startswith("maceproc ")
    ]
    assert len(examples) > 15
    for words in examples:
        verb = cli.commands[words[1]] if words[1] != "--help" else cli
        if isinstance(verb, click.Group) and words[1] != "--help":
            verb = verb.commands.get(words[2]) or verb.commands["run"]  # of `maceproc experiment`
        flags = {flag for parameter in verb.params for flag in (*parameter.opts, "--help")}
        own = words[: words.index("--")] if "--" in words else words
        own = own[: own.index("|")] if "|" in own else own
        assert {w for w in own if w.startswith("-")} <= flags, words


# The site


class Page(HTMLParser):
    """What a page fetches, and the text of its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.fetched.append(found.get("src") or "")
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.fetched.append(found.get("href") or "")
        if tag == "img":
            self.pictures.append(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, str(DOCS / "made.py"), str(made)], check=True)
    config = tmp_path_factory.mktemp("config") / "mkdocs.yml"
    config.write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: {made}\n")
    directory = tmp_path_factory.mktemp("site")
    argv = [str(BIN / "mkdocs"), "build", "--strict", "--quiet", "--config-file", str(config)]
    argv += ["--site-dir", str(directory)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return directory


def test_the_site_builds_without_a_warning_and_has_every_page(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(DOCS).with_suffix(".html")).exists()


def test_the_site_needs_no_hook_and_its_pages_are_made_before_it() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    assert "hooks" not in config
    directory = re.search(r"^docs_dir: (\S+)", config, re.MULTILINE)
    assert directory
    recipe = subprocess.run(
        ["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 0 < recipe.index(f"docs/made.py {directory[1]}") < recipe.index("mkdocs build")
    in_nav = set(re.findall(r": (\S+\.md)$", config, re.MULTILINE))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} <= in_nav
    assert all((DOCS / name).exists() for name in in_nav)


def test_every_page_links_to_the_glossary(site: Path) -> None:
    for page in PAGES:
        if page.name != "glossary.md":
            text = (site / page.relative_to(DOCS).with_suffix(".html")).read_text()
            link = os.path.relpath(DOCS / "glossary.html", page.parent)
            assert f'<a class="glossary" href="{link}">' in text


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert [url for url in Page(path).fetched if "//" in url] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", path.read_text())


def test_every_picture_is_there_and_has_a_text(site: Path) -> None:
    found = 0
    for path in site.rglob("*.html"):
        for picture in Page(path).pictures:
            assert (path.parent / str(picture["src"])).exists()
            assert picture["alt"]
            found += 1
    assert found >= 6


def test_tables_commands_and_statuses_come_from_the_code(site: Path) -> None:
    tables = (site / "reference/tables.html").read_text()
    for table in vars(schema).values():
        if isinstance(table, schema.Table):
            assert all(f"<code>{column.name}</code>" in tables for column in table.columns)
    commands = (site / "reference/cli.html").read_text()
    for name, verb in cli.commands.items():
        assert f'id="maceproc-{name}"' in commands
        for parameter in verb.params:
            assert all(flag in commands for flag in parameter.opts if flag.startswith("--"))
    how = (site / "how-it-works.html").read_text()
    assert all(f"<code>{status}</code>" in how for status in STATUSES)
    glossary = (site / "glossary.html").read_text()
    for name, column in COLUMNS.items():
        assert f"<td>{name}</td>\n<td><code>{column}</code></td>" in glossary
    assert all(f"<td>{name}</td>" in glossary for name in MEANING)


def test_manual_pages_have_no_warnings(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(DOCS / "man.py"), str(tmp_path)], check=True)
    pages = sorted(tmp_path.glob("*.1"))
    assert {page.stem for page in pages} >= {"maceproc", *(f"maceproc-{n}" for n in cli.commands)}
    if shutil.which("man"):
        argv = ["man", "--warnings", "-l", *map(str, pages)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert "maceproc compare idle.dat loaded.dat -o loaded.png\n" in done.stdout
