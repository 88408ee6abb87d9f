"""The lines of a text, gathered into runs, and every run into one output per target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maceproc.pings.conclusions import conclude
from maceproc.pings.flavours import Flavour
from maceproc.pings.fping import read_fping, read_results
from maceproc.pings.invocation import Invocation, read_argv
from maceproc.pings.json_lines import read_json
from maceproc.pings.languages import WINDOWS, read_translated, read_windows
from maceproc.pings.lines import Line
from maceproc.pings.output import LINES_KEPT, LONGEST_LINE, LONGEST_LIST, PingOutput
from maceproc.pings.texts import TextLine, is_blank, is_only, lines_of, prefixes_of, streams_of
from maceproc.pings.unix import read_flood, read_unix

if TYPE_CHECKING:
    from maceproc.capture import Run

_READERS = (read_fping, read_results, read_unix, read_windows, read_translated)


def parse_ping(text: str, argv: Sequence[str] = ()) -> list[PingOutput]:
    """Read a ping's output: a result per run and target, at least one.

    A run begins at its header line, or with the first line after a summary; output without either
    is a single run. `argv` is the command line, where it is known.
    """
    invocation = read_argv(argv)
    gathered = [run for stream in streams_of(lines_of(text)) for run in _gather(stream)]
    return [output for run in gathered for output in run.outputs(invocation)]


def parse_runs(runs: Iterable[Run]) -> Iterator[tuple[Run, PingOutput]]:
    """Pair every run of a sidecar with what it printed: one output, or one for each target.

    Where a run's command started several pings one after another, the last is taken, and told; of
    several at once, each has its output.
    """
    for run in runs:
        lines = [*lines_of(run.output), *lines_of(run.errors)]
        gathered = [part for stream in streams_of(lines) for part in _gather(stream)]
        last = [part for part in gathered if part.overlaps] or gathered[-1:]
        outputs = [output for part in last for output in part.outputs(read_argv(run.argv))]
        if len(last) > 1:
            for output in outputs:
                output.targets = len(outputs)
        elif len(gathered) > 1:
            outputs[0].remarks.append(
                f"the command ran {len(gathered)} pings one after another: only the last is read"
            )
        for output in outputs:
            yield run, output


def read_line(line: TextLine) -> Line | None:
    """Return what a line says; None when it is not understood."""
    text = line.text
    if not text.strip():
        return Line("known")
    if len(text) <= LONGEST_LIST and (said := read_json(text)):
        return said
    if len(text) > LONGEST_LINE:
        return read_flood(text) or (read_results(text) if len(text) <= LONGEST_LIST else None)
    found = read_unix(text) if " bytes from " in text else None  # most lines: the others can wait
    found = found or next(filter(None, (read(text) for read in _READERS)), None)
    if found is None and is_blank(text):
        return Line("known")
    if found and found.kind == "refused":
        return found
    return found if line.whole or found is None else _without_its_end(found)


def _without_its_end(line: Line) -> Line | None:
    """Return what the last line of a text says for sure, where its end can be missing."""
    fields = line.fields
    if line.kind == "reply" and fields.get("rtt_ns") is None and "status" in fields:
        return None  # the icmp_seq or the time may have lost digits
    if line.kind == "late":
        return None
    if line.kind == "results" and fields["rtts"][-1] is not None:
        fields["rtts"][-1] = {"message": "its time may have lost digits: the line has no end"}
    return line


@dataclass
class _Target:
    """What the lines of one run say about one target, in their order."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    sent: int | None = None
    received: int | None = None


