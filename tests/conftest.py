import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from maceproc.errors import TracingError
from maceproc.recording.tracing import mounted_tracefs
from tests.engine import Engine, NoEngineError, Podman, started_engine, started_podman

_mounts = ExitStack()


def pytest_configure() -> None:
    """Mount tracefs where it is not, before any test asks whether it can record."""
    with suppress(TracingError):  # then the tests say that they need it
        _mounts.enter_context(mounted_tracefs())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run a test that records again where it fails, twice at most: the summary names it (RERUN).

    Such a test shares CPUs, clock and tracing system with whatever else runs on the machine. With
    ``--reruns 0`` every failure is shown at once.
    """
    if config.getoption("reruns", None) is not None:
        return
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make a module's fixtures anew for a test that runs again: mostly they are what it judges."""
    if getattr(item, "execution_count", 1) > 1 and isinstance(item, pytest.Function):
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            for definition in definitions:
                if definition.scope == "module":
                    definition.finish(item._request)


def pytest_unconfigure() -> None:
    _mounts.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A container engine, started once. Without one its tests are skipped; in CI they fail."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(started_engine())
        except NoEngineError as error:
            if os.environ.get("CI"):
                pytest.fail(f"no container engine in CI: {error}")
            pytest.skip(f"no container engine: {error}")
        yield started


@pytest.fixture(scope="session")
def podman(engine: Engine) -> Iterator[Podman]:
    """Podman beside the engine; where it does not work its tests are skipped."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(started_podman(engine))
        except NoEngineError as error:
            pytest.skip(f"no Podman: {error}")
        yield started
