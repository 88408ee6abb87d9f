"""The containers and namespaces that are to be watched, and which of them are there at the moment.

Asking an engine costs a process and CPU time. So an engine is asked again only when the network
namespaces of this machine have changed; /proc lists them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maceproc.errors import MaceprocError, TargetError
from maceproc.recording.compose import find_service
from maceproc.recording.engines import ENGINES, ask, find_container, reason
from maceproc.recording.lab import Lab
from maceproc.recording.sites import (
    NamedKind,
    Site,
    container_site,
    lab_site,
    named_site,
    netns_site,
    pid_site,
)

SETTLING_S = (0.0, 1.0, 2.0, 4.0, 8.0)
"""When engines are asked after a change: a container's namespace is there before its devices."""
ASK_AGAIN_S = (1.0, 10.0)
"""When engines are asked again where something was missing: first after so long, at most so long.

An engine that was started again may have containers that went on: no namespace changes then.
"""


@dataclass(frozen=True)
class Wanted:
    """What is to be watched, as the user says it."""

    containers: tuple[str, ...] = ()
    every_container: bool = False
    netns: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    lab: str | None = None
    services: tuple[str, ...] = ()  # of Compose: every container of each
    others: tuple[tuple[NamedKind, str], ...] = ()  # pods, machines, units: kind and name

    @property
    def uses_engines(self) -> bool:
        """Engines, or programs like them, have to be asked."""
        return bool(self.containers or self.every_container or self.services or self.others)


@dataclass(frozen=True)
class Place:
    """A network namespace to watch: its name for people, its identity, and how to enter it.

    The kernel gives an inode number to the next namespace at once when one has ended. `life` tells
    them apart: when the process began by which we know it, or when its file was made.
    """

    name: str
    inode: int
    site: Site
    life: str


