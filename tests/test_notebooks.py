"""The notebooks run, and are committed as they came out of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import AT_ONCE, NOTEBOOKS, start_all

LARGEST_BYTES = 400_000
VOLATILE = re.compile(r"0x[0-9a-f]+|<Figure[^>]*>|\S*/captures/")  # of this process, this machine


@pytest.fixture(scope="module")
def running():
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield start_all(pool)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_story_is_whole() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(1, 9)]


def test_notebook_runs(path: Path, running) -> None:
    ran = running[path].result()
    assert list(texts(ran)) == list(texts(nbformat.read(path, as_version=4)))


def texts(notebook) -> Iterator[tuple[str, str]]:
    """Yield kind and text of every output: what a committed notebook says is what it gives now."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            yield output.output_type, VOLATILE.sub("...", text)


def test_notebook_is_committed_with_its_outputs(path: Path) -> None:
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert path.stat().st_size < LARGEST_BYTES


def test_links_lead_to_notebooks(path: Path) -> None:
    text = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    for link in re.findall(r"\]\(([^)]*\.ipynb)\)", text):
        assert (path.parent / link).is_file()
