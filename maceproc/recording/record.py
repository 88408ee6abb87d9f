"""Make a capture: record the kernel's net events beside a ping, in arms and rounds.

A round runs the command once per arm: in the container traced and untraced, and natively (from the
host) untraced. What tracing costs is the difference of the first two; how good the correction is
shows against the third. Rounds alternate the order of the arms, so that drift cancels.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

from maceproc import __version__
from maceproc.capture import (
    Capture,
    Link,
    Machine,
    Place,
    Run,
    Sidecar,
    Tracing,
    find_link,
    save_sidecar,
    sidecar_path,
)
from maceproc.errors import (
    CaptureError,
    CommandError,
    Interrupted,
    PrivilegeError,
    TargetError,
    TracingError,
)
from maceproc.recording.command import (
    Command,
    find_ping_in_container,
    find_program,
    parse_command,
    resolve,
    resolve_in_container,
)
from maceproc.recording.engine_command import is_engine, parse_engine_command
from maceproc.recording.entrances import EngineExec, Entrance
from maceproc.recording.lab import REMOTE_IPV4, REMOTE_IPV6
from maceproc.recording.native import describe_native, why_no_program, why_no_reply
from maceproc.recording.output import is_full, make_output, printed_bytes, printed_text
from maceproc.recording.sites import Site, engine_site
from maceproc.recording.survey import Survey, survey
from maceproc.recording.tracing import (
    CLOCK,
    Recorder,
    available_events,
    default_buffer_kb,
    mounted_tracefs,
    remove_stale_instances,
    tracecmd_version,
)

EventSet = Literal["minimal", "full", "list"]

# What is recorded, and why. `minimal` is the smallest set that gives the whole ledger.
# The smallest set that gives the whole ledger. What it adds to the median RTT of `ping -i 0.02` in
# the lab, over 24 interleaved rounds: net:* 18 us, these 6.5; with net_dev_start_xmit 8.5, with
# netif_receive_skb too 11; skb_copy_datagram_iovec in place of the receive calls 11. A returning
# receive call costs less than nothing: it comes before ping takes its send stamp, and warms the
# caches for the events after it. So it is not filtered either (`ret > 0`: 7.5).
MINIMAL_EVENTS = {
    "syscalls:sys_enter_sendto": "the ledger begins: the ping enters the kernel",
    "syscalls:sys_enter_sendmsg": "the same, of programs that use it",
    "net:net_dev_queue": "outbound point of both the inner and the outer device",
    "net:netif_rx": "receive event of a veth, where the kernel takes the receive stamp",
    "syscalls:sys_exit_recvmsg": "the reply reaches the ping: the ledger ends",
    "syscalls:sys_exit_recvfrom": "the same, of programs that use it",
}
QUEUE_EVENTS = {"net:net_dev_start_xmit": "the packet leaves the outer device's queue"}
DRIVER_EVENTS = {"net:netif_receive_skb": "receive event of any other device, or with GRO"}
FULL_EVENTS = {
    "net:*": "every step through the network devices",
    "skb:*": "birth, copy and end of every skb",
    "napi:napi_poll": "when the receive softirq polls a device",
    "neigh:*": "address resolution, which delays a first packet",
    "qdisc:qdisc_enqueue": "waiting in the outer device's queue begins",
    "qdisc:qdisc_dequeue": "and ends",
    "irq:softirq_*": "delay between a packet's arrival and the softirq that handles it",
    "syscalls:sys_*_sendto": "a datagram's way into the kernel",
    "syscalls:sys_*_sendmsg": "the same",
    "syscalls:sys_*_recvmsg": "its way out",
    "syscalls:sys_*_recvfrom": "the same",
}

# What runs beside us, and the Debian package that has it.
_PROGRAMS = {
    "trace-cmd": "trace-cmd",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "lsns": "util-linux",
    "setpriv": "util-linux",
}

CPU_DMA_LATENCY = Path("/dev/cpu_dma_latency")
FIRST_PID_NAMESPACE = 0xEFFFFFFC
CAP_SYS_ADMIN = 21  # include/uapi/linux/capability.h
SETTLE_S = 0.02  # between switching events and the run: enabling a tracepoint patches code
GRACE_S = 5.0  # for an interrupted command to print its summary and end
_NO_REPLY = re.compile(r"\b0 (packets )?received\b")  # iputils and busybox


class Arm(NamedTuple):
    """One way of running the command."""

    place: Place
    traced: bool
    entrance: Entrance

    def __str__(self) -> str:
        return f"{self.place} {'traced' if self.traced else 'untraced'}"


class Progress(NamedTuple):
    """How far a recording is: told before every run, and after the last one."""

    done: int
    total: int
    arm: str


def record(
    command: list[str],
    site: Site,
    output: str | Path = "trace.dat",
    *,
    rounds: int = 1,
    baseline: bool = True,
    events: str = "minimal",
    outer: str = "",
    force: bool = False,
    buffer_kb: int | None = None,
    awake: bool = False,
    announce: Callable[[Sidecar], None] = lambda _: None,
    tell: Callable[[Progress], None] = lambda _: None,
    show: Callable[[bytes], None] | None = None,
) -> Capture:
    """Record a command, with its arms and rounds, into a trace file and its sidecar.

    Raises RecordError and its subclasses, CaptureError when the output exists or cannot be written,
    and Interrupted after Ctrl-C or SIGTERM. What was recorded until then is kept.

    Parameters
    ----------
    command
        The command line; ping gets -D where it knows it.
    site
        Where to run it, from `maceproc.recording.sites`.
    baseline
        Run the untraced arms too. Without them there is no perturbation to report.
    events
        ``minimal``, ``full``, or events and patterns separated by commas (``net:*,skb:kfree_skb``).
    outer
        The outer device, when it is not the one that the host's routes choose.
    buffer_kb
        Ring buffer per CPU [KiB]; by default `default_buffer_kb`.
    awake
        Keep the CPUs from going idle while any arm runs: RTTs without the cost of waking up.
    announce
        Told, before anything runs, what will be recorded, on which path, and what cannot be seen.
    tell
        Told the progress before every run, and after the last.
    show
        Given what the command prints, at most once a second, when there is a single run.
    """
    require_root()
    trace = Path(output)
    check_output(trace, force=force)
    with (
        _understood(command, site) as (place, parsed),
        mounted_tracefs() as tracefs,
        Interruption() as interruption,
    ):
        surveyed = survey(place, destination_address(parsed, place), outer)
        if place.launch:
            surveyed.target.transient = True
            surveyed.target.notes.append(
                f"every run has a container of its own, made of {place.launch.inside.image}; "
                "the path is that of a first one"
            )
        minimal = minimal_events(path_links(surveyed))
        chosen, event_set, notes = choose_events(events, available_events(tracefs), minimal)
        remove_stale_instances(tracefs)
        recorder = Recorder(trace, chosen, buffer_kb or default_buffer_kb(), tracefs)
        stamped = parsed.with_timestamps(command_inside(place))
        arms = list(_arms(place, surveyed, stamped, baseline, notes))
        sidecar = Sidecar(
            maceproc=__version__,
            command=list(command),
            rounds=rounds,
            target=surveyed.target,
            runs=[],
            namespaces=surveyed.namespaces,
            tracing=describe_tracing(recorder, event_set),
            machine=describe_machine(awake),
            notes=notes,
        )
        plan = list(schedule(arms, rounds))
        if any(arm.place == "native" for arm in arms) and not place.is_native:
            sidecar.native = describe_native(place, stamped)
        place.end_first_look()
        session = _Session(recorder, interruption, stamped, sidecar)
        announce(sidecar)
        with cpus_awake() if awake else contextlib.nullcontext():
            session.execute(plan, tell, show if len(plan) == 1 else None)
    _judge(sidecar, interruption, parsed, place, trace)
    return Capture(trace, sidecar)


@contextlib.contextmanager
def _understood(command: list[str], site: Site) -> Iterator[tuple[Site, Command]]:
    """Give where a command runs, and the command, which can be that of a container engine."""
    if not is_engine(command):
        parsed = with_destination(parse_command(command), site)
        require_command(parsed, site)
        require_programs()
        yield site, parsed
        return
    if site.kind != "here":
        raise CommandError(
            f"{command[0]} says by itself where the command runs", hint="give no other target"
        )
    require_programs()
    with engine_site(parse_engine_command(command), site.native) as (inside, parsed):
        require_command(parsed, inside)
        yield inside, parsed


def require_root() -> None:
    """Raise PrivilegeError unless this process may trace and enter namespaces."""
    if os.geteuid() != 0:
        raise PrivilegeError("recording needs root", hint="run it with sudo")
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", _read("/proc/self/status"), re.MULTILINE)
    if effective and not int(effective[1], 16) >> CAP_SYS_ADMIN & 1:
        raise PrivilegeError(
            "recording needs CAP_SYS_ADMIN, which this root has not",
            hint="run it on the host, or in a container started with --privileged",
        )


def require_programs() -> None:
    """Raise TracingError when a program that recording needs is not installed."""
    for name, package in _PROGRAMS.items():
        if shutil.which(name) is None:
            raise TracingError(
                f"{name}: not found", hint=f"install it (Debian: apt install {package})"
            )


def sees_kernel_pids() -> bool:
    """Tell whether a pid that we know is the one in the kernel's events.

    They hold that of the first pid namespace, which has a fixed inode (PROC_PID_INIT_INO,
    include/linux/proc_ns.h, v6.8).
    """
    return Path("/proc/self/ns/pid").stat().st_ino == FIRST_PID_NAMESPACE


def check_output(trace: Path, *, force: bool) -> None:
    """Raise CaptureError when a capture exists there already, or could not be written."""
    if not trace.parent.is_dir():
        raise CaptureError(
            f"{trace.parent}: no such directory", hint="make it, or choose another -o"
        )
    if trace.is_dir():
        raise CaptureError(f"{trace}: is a directory", hint="name a file with -o")
    for path in (trace, sidecar_path(trace)):
        if path.exists() and not force:
            raise CaptureError(
                f"{path}: exists", hint="choose another name with -o, or use --force"
            )
    try:
        trace.open("ab").close()
    except OSError as error:
        raise CaptureError(
            f"{trace}: cannot be written: {error.strerror}", hint="choose another place with -o"
        ) from error
    if not trace.stat().st_size:
        trace.unlink()


def with_destination(command: Command, site: Site) -> Command:
    """Return the command; a ping in the lab that names no destination is sent to the remote."""
    if command.is_ping and not command.destination and site.kind == "lab":
        return command.to(REMOTE_IPV6 if command.family == socket.AF_INET6 else REMOTE_IPV4)
    return command


def path_links(surveyed: Survey) -> list[Link | None]:
    """Return the devices of a survey's path, from the inner to the card; None for an unknown."""
    hops = [*surveyed.target.path, *surveyed.target.below]
    return [find_link(surveyed.namespaces, hop) for hop in hops]


