"""The containers of a Compose service, by the labels that Compose gives them.

Docker Compose, `nerdctl compose` and podman-compose label every container with its project and its
service (github.com/docker/compose, pkg/api/labels.go). So an engine knows them, whatever the
project's files say and wherever those are.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass

from maceproc.errors import TargetError
from maceproc.foreign_text import clean
from maceproc.recording.engines import (
    ENGINES,
    Container,
    ask,
    find_container,
    inspect,
    reason,
)

LABEL = "com.docker.compose"
MOST_CONTAINERS = 100
_ID = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9._-]{1,255}")  # compose-spec, the pattern of services


@dataclass(frozen=True)
class _Labelled:
    """A container of a service, as an engine lists it."""

    engine: str
    id: str
    project: str
    directory: str


def find_service(service: str) -> list[Container]:
    """Return the running containers of a Compose service, whichever engine has them.

    `service` is ``PROJECT/SERVICE``, or ``SERVICE``: then the project of the current directory
    comes first, and any other counts if it is the only one. Raises TargetError when there is no
    such service, or several projects have one.
    """
    project, slash, name = service.rpartition("/")
    if not _WORD.fullmatch(name) or (slash and not _WORD.fullmatch(project)):
        raise TargetError(f"no service can be called {service!r}", hint="give [PROJECT/]SERVICE")
    reasons: list[str] = []
    found = [entry for engine in _engines() for entry in _listed(engine, name, reasons)]
    if project:
        found = [entry for entry in found if entry.project == project]
    elif here := [entry for entry in found if entry.directory == os.getcwd()]:  # noqa: PTH109  a label is a string
        found = here
    if not found:
        raise TargetError(
            f"no container of service {service!r} runs{_because(reasons)}",
            hint="`docker compose ps` shows those that do",
        )
    projects = sorted({entry.project for entry in found})
    if len(projects) > 1:
        raise TargetError(
            f"{len(projects)} projects have a service {name!r}",
            hint=f"give one with its project: {clean(projects[0])[:100]}/{name}",
        )
    return [find_container(entry.id, (entry.engine,)) for entry in found]


def only_container(service: str) -> Container:
    """Return the one container of a service; TargetError when it has several."""
    found = find_service(service)
    if len(found) > 1:
        names = ", ".join(container.name for container in found[:5])
        raise TargetError(
            f"service {service!r} has {len(found)} containers",
            hint=f"--container takes one: {names}",
        )
    return found[0]


def _engines() -> list[str]:
    engines = [engine for engine in ENGINES if shutil.which(engine)]
    if not engines:
        raise TargetError(f"no container engine found ({', '.join(ENGINES)})")
    return engines


def _because(reasons: list[str]) -> str:
    return f" ({clean('; '.join(reasons))})" if reasons else ""


def _listed(engine: str, service: str, reasons: list[str]) -> list[_Labelled]:
    """Return an engine's containers of a service; where it does not answer, `reasons` grow."""
    words = ["--quiet", "--no-trunc", "--filter", f"label={LABEL}.service={service}"]
    done = ask([engine, "ps", *words])
    if done.returncode:
        reasons.append(f"{engine}: {reason(done)[:200]}")
        return []
    found = []
    for identity in done.stdout.split()[:MOST_CONTAINERS]:
        described = inspect(engine, identity) if _ID.fullmatch(identity) else ""
        if isinstance(described, str):  # it has ended meanwhile
            continue
        project = described.label(f"{LABEL}.project")
        directory = described.label(f"{LABEL}.project.working_dir")
        found.append(_Labelled(engine, identity, project, directory))
    return found
