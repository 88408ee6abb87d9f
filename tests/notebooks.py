"""Run the notebooks; as a program, keep what they print: python -m tests.notebooks."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbclient
import nbformat

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
AT_ONCE = 2


def executed(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own and return it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    options = {
        "timeout": 120,
        "resources": {"metadata": {"path": str(path.parent)}},
        "record_timing": False,  # it would change a file whose results are the same
        "extra_arguments": ["--log-level=ERROR"],
    }
    return nbclient.NotebookClient(notebook, **options).execute()


def start_all(pool: ThreadPoolExecutor) -> dict[Path, Future[nbformat.NotebookNode]]:
    """Start running every notebook, some at once: much of their time a kernel is only loading."""
    return {path: pool.submit(executed, path) for path in NOTEBOOKS}


if __name__ == "__main__":
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for path, running in start_all(pool).items():
            nbformat.write(running.result(), path)
            print(path)