def minimal_events(path: Sequence[Link | None]) -> list[str]:
    """Return the smallest set of events that gives the whole ledger along these devices.

    A device without a queue gets a packet in the call that queues it (net/core/dev.c,
    __dev_queue_xmit(), v6.8); a veth receives by netif_rx(), if GRO is off. Of no devices, all
    events that may be needed.
    """
    events = list(MINIMAL_EVENTS)
    inner, outer = (path[0], path[-1]) if path else (None, None)
    veths = [link for link in path[1:-1] if link and link.kind == "veth"]
    if outer is None or outer.qdisc != "noqueue":
        events += QUEUE_EVENTS
    if not all(link and link.uses_netif_rx for link in (inner, *veths, outer)):
        events += DRIVER_EVENTS
    return events


def choose_events(
    spec: str, available: list[str], minimal: list[str]
) -> tuple[list[str], EventSet, list[str]]:
    """Return the events that a specification names, its set's name, and notes on what is missing.

    Raises TracingError when this kernel lacks one of `minimal` or of a list.
    """
    sets: dict[str, EventSet] = {"minimal": "minimal", "full": "full"}
    event_set = sets.get(spec, "list")
    wanted = {"minimal": minimal, "full": list(FULL_EVENTS)}.get(spec)
    patterns = wanted or [word.strip() for word in spec.split(",") if word.strip()]
    missing = [p for p in patterns if not any(fnmatch(event, p) for event in available)]
    chosen = [event for event in available if any(fnmatch(event, p) for p in patterns)]
    if (missing and event_set != "full") or not chosen:
        raise TracingError(
            f"this kernel has no event {', '.join(missing) or repr(spec)}",
            hint="`trace-cmd list -e` shows those it has; name some with --events SYSTEM:EVENT,...",
        )
    return chosen, event_set, [f"this kernel has no event {name}" for name in missing]