class Places:
    """Finds the places that are wanted, again and again, at little cost."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._namespaces: dict[int, int] = {}
        self._ask_at: list[float] = []  # monotonic [s]
        self._again_s = ASK_AGAIN_S[0]
        self._in_containers: dict[int, Place] = {}
        self._found_for: dict[str, list[Place]] = {}  # when what the user named was last found
        self._failures: dict[str, str] = {}  # what is not found, and what is told when it is
        self.notes: list[str] = []  # what is new to tell, taken away by whoever tells it

    def find(self) -> dict[int, Place]:
        """Return what is there of what is wanted, by the namespace's inode number."""
        found = {place.inode: place for place in self._named()}
        if self._wanted.uses_engines:
            found = self._of_engines() | found
        return found

    def _named(self) -> Iterable[Place]:
        """Yield the places that need no engine; a note tells once that a place is not there."""
        makers: list[tuple[str, Callable[[], Site]]] = []
        makers += [(name, partial(netns_site, name)) for name in self._wanted.netns]
        makers += [(f"pid {pid}", partial(pid_site, pid)) for pid in self._wanted.pids]
        for what, make in makers:
            try:
                site = make()
                yield Place(site.inside.name, site.inside.inode, site, _life(site))
                self._works(what)
            except TargetError as error:
                self._fails(what, error)
            except OSError as error:  # its files may not be looked at, even by root
                self._fails(what, TargetError(f"{what}: {error.strerror}"))
        if self._wanted.lab is not None:
            yield from self._of_lab(self._wanted.lab)

    def _of_lab(self, name: str) -> Iterable[Place]:
        """Yield a place for each container of a lab."""
        lab = Lab(name)
        try:
            site = lab_site(lab)
        except TargetError as error:
            self._fails(f"lab {name}", error)
            return
        self._works(f"lab {name}")
        spaces = [site.inside, *site.around]
        for inside in spaces:
            if inside.name.startswith("container"):
                around = tuple(other for other in spaces if other is not inside)
                there = Site("lab", name, inside, around)
                yield Place(inside.name, inside.inode, there, _life(there))

    def _of_engines(self) -> dict[int, Place]:
        """Return the places that engines have; they are asked when namespaces came or went."""
        now = time.monotonic()
        there = _namespaces_in_use()
        if there != self._namespaces:
            self._namespaces = there
            self._ask_at = [now + after_s for after_s in SETTLING_S]
            self._again_s = ASK_AGAIN_S[0]
        if self._ask_at and now >= self._ask_at[0]:
            self._ask_at = [at for at in self._ask_at if at > now]
            self._ask()
            if self._failures and not self._ask_at:
                self._again_s = min(2 * self._again_s, ASK_AGAIN_S[1])
                self._ask_at = [now + self._again_s]
        self._in_containers = {
            inode: place
            for inode, place in self._in_containers.items()
            if inode in there and _life(place.site) == place.life
        }
        return self._in_containers

    def _ask(self) -> None:
        names: Sequence[str] = self._wanted.containers
        engines = [engine for engine in ENGINES if shutil.which(engine)]
        for engine in engines if self._wanted.every_container else ():
            try:
                names = [*names, *_running(engine)]
                self._works(engine)
            except TargetError as error:
                self._fails(engine, error)
        known = {place.site.container for place in self._in_containers.values()}
        ids = {container.id for container in known if container}
        for name in dict.fromkeys(names):
            if name in ids:
                continue
            try:
                self._remember(name, [container_site(find_container(name))])
            except TargetError as error:
                if name in self._wanted.containers:  # of others, one may have ended meanwhile
                    self._fails(name, error)
        self._ask_for_others()

    def _ask_for_others(self) -> None:
        """Look for the services of Compose, and for what is neither a container nor a namespace."""
        wanted: list[tuple[str, Callable[[], list[Site]]]] = [
            (f"service {name}", partial(_sites_of_service, name)) for name in self._wanted.services
        ]
        wanted += [
            (f"{kind} {name}", partial(_sites_by_name, kind, name))
            for kind, name in self._wanted.others
        ]
        for what, find in wanted:
            try:
                self._remember(what, find())
            except TargetError as error:
                self._fails(what, error)

    def _remember(self, what: str, sites: Sequence[Site]) -> None:
        """Take note of the places that `what` was found to be."""
        places = []
        for site in sites:
            try:
                places.append(Place(site.inside.name, site.inside.inode, site, _life(site)))
            except TargetError:
                continue  # it has ended
        for place in places:
            known = self._in_containers.get(place.inode)
            if known is None or (known.life != place.life and _life(known.site) != known.life):
                self._in_containers[place.inode] = place
        self._found_for[what] = places
        self._works(what)

    def _works(self, what: str) -> None:
        if what in self._failures:
            self.notes.append(self._failures.pop(what))

    def _fails(self, what: str, error: MaceprocError) -> None:
        if what in self._failures:
            return
        if self._is_followed(what):  # a container goes on without its engine
            then, again = "what is followed is followed on", f"{what}: there is an answer again"
        else:
            then, again = "it is watched as soon as it is there", f"{what} is there again"
        self._failures[what] = again
        self.notes.append(f"{error.message}; {then}")

    def _is_followed(self, what: str) -> bool:
        """Tell whether a place still lives that `what` was found to be, or that an engine has."""
        of_engine = [
            place
            for place in self._in_containers.values()
            if place.site.container and place.site.container.engine == what
        ]
        found = [*self._found_for.get(what, ()), *of_engine]
        return any(place.life and _life(place.site) == place.life for place in found)


def _sites_of_service(name: str) -> list[Site]:
    return [container_site(container) for container in find_service(name)]


def _sites_by_name(kind: NamedKind, name: str) -> list[Site]:
    return [named_site(kind, name)]


def _running(engine: str) -> list[str]:
    """Return the ids of the containers that run in an engine; TargetError when it does not say."""
    done = ask([engine, "ps", "--quiet", "--no-trunc"], timeout_s=10.0)
    if done.returncode:
        raise TargetError(f"{engine}: {reason(done)}")
    return done.stdout.split()


def _life(site: Site) -> str:
    """Return a text that differs between two namespaces that had the same inode number."""
    path = Path(site.inside.path)
    try:
        if path.parts[:2] == ("/", "proc"):  # /proc/PID/ns/net
            # The 22nd field is the start time, proc(5); the 2nd may have blanks and brackets in it.
            stat = Path("/proc", path.parts[2], "stat").read_text()
            return f"{path.parts[2]} {stat.rpartition(')')[2].split()[19]}"
        return str(path.stat().st_ctime_ns)
    except OSError:
        return ""


def _namespaces_in_use() -> dict[int, int]:
    """Return the network namespaces that processes of this machine are in, by inode number.

    The value is the lowest pid of the processes in it. When that pid changes, the inode number may
    be that of another namespace.
    """
    found: dict[int, int] = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                try:  # a Path for each of many processes would take longer than the rest
                    inode = int(os.readlink(f"/proc/{entry.name}/ns/net")[5:-1])  # noqa: PTH115
                except OSError:  # it has ended, or may not be looked at
                    continue
                found[inode] = min(int(entry.name), found.get(inode, 1 << 31))
    return found
