"""Coroutines as tests, and a real broker for them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from world import World

TEST_MAX = 90.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Runs an `async def` test to its end, but not for ever."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def bounded() -> None:
        await asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_MAX)

    asyncio.run(bounded())
    return True


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A broker for tests that leave it as it is."""
    with World(tmp_path_factory.mktemp("shared")) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A broker of the test's own."""
    with World(tmp_path) as world:
        yield world
