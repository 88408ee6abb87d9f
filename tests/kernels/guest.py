"""Inside the guest: ``python -m tests.kernels.guest RESULTS SCENARIO ...`` records each scenario.

One process records them all: starting Python takes an emulated machine longer than recording. What
is printed about a scenario goes to a file of its own; another file says that it was done.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from maceproc.cli import cli
from maceproc.errors import MaceprocError
from tests.kernels.machine import CLEAN_UP, done_file, record_arguments, setup_script
from tests.kernels.scenarios import SCENARIOS


def record(name: str, results: Path) -> None:
    """Make a scenario's network, record its pings, and take the network down."""
    scenario = SCENARIOS[name]
    with (results / f"{name}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        subprocess.run(
            ["bash", "-c", setup_script(scenario)], check=False, stdin=subprocess.DEVNULL
        )
        try:
            cli(record_arguments(name, scenario, results), standalone_mode=False)
        except MaceprocError as error:
            print(error)
        sys.stdout.flush()
        subprocess.run(["bash", "-c", CLEAN_UP], check=False, stdin=subprocess.DEVNULL)
    done_file(name, results).touch()


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        record(argument, Path(sys.argv[1]))