def schedule(arms: list[Arm], rounds: int) -> Iterator[tuple[int, Arm]]:
    """Yield (round, arm) in the order they run: every second round the other way round."""
    for number in range(1, rounds + 1):
        for arm in arms if number % 2 else reversed(arms):
            yield number, arm


@contextlib.contextmanager
def cpus_awake() -> Iterator[None]:
    """Keep every CPU out of idle states as long as the block runs.

    An open /dev/cpu_dma_latency holds the latency written to it
    (Documentation/power/pm_qos_interface.rst, v6.8). Raises TracingError where that is not allowed.
    """
    try:
        with CPU_DMA_LATENCY.open("wb", buffering=0) as device:
            device.write(struct.pack("i", 0))
            yield
    except OSError as error:
        if error.filename != str(CPU_DMA_LATENCY):
            raise
        raise TracingError(
            f"{CPU_DMA_LATENCY}: {error.strerror}", hint="record without --awake"
        ) from error


def describe_machine(awake: bool = False) -> Machine:
    """Describe this machine, as far as it decides a latency."""
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    hypervisor = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE)
    vendor = _read("/sys/class/dmi/id/sys_vendor")
    return Machine(
        kernel=platform.release(),
        cpu=model[1] if model else platform.machine(),
        cpus=os.cpu_count() or 0,
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        virtualization=(vendor or "a hypervisor") if hypervisor else "",
        load_average=os.getloadavg()[0],
        awake=awake,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def command_inside(site: Site) -> EngineExec | None:
    """Return the container that a site's command is executed in; None: it is this machine's."""
    entrance = site.first_entrance
    return entrance if isinstance(entrance, EngineExec) else None


def require_command(command: Command, site: Site) -> None:
    """Make sure that the command can be executed where it is to run; CommandError when not."""
    inside = command_inside(site)
    if inside is None:
        find_program(command)
    elif command.is_ping:  # of any other program, the engine itself says so when it runs
        find_ping_in_container(command, inside)


def destination_address(command: Command, site: Site) -> str:
    """Return the address that the command sends to; empty when unknown."""
    if not command.destination:
        return REMOTE_IPV4 if site.kind == "lab" else ""
    address = _resolve(command, site.first_entrance)
    if not address:
        where = f" for container {site.name!r}" if site.own_programs else ""
        raise CommandError(
            f"{command.destination}: no such host{where}", hint="check the name, or give an address"
        )
    return address


def _resolve(command: Command, entrance: Entrance) -> str:
    """Return the address of the destination, as it is known where the command runs."""
    if command.is_ping and isinstance(entrance, EngineExec) and not command.has_literal_destination:
        return resolve_in_container(command, entrance)
    return resolve(command.destination, command.family)


def _arms(
    site: Site, surveyed: Survey, command: Command, baseline: bool, notes: list[str]
) -> Iterator[Arm]:
    """Yield the arms of a round; a note tells why one that was wanted is missing."""
    place: Place = "native" if site.is_native else "container"
    yield Arm(place, True, site.entrance)
    if not baseline:
        return
    yield Arm(place, False, site.entrance)
    if site.is_native:
        return
    reason = no_native_control(site, surveyed, command)
    if reason:
        notes.append(f"no native control: {reason}")
    elif surveyed.host:
        yield Arm("native", False, site.native_entrance(surveyed.host))


def no_native_control(site: Site, surveyed: Survey, command: Command) -> str:
    """Return why the command cannot be run from the host; empty when it can."""
    if surveyed.host is None:
        return "no outer device is known"
    address = surveyed.target.address
    if command.destination and resolve(command.destination, command.family) != address:
        return f"{surveyed.host.name} does not know {command.destination} as {address}"
    reason = why_no_program(site, command)
    if not reason and command.is_ping:
        reason = why_no_reply(site, surveyed.host, command, address)
    return reason


def describe_tracing(recorder: Recorder, event_set: EventSet) -> Tracing:
    """Describe how a recorder records, for the sidecar."""
    return Tracing(
        events=recorder.events,
        event_set=event_set,
        clock=CLOCK,
        instance=recorder.instance,
        buffer_size_kb=recorder.buffer_kb,
        tracecmd_version=tracecmd_version(),
        function_tracer_denied=recorder.covers_function_tracer,
    )


class _Session:
    """Runs the plan, and fills in the sidecar."""

    def __init__(
        self, recorder: Recorder, interruption: Interruption, command: Command, sidecar: Sidecar
    ) -> None:
        self._recorder = recorder
        self._interruption = interruption
        self._command = command
        self._sidecar = sidecar
        self._others: set[str] = set()  # instances that traced during an untraced run

    def execute(
        self,
        plan: list[tuple[int, Arm]],
        tell: Callable[[Progress], None],
        show: Callable[[bytes], None] | None,
    ) -> None:
        """Run every arm of the plan; however that ends, leave a trace with a sidecar."""
        if self._interruption.signal_number:
            return
        trace = self._recorder.output
        for old in (trace, sidecar_path(trace)):
            old.unlink(missing_ok=True)
        try:
            with self._recorder:
                for done, (number, arm) in enumerate(plan):
                    tell(Progress(done, len(plan), str(arm)))
                    if self._interruption.signal_number or self._has_failed():
                        break
                    self._run(number, arm, show)
                    if not arm.entrance.is_alive():
                        break
        except BaseException:
            with contextlib.suppress(CaptureError):  # the first error is the one to tell
                self._save(trace)
            raise
        self._save(trace)
        tell(Progress(len(plan), len(plan), ""))

    def _save(self, trace: Path) -> None:
        self._sidecar.interrupted = self._interruption.reason
        self._sidecar.tracing.events_lost = self._recorder.events_lost
        if self._others:
            names = ", ".join(
                sorted(repr(name) if name else "the top one" for name in self._others)
            )
            self._sidecar.notes.append(
                f"untraced runs were traced by somebody else, in another instance ({names})"
            )
        if self._sidecar.runs or trace.exists():
            save_sidecar(sidecar_path(trace), self._sidecar)

    def _has_failed(self) -> bool:
        runs = self._sidecar.runs
        return bool(runs) and failed(self._command, runs[-1])

    def _run(self, number: int, arm: Arm, show: Callable[[bytes], None] | None) -> None:
        run = Run(round=number, place=arm.place, traced=arm.traced, argv=list(self._command.argv))
        self._recorder.check_running()
        self._sidecar.runs.append(run)
        with self._traced() if arm.traced else self._untraced():
            time.sleep(SETTLE_S)
            execute(run, arm.entrance, self._interruption, show)

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        self._recorder.switch_on()
        try:
            yield
        finally:
            self._recorder.switch_off()

    @contextlib.contextmanager
    def _untraced(self) -> Iterator[None]:
        self._others.update(self._recorder.others())
        yield
        self._others.update(self._recorder.others())


def execute(
    run: Run,
    entrance: Entrance,
    interruption: Interruption,
    show: Callable[[bytes], None] | None,
) -> None:
    """Run the command and wait, asleep: what it prints goes to memory, and is read afterwards."""
    with _Memory("stdout", show) as stdout, _Memory("stderr", None) as stderr:
        run.start_ns, run.start_utc_ns = time.monotonic_ns(), time.time_ns()
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", *entrance.enter(run.argv)],
            stdin=subprocess.DEVNULL,
            stdout=stdout.fd,
            stderr=stderr.fd,
            env=os.environ | {"LC_ALL": "C"},
            process_group=0,  # Ctrl-C in the terminal is ours to pass on
        )
        pid = entrance.find_pid(process)
        run.pid = pid if sees_kernel_pids() else None
        longest_s = parse_command(run.argv).longest_s
        with interruption.watching(process, pid) as running, running.no_longer_than(longest_s):
            run.exit_status = process.wait()
        run.end_ns, run.end_utc_ns = time.monotonic_ns(), time.time_ns()
        run.output, run.errors = stdout.text(), stderr.text()
        run.cut = is_full(stdout.fd) or is_full(stderr.fd)


