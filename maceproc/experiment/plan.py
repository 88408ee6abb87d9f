"""What an experiment runs, in which order, and where it is kept.

A block is one round at one level of traffic. Every arm runs once in it, close together in time, so
that all arms meet the same state of the machine. The flows and the recorders are started for the
block and stopped after it, so that rounds have nothing in common but the machine. The levels come
in a random order, the arms in a balanced one: over as many rounds as there are arms, every arm runs
once in each position; over every two rounds, every arm runs before and after every other arm.

A directory holds the plan and, for every finished block, the captures of its tracers:

    experiment.json
    round-001/flows-4/minimal.dat, minimal.dat.json, net.dat, ..., traffic.json

Each capture is an ordinary one. It holds the runs that its tracer recorded, and the untraced runs
of the block, which all captures of a block share. A block is kept or repeated as a whole: its
directory gets its final name when everything in it is complete.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from maceproc import __version__
from maceproc.capture import Machine, Place, Target
from maceproc.errors import CaptureError, CommandError
from maceproc.recording.arms import balanced_orders
from maceproc.whole_file import opened_whole

PLAN_FILE = "experiment.json"
TRAFFIC_FILE = "traffic.json"
PLAN_VERSION = 2  # version 1 had several rounds in a block

# The four that the paper's kernel module hooks, as events of ftrace.
MACE_EVENTS = (
    "syscalls:sys_enter_sendto",
    "net:net_dev_start_xmit",
    "net:netif_receive_skb",
    "syscalls:sys_exit_recvmsg",
)
BPF = "bpf"  # the tracer in the kernel, which records no events
# Names of tracers, and what `maceproc record --events` calls them.
TRACERS = {
    BPF: BPF,
    "minimal": "minimal",
    "full": "full",
    "net": "net:*",
    "mace": ",".join(MACE_EVENTS),
}
DEFAULT_TRACERS = ("minimal", "net", "mace")

_BLOCK = re.compile(r"round-(\d+)/flows-(\d+)")


class PlannedArm(NamedTuple):
    """One arm of an experiment: where the ping runs, and which tracer records ("" for none)."""

    place: Place
    tracer: str = ""

    def __str__(self) -> str:
        return f"{self.place} {self.tracer or 'untraced'}"


class Block(NamedTuple):
    """One round at one level of traffic: every arm, in the order in which they run."""

    round: int
    flows: int
    arms: tuple[PlannedArm, ...]

    @property
    def path(self) -> Path:
        """Its directory within that of the experiment."""
        return Path(f"round-{self.round:03d}", f"flows-{self.flows}")


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """An experiment, as asked for."""

    command: list[str]
    flows: list[int]
    rounds: int
    tracers: list[str]
    traffic: str = "flood"
    awake: bool = False
    seed: int = 1

    def blocks(self, places: tuple[Place, ...]) -> Iterator[Block]:
        """Yield every block in the order they run; the same plan gives the same order."""
        arms = [PlannedArm(place, tracer) for place in places for tracer in ("", *self.tracers)]
        orders = {
            flows: balanced_orders(len(arms), random.Random(f"{self.seed} {flows}"))
            for flows in self.flows
        }
        for number in range(1, self.rounds + 1):
            levels = list(self.flows)
            random.Random(f"{self.seed} round {number}").shuffle(levels)
            for flows in levels:
                order = orders[flows][(number - 1) % len(orders[flows])]
                yield Block(number, flows, tuple(arms[index] for index in order))

    def events_of(self, tracer: str) -> str:
        """Return what a tracer records, as ``record --events`` takes it."""
        return TRACERS.get(tracer, tracer.replace("+", ","))


class Experiment(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole of ``experiment.json``: the plan, and what it was carried out on."""

    format: Literal["maceproc experiment"] = "maceproc experiment"
    version: int = PLAN_VERSION
    maceproc: str = __version__
    plan: Plan
    target: Target
    places: list[Place]
    machine: Machine
    pinned: list[int] = []  # CPUs that the flows are pinned to, in turn
    sessions: list[int] = []  # when it was begun and resumed, UTC [ns]
    notes: list[str] = []

    def blocks(self) -> Iterator[Block]:
        """Yield every block of the plan."""
        return self.plan.blocks(tuple(self.places))


def file_name(tracer: str) -> str:
    """Return the name of a tracer's captures: what is no letter, digit, '_' or '-' becomes '_'."""
    return re.sub(r"[^\w-]+", "_", tracer).strip("_") + ".dat"


def finished(directory: Path) -> set[tuple[int, int]]:
    """Return (round, flows) of every finished block."""
    found = (
        _BLOCK.fullmatch(path.relative_to(directory).as_posix())
        for path in directory.glob("round-*/flows-*")
    )
    return {(int(match[1]), int(match[2])) for match in found if match}


def load_experiment(directory: Path) -> Experiment:
    """Read the plan of an experiment; CaptureError when there is none or it cannot be read."""
    path = directory / PLAN_FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Experiment)
    except OSError as error:
        raise CaptureError(
            f"{path}: {error.strerror}", hint="name a directory that `maceproc experiment` made"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CaptureError(f"{path}: not an experiment: {error}") from error
    if found.version != PLAN_VERSION:
        raise CaptureError(
            f"{path}: version {found.version}, not {PLAN_VERSION}",
            hint="read it with the maceproc that made it, or run it again",
        )
    return found


def save_experiment(directory: Path, experiment: Experiment) -> None:
    """Write ``experiment.json`` whole or not at all; CaptureError when it cannot be written."""
    path = directory / PLAN_FILE
    identity = {"format": experiment.format, "version": experiment.version}
    document = identity | msgspec.to_builtins(experiment)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with opened_whole(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    except OSError as error:
        raise CaptureError(f"{path}: cannot be written: {error.strerror}") from error


def check_plan(plan: Plan) -> None:
    """Raise CommandError when a plan makes no sense."""
    if not plan.tracers:
        raise CommandError("no tracers to compare", hint=f"--tracers {','.join(DEFAULT_TRACERS)}")
    if plan.rounds < 1:
        raise CommandError(f"{plan.rounds} rounds")
    names = [file_name(tracer) for tracer in plan.tracers]
    if len(set(names)) < len(names):
        raise CommandError(f"tracers {', '.join(plan.tracers)}: two have one name")
    if len(set(plan.flows)) < len(plan.flows) or min(plan.flows, default=-1) < 0:
        raise CommandError(f"flows {plan.flows}: give different numbers, none below 0")


def what_differs(plan: Plan, other: Plan) -> str:
    """Return in what two plans differ, except for the number of rounds; empty when they agree."""
    for name in plan.__struct_fields__:
        ours, theirs = getattr(plan, name), getattr(other, name)
        if name != "rounds" and ours != theirs:
            return f"{name} {theirs!r}, not {ours!r}"
    return ""
