import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.engine import Engine, NoEngineError, started_engine


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