class _Memory:
    """A file in memory that a command prints to: it wakes nobody, and a full disk spares it."""

    def __init__(self, name: str, show: Callable[[bytes], None] | None) -> None:
        self.fd = make_output(name)
        self._show = show
        self._shown = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> _Memory:
        if self._show:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._show:
            self._thread.join()
            self._show_more()
        os.close(self.fd)

    def text(self) -> str:
        """Return what was printed so far."""
        return printed_text(self.fd)

    def _follow(self) -> None:
        while not self._over.wait(1.0):
            self._show_more()

    def _show_more(self) -> None:
        more = os.pread(self.fd, printed_bytes(self.fd) - self._shown, self._shown)
        self._shown += len(more)
        if more and self._show:
            self._show(more)


class Interruption:
    """Ctrl-C, SIGTERM and SIGHUP: the command is asked to end, and the recording ends after it.

    A second signal, or a command that does not end, is answered with SIGKILL.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.signal_number = 0
        self._running: _Running | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str:
        """The signal's name; empty when there was none."""
        return signal.Signals(self.signal_number).name if self.signal_number else ""

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self._SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def watching(self, process: subprocess.Popen[bytes], pid: int | None) -> Iterator[_Running]:
        """While the block runs, a signal ends this process; so does one that has come already."""
        with _Running(process, pid) as running:
            self._running = running
            if self.signal_number:
                self._end(signal.SIGINT)
            yield running
            self._running = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._end(signal.SIGKILL if self.signal_number else signal.SIGINT)
        self.signal_number = self.signal_number or number

    def _end(self, number: signal.Signals) -> None:
        if self._running is not None:
            self._running.send_signal(number)
            killer = threading.Timer(GRACE_S, self._running.send_signal, [signal.SIGKILL])
            killer.daemon = True
            killer.start()


