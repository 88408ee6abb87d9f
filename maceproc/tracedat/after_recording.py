"""What the recorder has done with its files, by a process of its own.

    python -m maceproc.tracedat.after_recording count trace.dat
    python -m maceproc.tracedat.after_recording join trace.dat joined.dat mono

``count`` prints the events per buffer and CPU as JSON. ``join`` makes one file of a trace and of
what was left beside it. The process that records reads no trace itself: it stays small.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from maceproc.errors import MaceprocError
from maceproc.tracedat.counting import count_events
from maceproc.tracedat.salvage import salvage


def main(words: list[str]) -> int:
    """Do what the words say; return the exit status, with a line on standard error if not 0."""
    try:
        if words[0] == "count":
            print(json.dumps(count_events(Path(words[1]))))
        else:
            saved = salvage(Path(words[1]), Path(words[2]), clock=words[3])
            print(json.dumps({"pages": saved.pages, "notes": saved.notes}))
    except MaceprocError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
