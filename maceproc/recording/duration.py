"""How long a recording takes, from the options of its ping, before anything runs."""

from __future__ import annotations

import math

from maceproc.errors import CommandError
from maceproc.recording.command import Command, parse_command
from maceproc.recording.engine_command import is_engine, parse_engine_command

DEFAULT_INTERVAL_S = 1.0  # of iputils and BusyBox ping, ping(8)
FLOOD_INTERVAL_S = 0.01  # upper limit for ping -f, a hundred packets a second: ping(8)


def ping_duration_s(command: Command) -> float | None:
    """Return how long one run of a ping takes when replies come [s]; None when it is not known.

    The time between the first packet and the last one, or the deadline of -w when that is earlier.
    Without -c and -w a ping has no end. An adaptive ping (-A) waits for replies, whose time is not
    known. A lost last reply takes up to 10 s more.
    """
    if not command.is_ping:
        return None
    given = dict(command.options)
    try:
        count = float(given["-c"]) if "-c" in given else math.inf
        deadline_s = float(given["-w"]) if "-w" in given else math.inf
        interval_s = float(
            given.get("-i", FLOOD_INTERVAL_S if "-f" in given else DEFAULT_INTERVAL_S)
        )
        preload = float(given.get("-l", 1))
    except ValueError:  # ping itself judges it
        return None
    sending_s = math.inf if "-A" in given else max(count - preload, 0) * interval_s
    duration_s = min(sending_s, deadline_s)
    return duration_s if math.isfinite(duration_s) else None


def plan_sentence(command: Command, runs: int) -> str:
    """Say how many runs there will be and how long they take: ``15 runs of about 5 s: ...``."""
    counted = f"{runs} run{'s' * (runs != 1)}"
    each_s = ping_duration_s(command)
    if each_s is None:
        return f"{counted}; how long one takes is not known"
    sentence = f"{counted} of {duration_text(each_s)}{' each' * (runs > 1)}"
    total_s = runs * each_s
    return sentence if runs == 1 or total_s < 1 else f"{sentence}: {duration_text(total_s)}"


def duration_text(duration_s: float) -> str:
    """Return a duration for people: ``less than 1 s``, ``about 1 min 20 s``, ``about 2 h``."""
    if duration_s < 0.95:
        return "less than 1 s"
    seconds = math.ceil(duration_s - 0.05)  # 99 intervals of 0.05 s are about 5 s
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes} min" if minutes else f"about {hours} h"
    if minutes:
        return f"about {minutes} min {seconds} s" if seconds else f"about {minutes} min"
    return f"about {seconds} s"


def ping_warnings(command: Command) -> list[str]:
    """Return what a ping's options take away from the results, one sentence each."""
    if not command.is_ping:
        return []
    warnings = []
    if not command.has("-c") and not command.has("-w"):
        warnings.append("this ping has no end: give it a number of packets, such as -c 100")
    if command.has("-q"):
        warnings.append("ping -q prints no RTTs, so none can be corrected: leave -q out")
    if command.has("-f"):
        warnings.append(
            "ping -f prints no RTTs, so none can be corrected: use -i 0.01 in place of -f"
        )
    return warnings


def own_command(argv: list[str]) -> Command | None:
    """Return the ping that a command line runs, here or by a container engine; None if unclear."""
    try:
        words = list(parse_engine_command(argv).argv) if is_engine(argv) else argv
        return parse_command(words)
    except (CommandError, IndexError):  # the recording itself reports the error
        return None