@dataclass
class Gathered:
    """The lines of one run."""

    targets: dict[str, _Target] = field(default_factory=dict)
    # Who prints such lines, and the first one that says so.
    evidence: dict[frozenset[Flavour], str] = field(default_factory=dict)
    payload_bytes: int | None = None
    begins: bool = False
    names: frozenset[str] = frozenset()  # of the header: name and address
    overlaps: bool = False  # another ping printed its lines between this one's
    flood: bool = False
    interval: bool = False  # summaries that follow are of a part of the run
    numbered: int = 0  # lines about a request, of all targets
    titled: str = ""  # the target of the summary that follows
    not_understood: list[str] = field(default_factory=list)  # the first few
    not_understood_count: int = 0
    remarks: dict[str, int] = field(default_factory=dict)
    refused: str = ""

    def begins_anew(self, line: Line) -> bool:
        """Tell whether a line belongs to the next run."""
        if line.kind == "header":
            if not self._has_numbers() and not self._has_summary():
                return self.begins and line.flavours != frozenset({"oping"})  # of several targets
            return True
        if line.kind == "prologue":
            return self._has_numbers() or self._has_summary()
        if line.kind not in ("reply", "late", "error") or not self._has_numbers():
            return False
        target = self.targets.get(self._name(line))
        # fping tells duplicates on standard error, after what it wrote to standard output.
        stays = line.fields.get("status") == "duplicate"
        return target is not None and target.sent is not None and not stays

    def speaks(self, line: Line) -> bool:
        """Tell whether a line is about the target of this run, which has not ended."""
        about = bool(self.names) and line.kind in ("reply", "late", "title") and bool(line.target)
        return about and bool(self.names & _names(line)) and not self._has_summary()

    def take(self, line: Line, text: str) -> None:
        """Add what a line says."""
        if line.flavours:
            self.evidence.setdefault(line.flavours, text.strip()[:100])
        if line.kind == "header":
            self.begins = True
            self.names = _names(line)
            self.payload_bytes = line.fields["payload_bytes"]
            self.targets.setdefault(line.target, _Target())
        elif line.kind in ("reply", "late", "error"):
            self.numbered += 1
            self._target(line).lines.append(
                {"kind": line.kind, "place": self.numbered, **line.fields}
            )
        elif line.kind in ("summary", "results"):
            self._summarize(line)
        elif line.kind == "title":
            self.titled = line.target
        elif line.kind == "interval":
            self.interval = True
        elif line.kind == "flood":
            self.flood = True
        elif line.kind == "remark":
            text = " ".join(text.split())[:200]
            if text in self.remarks or len(self.remarks) < 20:
                self.remarks[text] = self.remarks.get(text, 0) + 1

    def miss(self, text: str) -> None:
        """Count a line that is not understood."""
        self.not_understood_count += 1
        if len(self.not_understood) < LINES_KEPT:
            self.not_understood.append(text.strip()[:200])

    def _has_numbers(self) -> bool:
        return any(target.lines for target in self.targets.values())

    def _has_summary(self) -> bool:
        return any(target.sent is not None for target in self.targets.values())

    def _name(self, line: Line) -> str:
        """Return which target a line is about; most programs have only one."""
        if line.target in self.targets:
            return line.target
        name = line.target.partition(" (")[0]
        if name in self.targets:
            return name
        if line.flavours == frozenset({"fping"}):
            return line.target
        return next(iter(self.targets), "")

    def _target(self, line: Line) -> _Target:
        return self.targets.setdefault(self._name(line), _Target())

    def _summarize(self, line: Line) -> None:
        if line.kind == "results":
            rtts = line.fields["rtts"]
            counts = {"sent": len(rtts), "received": len(rtts) - rtts.count(None)}
        elif self.interval and line.fields.get("alone"):
            return
        else:
            counts = line.fields
        titled = Line(line.kind, line.flavours, line.target or self.titled)
        target = self._target(titled)
        target.sent, target.received = counts["sent"], counts["received"]
        if line.kind == "results":
            target.lines += list(_of_results(line.fields["rtts"], target.lines))

    def outputs(self, invocation: Invocation) -> list[PingOutput]:
        """Return what the run printed about each of its targets."""
        targets = self.targets or {"": _Target()}
        outputs = []
        for name, target in targets.items():
            output = PingOutput(
                payload_bytes=self.payload_bytes,
                sent=target.sent,
                received=target.received,
                target=name,
                targets=len(targets),
                begins=self.begins,
                misread=self.not_understood_count > 0,
                quiet=self.flood or invocation.quiet,
                refused=self.refused,
            )
            conclude(output, target.lines, self.evidence, invocation)
            outputs.append(output)
        payloads = {output.payload_bytes for output in outputs} - {None}
        for output in outputs:  # all targets are sent the same
            if output.payload_bytes is None and len(payloads) == 1:
                (output.payload_bytes,) = payloads
        outputs[0].not_understood = self.not_understood_count
        outputs[0].not_understood_first = self.not_understood
        said = (f"{text} ({n} times)" if n > 1 else text for text, n in self.remarks.items())
        outputs[0].remarks[:0] = [f"it said: {text}" for text in said]
        return outputs


def _of_results(
    rtts: list[dict[str, Any] | None], lines: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield a line for every result of `fping -C` that no line has told before."""
    told = {line["seq"] for line in lines}
    for seq, rtt in enumerate(rtts):
        if seq in told:
            continue
        if rtt is None:
            yield {"kind": "late", "seq": seq, "message": "no reply"}
        else:
            yield {"kind": "reply", "seq": seq, "status": "replied", "message": "", **rtt}


def _names(line: Line) -> frozenset[str]:
    """Return the names that a line gives its target."""
    name, _, address = line.target.partition(" (")
    names = {line.target, name, address.rstrip(")"), line.fields.get("address", "")}
    return frozenset(names - {""})


def _gather(lines: list[TextLine]) -> list[Gathered]:
    """Part lines into runs, at least one."""
    runs = [Gathered()]
    here = runs[0]
    prefixes = prefixes_of(lines)
    for text_line in lines:
        line = read_line(text_line)
        if line is None and is_only(prefixes, text_line.text):
            continue
        if line is None or line.kind == "refused":
            here.miss(text_line.text)
            if line is not None:
                here.refused = WINDOWS
            continue
        if not text_line.text.strip():
            here.interval = False
            continue
        here = _run_of(line, here, runs)
        here.take(line, text_line.text)
    return runs


def _run_of(line: Line, here: Gathered, runs: list[Gathered]) -> Gathered:
    """Return the run that a line belongs to: the last one, a new one, or another of several.

    Pings that run at once print their lines between each other's; they are told by their targets.
    """
    if not here.speaks(line) and line.kind in ("reply", "late", "title"):
        for other in reversed(runs[-8:]):
            if other is not here and other.speaks(line):
                other.overlaps = here.overlaps = True
                return other
    if here.begins_anew(line):
        runs.append(Gathered())
        return runs[-1]
    return here
