"""Join what perf has written, in a separate process: so the process that records stays small.

    python -m maceproc.perfdata.after_recording joined.dat trace.dat.perf0000 trace.dat.perf0001

It prints what the joined file holds as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from maceproc.errors import MaceprocError
from maceproc.perfdata.joining import join


def main(words: list[str]) -> int:
    """Join; return the exit status, with a line on standard error if not 0."""
    try:
        joined = join(Path(words[0]), [Path(word) for word in words[1:]])
    except (MaceprocError, OSError) as error:
        said = error.message if isinstance(error, MaceprocError) else error.strerror
        print(said, file=sys.stderr)
        return 1
    print(json.dumps(asdict(joined)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
