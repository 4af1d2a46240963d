"""Coroutines as tests, and a real broker for them."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import valetkey
from world import World

TEST_MAX = 90.0
PACKAGE = str(Path(valetkey.__file__).parent)


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


def reported(error: BaseException) -> str:
    """As an error tracker has it: each frame of the package with its locals, and the error with its fields."""
    told = [f"{error!r} {error} {vars(error)}"]
    seen: BaseException | None = error
    while seen is not None:
        stack = traceback.TracebackException.from_exception(seen, capture_locals=True).stack
        told += [f"{it.name} {it.locals}" for it in stack if it.filename.startswith(PACKAGE)]
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    assert len(told) > 1, "no frame was looked at"
    return "\n".join(told)


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