class _Running:
    """A command that runs: our child, or started by a container engine that is our child.

    An engine does not pass signals on to what it executes: that gets them from us.
    """

    def __init__(self, process: subprocess.Popen[bytes], pid: int | None) -> None:
        self._process = process
        self._pidfd = -1
        if pid not in (None, process.pid):
            with contextlib.suppress(OSError):  # it has ended
                self._pidfd = os.pidfd_open(pid)

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):  # where the engine's program alone ended
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1

    @contextlib.contextmanager
    def no_longer_than(self, longest_s: float | None) -> Iterator[None]:
        """Kill the command when the block takes longer than that [s]; None: it may."""
        if longest_s is None:
            yield
            return
        killer = threading.Timer(longest_s, self.send_signal, [signal.SIGKILL])
        killer.daemon = True
        killer.start()
        try:
            yield
        finally:
            killer.cancel()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command; SIGKILL also to the engine's program."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
        if self._pidfd < 0 or number == signal.SIGKILL:
            self._process.send_signal(number)


def failed(command: Command, run: Run) -> bool:
    """Tell whether the command failed, or its namespace could not be entered any more."""
    return command.failed(run.exit_status) or run.errors.startswith("nsenter: ")


def _judge(
    sidecar: Sidecar, interruption: Interruption, command: Command, site: Site, trace: Path
) -> None:
    """Raise what the recording ended with; the capture is on disk already."""
    runs = sidecar.runs
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    kept = f"{count} kept in {trace}" if runs else "nothing was recorded"
    if interruption.signal_number:
        raise Interrupted(
            f"interrupted by {interruption.reason}; {kept}",
            signal_number=interruption.signal_number,
        )
    if not site.entrance.is_alive():
        raise TargetError(f"container {site.name!r} ended during the recording; {kept}")
    if failed(command, runs[-1]):
        said = (runs[-1].errors + runs[-1].output).strip().splitlines() or ["it said nothing"]
        raise CommandError(
            f"{command.argv[0]} failed with exit status {runs[-1].exit_status}: {said[0]}; {kept}"
        )
    inside = [run for run in runs if run.place == runs[0].place]
    if command.is_ping and all(_NO_REPLY.search(run.output) for run in inside):
        raise CommandError(
            f"no reply from {sidecar.target.address}; {kept}",
            hint="check the address and the routes of the target",
        )
