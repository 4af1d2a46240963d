"""A cancellation at each point at which a call waits: nothing is left behind, and the next call works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from valetkey import Broker
from valetkey.integrations import Guard, GuardedTool
from valetkey.onepassword import Client
from valetkey.testing import FakeBroker

REF = "op://Travel/Navan/password"
OTHER = "op://Travel/Navan/username"
ASKED: dict[str, Any] = {"tool": "navan", "purpose": "test"}


class Interrupted:
    """Awaits it; at its n-th wait the task is cancelled."""

    def __init__(self, work: Awaitable[object], at: int) -> None:
        self._work, self._at = work, at

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._work.__await__()
        waits = 0
        while True:
            try:
                waited_for = steps.send(None)
            except StopIteration as done:
                return done.value
            waits += 1
            if waits == self._at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waited_for
            except BaseException as error:
                try:
                    waited_for = steps.throw(error)
                except StopIteration as done:
                    return done.value
                yield waited_for


async def interrupted(work: Awaitable[object], at: int) -> bool:
    """Whether it was cancelled, rather than at its end before."""

    async def run() -> None:
        await Interrupted(work, at)

    task = asyncio.create_task(run())
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def hold(broker: Broker) -> None:
    async with broker.lease({"p": REF}, **ASKED) as lease:
        await lease["p"].redeem()


async def hold_again(broker: Broker) -> None:
    """Around a broker that ends the lease in between."""
    async with broker.lease({"p": REF}, **ASKED) as lease:
        await lease.ready()
        await broker.end_lease(lease.id)
        await lease.revoked.wait()


async def close(broker: Broker) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(broker.lease({"p": REF}, **ASKED))
        await broker.close()


async def check(broker: Broker) -> None:
    await broker.check(REF, tool="navan")


async def resolve(broker: Broker) -> None:
    client = await Client.authenticate(None, "test", "v1")
    await client.secrets.resolve(REF)
    await client.secrets.resolve_all([REF, OTHER, "op://Travel/Navan/nothing"])
    await client.close()


@pytest.fixture
def fake(valetkey_broker: FakeBroker) -> FakeBroker:
    valetkey_broker.secrets.update({REF: "hunter2", OTHER: "ana"})
    return valetkey_broker


async def gone(fake: FakeBroker, before: set[asyncio.Task[Any]]) -> None:
    end = time.monotonic() + 20
    while fake.leases or {task for task in asyncio.all_tasks() - before if ours(task)}:
        assert time.monotonic() < end, f"left behind: {fake.leases} leases, {asyncio.all_tasks() - before}"
        await asyncio.sleep(0.001)


def ours(task: asyncio.Task[Any]) -> bool:
    """gRPC has some of its own that last as long as the connection."""
    return "valetkey" in repr(task.get_coro())


@pytest.mark.parametrize("work", [hold, hold_again, close, check, resolve])
async def test_at_each_wait(fake: FakeBroker, work: Callable[[Broker], Awaitable[None]]) -> None:
    before = asyncio.all_tasks()
    at = 1
    async with fake.broker() as broker:
        while await interrupted(work(broker), at):
            await gone(fake, before)
            at += 1
            assert at < 200, "it never comes to its end"
        assert at > 1, "it was never interrupted"
        await hold(broker)
    await gone(fake, before)


async def test_at_each_wait_of_a_guarded_tool(fake: FakeBroker) -> None:
    async def pay(card: str) -> str:
        await asyncio.sleep(0)
        return card

    before = asyncio.all_tasks()
    at = 1
    with fake.sync_broker() as broker:
        guard = Guard(broker, {"pay": GuardedTool("pay", fields=["card"], redeem_with=broker)})
        tool = guard.wrap(pay)
        while await interrupted(tool(REF), at):
            await gone(fake, before)
            at += 1
        assert at > 1, "it was never interrupted"
        assert "concealed" in await tool(REF)
