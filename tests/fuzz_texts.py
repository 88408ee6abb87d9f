"""Fuzz what others wrote as text: sidecars, what a ping printed, ftrace text. Not a test.

    python -m tests.fuzz_texts sidecar --count 100000
    python -m tests.fuzz_texts ping --count 100000
    python -m tests.fuzz_texts ftrace --count 100000

Every damaged text must give a result or a MaceprocError, in less than `LIMIT_S` of CPU time and
with less than 2 GiB. The same seed gives the same texts. What breaks that is printed with its seed.
`tests/test_strangers.py` runs some hundreds of each. Only public functions are called:
`parse_ping`, `pings_table`, `read_text`, `load_sidecar` and `analyze`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maceproc import analyze
from maceproc.capture_files import load_sidecar, sidecar_path
from maceproc.errors import Fault, MaceprocError
from maceproc.pings import parse_ping, pings_table
from maceproc.pings.output import ROWS_MADE_UP
from maceproc.reporting.report import as_text
from maceproc.tracetext import read_text
from tests.recorded import path_of

LIMIT_S = 10.0
MEMORY_BYTES = 2 << 30
ANALYZE_EVERY = 100  # a whole analysis takes as long as hundreds of sidecars

NUMBERS = (0, -1, 1, 255, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1)
NUMBERS += (2**63, 2**64 - 1, 2**64, 10**12, -(2**63), 10**30)
SCRAPS = ("[red]", "\x1b[31m", "\u202e", "\u200b", "\0", "\n", "\r", " " * 200, "9" * 400, "=cmd()")
SCRAPS += (
    "</script>",
    "'",
    '"',
    "%s",
    "{}",
    "\ud83d\ude00",
    "é",
    "-",
    ":",
    "=",
    "[",
    "]",
    "pid 4711",
)
PING = """PING 192.0.2.1 (192.0.2.1) 56(84) bytes of data.
[1700000000.123456] 64 bytes from 192.0.2.1: icmp_seq=1 ttl=63 time=0.129 ms
64 bytes from 192.0.2.1: icmp_seq=2 ttl=63 time=1.20 ms (DUP!)
From 192.0.2.254 icmp_seq=3 Destination Host Unreachable
64 bytes from 192.0.2.1: seq=4 ttl=63 time=0.129 ms
192.0.2.1 : [0], 64 bytes, 0.123 ms (0.12 avg, 0% loss)

--- 192.0.2.1 ping statistics ---
5 packets transmitted, 4 received, 20% packet loss, time 4005ms
rtt min/avg/max/mdev = 0.129/0.543/1.200/0.123 ms
192.0.2.1 : xmt/rcv/%loss = 5/5/0%, min/avg/max = 0.1/0.1/0.1
"""
FTRACE = """# tracer: nop
# entries-in-buffer/entries-written: 4/4   #P:2
CPU 1 is empty
            ping-5166    [000] b..1.  6699.925070: net_dev_queue: dev=eth0 skbaddr=ffff8880 len=98
            ping-5166    [001] ..s2.  6699.925081: netif_rx: dev=veth1 skbaddr=0xffff8880x len=84
  tmux: server-77    [000] .....  6699.925090: sys_enter_sendto: fd: 3, buff: 5, len: 64, flags: 0
CPU:0 [LOST 12 EVENTS]
          <idle>-0     [000] ..s1.  6699.925099: netif_receive_skb: dev=eth0 skbaddr=ffff8880 len=84
            ping-5166    [000] .....  6699.925110: sys_exit_recvmsg: 0x40
"""


def damaged_text(rng: random.Random, text: str) -> str:
    """Return a text with some places cut, doubled, or filled with numbers and scraps."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(text) + 1)
        end = min(at + rng.randrange(12), len(text))
        kind = rng.randrange(7)
        if kind == 0:
            text = text[:at] + rng.choice(SCRAPS) + text[end:]
        elif kind == 1:
            text = text[:at] + str(rng.choice(NUMBERS)) + text[end:]
        elif kind == 2:
            text = text[:at] + text[end:]
        elif kind == 3:
            source = rng.randrange(len(text) + 1)
            text = text[:at] + text[source : source + rng.randrange(200)] + text[at:]
        elif kind == 4:
            text = (
                text[:at]
                + chr(rng.choice((rng.randrange(1, 256), rng.randrange(0xD000))))
                + text[at:]
            )
        elif kind == 5:
            lines = text.split("\n")
            rng.shuffle(lines)
            text = "\n".join(lines)
        elif rng.randrange(6) == 0:
            text = text[:at] + rng.choice(SCRAPS) * rng.randrange(1, 300) + text[at:]
    return text


