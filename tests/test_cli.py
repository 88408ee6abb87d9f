"""The command line as a whole: help, exit statuses, what goes where, completion, manual pages."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from maceproc import errors
from maceproc.cli import cli
from maceproc.cli.export import FORMATS, TABLES
from maceproc.reporting.export import FORMATS as FORMATS_OF_LIBRARY
from maceproc.reporting.export.tables import TABLES as TABLES_OF_LIBRARY
from tests.recorded import path_of

IDLE, SMALL = str(path_of("idle")), str(path_of("every_event"))
PROGRAM = str(Path(sys.executable).parent / "maceproc")
ANSI_COLOR = re.compile(r"\x1b\[[0-9;]*3\d[0-9;]*m")


def verbs(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, *before, name)
        yield (*before, name), command


VERBS = dict(verbs(cli))
LEAVES = {
    words: command for words, command in VERBS.items() if not isinstance(command, click.Group)
}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, **environment}
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, env=own, check=False)


def on_a_terminal(*words: str, **environment: str) -> str:
    """Return what a terminal shows, standard error included."""
    own = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    own |= {"TERM": "xterm-256color", "COLUMNS": "100", **environment}
    mine, theirs = pty.openpty()
    with subprocess.Popen([PROGRAM, *words], stdout=theirs, stderr=theirs, env=own):
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(mine, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(mine)
    return shown.decode()


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_help_teaches_with_an_example(words: tuple[str, ...]) -> None:
    text = VERBS[words].help or ""
    assert re.search(rf"^ *(eval \"\$\()?maceproc {words[0]}", text, re.MULTILINE), text
    assert text.partition("\n")[0].endswith(".")


def test_list_of_verbs_has_whole_sentences() -> None:
    assert "..." not in run("--help").stdout.partition("Commands:")[2]


def test_help_keeps_its_line_breaks() -> None:
    lines = run("record", "--help").stdout.splitlines()
    assert "  maceproc record --lab -- ping -c 100 -i 0.05" in lines
    assert "\\b" not in run("--help").stdout


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_verb_has_quiet_and_verbose(words: tuple[str, ...]) -> None:
    if words == ("completion",):  # nothing but a result
        return
    flags = {flag for parameter in LEAVES[words].params for flag in parameter.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= flags


def test_one_option_one_meaning() -> None:
    meanings: dict[str, set[str]] = {}
    for command in LEAVES.values():
        for parameter in command.params:
            for flag in parameter.opts if isinstance(parameter, click.Option) else ():
                meanings.setdefault(flag, set()).add(str(parameter.name))
    assert {f: m for f, m in meanings.items() if len(m) > 1 and not f.startswith("--")} == {}
    for flag in ("--json", "--output", "--ping", "--round", "--label"):
        assert len(meanings[flag]) == 1


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--help",), 0),
        (("analyze", IDLE), 0),
        (("analyze", "none.dat"), 1),
        (("analyze", __file__), 1),
        (("analyze",), 2),
        (("analyse", IDLE), 2),
        (("analyze", IDLE, "--no-such-option"), 2),
        (("analyze", IDLE, "-q", "-v"), 2),
        (("explain", IDLE, "4711"), 1),
        (("compare", IDLE), 2),
        (("compare", IDLE, "none.dat", "none.dat"), 1),
        (("export", IDLE, "--format", "parquet"), 2),
        (("export", IDLE, "-o", "x.doc"), 1),
        (("record", "--netns", "no-such-namespace", "--", "ping", "127.0.0.1"), 68),
        (("record", "--lab", "--host", "--", "ping", "127.0.0.1"), 2),
    ],
)
def test_exit_status(words: tuple[str, ...], status: int, tmp_path: Path) -> None:
    done = run(*words)
    assert done.returncode == status, done.stderr
    if status:
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
    if status not in (0, 2):
        assert re.fullmatch(r"(maceproc: .+\n)+", done.stderr)


def test_help_tells_every_exit_status() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]
    statuses = {kind.exit_status for kind in kinds if issubclass(kind, errors.MaceprocError)}
    for status in statuses | {0, 2}:
        assert re.search(rf"^ +{status} ", run("--help").stdout, re.MULTILINE)


def test_a_comparison_with_one_failure_shows_the_others_and_fails() -> None:
    done = run("compare", SMALL, "none.dat", str(path_of("native")))
    assert done.returncode == 1
    assert "none.dat: no such file" in done.stderr
    assert "native and every_event have no series in common" in done.stdout


def test_results_to_stdout_the_rest_to_stderr(tmp_path: Path) -> None:
    plain, verbose = run("analyze", SMALL), run("analyze", SMALL, "-v")
    assert plain.stderr == ""
    assert verbose.stdout == plain.stdout
    assert re.search(r"^ *\d+ ms  reading .*every_event.dat$", verbose.stderr, re.MULTILINE)
    out = str(tmp_path / "x.csv")
    assert run("export", SMALL, "-o", out).stderr.startswith(f"wrote {out} and ")
    assert run("export", SMALL, "-o", out, "--quiet", "--force").stderr == ""


def test_verbose_tells_what_is_done() -> None:
    captures = [SMALL, str(path_of("native"))]
    assert "2 of 2 done" in run("compare", *captures, "-v").stderr
    assert "reading" in run("explain", SMALL, "3", "-v").stderr


@pytest.mark.kernel
def test_verbose_recording_tells_every_run(tmp_path: Path) -> None:
    ping = ("--", "ping", "-c", "2", "-i", "0.01")
    words = ("record", "--lab", "--rounds", "2", "-o", str(tmp_path / "t.dat"))
    done = run(*words, "-v", *ping)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"ms  run \d of 8: (container|native) (un)?traced", done.stderr)) == 8
    assert "ip netns add" in done.stderr
    quiet = run(*words, "--force", "-q", *ping)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_colours_are_for_terminals_only() -> None:
    assert "\x1b" not in run("analyze", SMALL).stdout
    assert "\x1b" not in run("compare", SMALL, SMALL).stdout
    assert ANSI_COLOR.search(on_a_terminal("analyze", SMALL))
    assert not ANSI_COLOR.search(on_a_terminal("analyze", SMALL, NO_COLOR="1"))
    assert "\x1b" not in on_a_terminal("analyze", SMALL, TERM="dumb")


def test_progress_is_for_terminals_only() -> None:
    captures = [SMALL, str(path_of("native"))]
    assert "analyzing" in on_a_terminal("compare", *captures)
    assert "analyzing" not in on_a_terminal("compare", "-q", *captures)
    assert run("compare", *captures).stderr == ""


def test_a_long_analysis_shows_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is what people wait without asking; here it is none."""
    code = (
        "import sys, maceproc.cli.terminal as terminal; terminal.PATIENCE_S = 0.0;"
        "from maceproc.cli import main; sys.argv[0] = 'maceproc'; main()"
    )
    program = [sys.executable, "-c", code, "analyze", IDLE]
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", program[0])
    shown = on_a_terminal(*program[1:])
    assert "reading" in shown or "following the packets" in shown
    monkeypatch.undo()
    assert "following the packets" not in on_a_terminal("analyze", IDLE, "-q")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_MACEPROC_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("maceproc ex", {"experiment", "explain", "export"}),
        ("maceproc lab ", {"up", "down", "status"}),
        ("maceproc export x.dat --table h", {"hops"}),
        ("maceproc export x.dat --format p", {"parquet", "perfetto", "pcapng"}),
    ],
)
def test_bash_completes(line: str, expected: set[str]) -> None:
    """As bash does: with the printed code, in a real bash."""
    script = f"""
        PATH={Path(PROGRAM).parent}:$PATH
        eval "$(maceproc completion bash)"
        COMP_WORDS=({line}{" ''" if line.endswith(" ") else ""})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        $(complete -p maceproc | sed 's/.*-F \\([^ ]*\\).*/\\1/') maceproc
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected, done.stderr


def test_choices_are_those_of_the_library() -> None:
    assert tuple(FORMATS) == tuple(FORMATS_OF_LIBRARY)
    assert set(TABLES) == set(TABLES_OF_LIBRARY)


def test_help_is_quick() -> None:
    """It imports none of what is heavy: compared by what is loaded, not by time."""
    code = (
        "import sys; from maceproc.cli import cli; cli.main(['--help'], standalone_mode=False);"
        "print(sorted({'pandas', 'numpy', 'scipy', 'rich', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