def damage_value(rng: random.Random, value: Any) -> Any:  # noqa: PLR0911  a case, a line
    """Return JSON with one place of it changed: its type, its size, its order, or its words."""
    if isinstance(value, dict) and value and rng.random() < 0.93:
        name = rng.choice(list(value))
        if rng.random() < 0.05:
            return {other: item for other, item in value.items() if other != name}
        return value | {name: damage_value(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.93:
        place = rng.randrange(len(value))
        kind = rng.randrange(12)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return [*value, value[place]]
        if kind == 2:
            return value[::-1]
        return [*value[:place], damage_value(rng, value[place]), *value[place + 1 :]]
    if isinstance(value, str) and rng.random() < 0.7:
        return damaged_text(rng, value)
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.8:
        return rng.choice((*NUMBERS, value + 1, value - 1, -value, value * 1000))
    return rng.choice(
        (
            None,
            True,
            [],
            {},
            "",
            0,
            -1,
            1.5,
            1e300,
            float("nan"),
            [[[]]],
            rng.choice(SCRAPS),
            *NUMBERS,
        )
    )


def fuzz_ping(rng: random.Random, _directory: Path) -> None:
    """Read a damaged ping's output, and make the table of what it says."""
    from maceproc.capture import Run

    run = Run(round=1, place="container", traced=True, argv=["ping"])
    text = damaged_text(rng, PING)
    made = pings_table([(run, printed) for printed in parse_ping(text)])
    assert len(made) <= ROWS_MADE_UP + len(text)


def fuzz_ftrace(rng: random.Random, directory: Path) -> None:
    """Read damaged ftrace text; now and then, analyze it."""
    path = directory / "trace.txt"
    path.write_text(damaged_text(rng, FTRACE), encoding="utf-8", errors="surrogatepass")
    if rng.randrange(ANALYZE_EVERY):
        read_text(path)
    else:
        as_text(analyze(path, inner="eth0", outer="eth0", peer="veth1"))


def fuzz_sidecar(rng: random.Random, directory: Path) -> None:
    """Load a damaged sidecar; now and then, analyze the capture with it."""
    trace = directory / "trace.dat"
    if not trace.exists():
        trace.write_bytes(path_of("every_event").read_bytes())
    document = _sidecar()
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = damage_value(rng, document)
    beside = sidecar_path(trace)
    text = json.dumps(document)
    if rng.randrange(20) == 0:
        text = damaged_text(rng, text)
    beside.write_text(text, encoding="utf-8", errors="surrogatepass")
    load_sidecar(beside)
    if rng.randrange(ANALYZE_EVERY) == 0:
        analysis = analyze(trace)
        as_text(analysis)
        analysis.as_html()


def _sidecar(cache: list[str] = []) -> Any:  # noqa: B006  the file is read once
    if not cache:
        cache.append(sidecar_path(path_of("every_event")).read_text())
    return json.loads(cache[0])


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "sidecar": fuzz_sidecar,
    "ping": fuzz_ping,
    "ftrace": fuzz_ftrace,
}


def run(kind: str, count: int, seed: int = 1, tell: bool = False) -> tuple[Counter[str], list[str]]:
    """Run one kind `count` times; return how often each outcome came, and what broke the rules."""
    outcomes: Counter[str] = Counter()
    broken = []
    with tempfile.TemporaryDirectory() as directory:
        for number in range(seed, seed + count):
            begun = time.process_time()
            try:
                KINDS[kind](random.Random(number), Path(directory))
                outcome = "read"
            except Fault as error:
                outcome = f"bug: {error}"
            except MaceprocError:
                outcome = "refused"
            except Exception:
                outcome = f"bug: {traceback.format_exc(limit=-3)}"
            if (took := time.process_time() - begun) > LIMIT_S:
                outcome = f"bug: {took:.1f} s"
            if outcome.startswith("bug"):
                broken.append(f"seed {number}: {outcome}")
                outcome = "bug"
            outcomes[outcome] += 1
            if tell and (number - seed) % 10_000 == 9_999:
                print(number, dict(outcomes), flush=True)
    return outcomes, broken


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    # What the libraries map is more than a gigabyte of addresses, and hardly any memory.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
    outcomes, broken = run(given.kind, given.count, given.seed, tell=True)
    print(f"{given.kind}: {outcomes.total()} executions: {dict(outcomes)}")
    seen: set[str] = set()
    for text in broken:
        last = text.strip().rpartition("\n")[2][:60]
        if last not in seen:
            seen.add(last)
            print(text)


if __name__ == "__main__":
    main()
