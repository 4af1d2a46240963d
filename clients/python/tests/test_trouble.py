"""A broker that dies, restarts, freezes, drains; a network that is cut; policies that change in mid-use.

Each gives a typed error or a silent recovery, never a wait beyond the deadline, never a stale handle.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import valetkey
from proxy import Proxy
from valetkey import Broker, Lease
from world import HERE, NAVAN, PASSWORD, USERNAME, VALUE, World, free_port

# What may be added to a deadline before it counts as one that was not kept.
SLACK = 3.0


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about"
        await asyncio.sleep(0.01)


async def fails_within(seconds: float, work: Awaitable[object], *kinds: type[valetkey.ValetkeyError]) -> Exception:
    start = time.monotonic()
    with pytest.raises(kinds) as caught:
        await work
    assert time.monotonic() - start < seconds + SLACK
    return caught.value


def handle_or_none(lease: Lease) -> str | None:
    """The handle, where there is one; what else it says must be one of ours."""
    try:
        return lease["p"].handle
    except valetkey.ValetkeyError:
        return None


@pytest.mark.parametrize("way", ["kill", "drain"])
async def test_a_broker_that_restarts_is_survived(world: World, way: str) -> None:
    async with world.broker(deadline=20) as agent, world.broker("tool:navan.book_flight") as tool:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            old, old_id = lease["p"].handle, lease.id
            if way == "kill":
                world.kill()
            else:
                world.signal(signal.SIGTERM)
                await until(lambda: lease.draining)
                assert lease["p"].handle == old, "alive until the broker has gone"
                assert world.process is not None
                await asyncio.to_thread(world.process.wait, 30)
            await until(lambda: handle_or_none(lease) is None)
            with pytest.raises(valetkey.Unavailable):
                _ = lease["p"].handle
            await asyncio.to_thread(world.start)
            await lease.ready()
            assert lease["p"].handle != old and lease.id != old_id
            assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE
            assert not lease.revoked.is_set() and not lease.draining
            with pytest.raises(valetkey.HandleNotActive):
                await tool.redeem(old)


async def test_a_broker_that_drains_is_left_for_its_successor(world: World, tmp_path: Path) -> None:
    """Another one at the same address, where new connections are led to, is asked when the old one has ended."""
    (tmp_path / "next").mkdir()
    with World(tmp_path / "next") as successor, Proxy(world.port) as network:
        agent = world.broker(address=network.address)
        tool = successor.broker("tool:navan.book_flight")
        async with agent, tool, agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            old = lease["p"].handle
            network.lead_to(successor.port)
            world.signal(signal.SIGTERM)
            await until(lambda: lease.draining)
            await until(lambda: handle_or_none(lease) != old)
            await lease.ready()
            assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE
            assert not lease.draining and not lease.revoked.is_set()
            [acquired] = {row["lease_id"] for row in successor.audit("kind:acquire")}
            assert acquired == lease.id


async def test_a_redeem_outlasts_a_restart(world: World) -> None:
    async with world.broker() as agent, world.broker("tool:navan.book_flight") as tool:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test", redeem_with=tool) as lease:
            world.kill()
            value = asyncio.create_task(lease["p"].redeem())
            await asyncio.sleep(0.3)
            await asyncio.to_thread(world.start)
            assert (await value).expose() == VALUE


async def test_a_broker_that_stays_away_is_given_up_in_time(world: World) -> None:
    async with world.broker(deadline=2) as agent, world.broker("tool:navan.book_flight", deadline=2) as tool:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            handle = lease["p"].handle
            world.kill()
            await until(lambda: handle_or_none(lease) is None)
            await fails_within(2, lease.ready(), valetkey.Unavailable, valetkey.TimedOut)
            await fails_within(2, lease["p"].redeem(redeem_with=tool), valetkey.Unavailable, valetkey.TimedOut)
            await fails_within(2, tool.redeem(handle), valetkey.Unavailable)
            await asyncio.wait_for(lease.revoked.wait(), 3)
            assert isinstance(lease.lost, (valetkey.Unavailable, valetkey.TimedOut))
            start = time.monotonic()
        assert time.monotonic() - start < 4, "leaving waits for nobody"
        await fails_within(2, agent.lease([PASSWORD], tool=NAVAN, purpose="x").__aenter__(), valetkey.Unavailable)


async def test_a_frozen_broker_is_not_waited_for(world: World) -> None:
    async with world.broker(deadline=3) as agent, world.broker("tool:navan.book_flight", deadline=3) as tool:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            old = lease["p"].handle
            world.signal(signal.SIGSTOP)
            await fails_within(3, tool.redeem(old), valetkey.TimedOut, valetkey.Unavailable)
            waiting = agent.lease([USERNAME], tool=NAVAN, purpose="test").__aenter__()
            await fails_within(3, waiting, valetkey.TimedOut, valetkey.Unavailable)
            await until(lambda: handle_or_none(lease) is None)


async def test_a_slow_broker_is_waited_for(world: World) -> None:
    async with world.broker() as agent, world.broker("tool:navan.book_flight") as tool:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            old = lease["p"].handle
            world.signal(signal.SIGSTOP)
            await asyncio.sleep(1.5)
            world.signal(signal.SIGCONT)
            assert lease["p"].handle == old
            assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE
            # Long enough for both sides to hang up.
            world.signal(signal.SIGSTOP)
            await until(lambda: handle_or_none(lease) is None)
            world.signal(signal.SIGCONT)
            await lease.ready()
            assert lease["p"].handle != old
            assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE


@pytest.mark.parametrize("way", ["cut", "swallow"])
async def test_a_network_that_comes_back(world: World, way: str) -> None:
    with Proxy(world.port) as network:
        agent = world.broker(address=network.address, deadline=20)
        async with agent, world.broker("tool:navan.book_flight") as tool:
            async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
                old = lease["p"].handle
                (network.cut if way == "cut" else network.swallow)()
                await until(lambda: handle_or_none(lease) is None)
                # The broker has noticed too: what the agent no longer shows is worth nothing.
                await until_dead(tool, old)
                await asyncio.sleep(0.5)
                network.restore()
                await lease.ready()
                assert lease["p"].handle != old
                assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE


async def until_dead(tool: Broker, handle: str) -> None:
    """A redeem spends the handle, so one look is all there is: wait as long as a dead connection takes first."""
    await asyncio.sleep(5)
    with pytest.raises(valetkey.HandleNotActive):
        await tool.redeem(handle)


@pytest.mark.parametrize("way", ["cut", "swallow"])
async def test_the_tools_network_is_cut(world: World, way: str) -> None:
    with Proxy(world.port) as network:
        tool = world.broker("tool:navan.book_flight", address=network.address, deadline=2)
        async with world.broker() as agent, tool:
            async with agent.lease({"p": PASSWORD, "u": USERNAME}, tool=NAVAN, purpose="test") as lease:
                # A connection that is there already, so that what vanishes is a redeem.
                await lease["u"].redeem(redeem_with=tool)
                (network.cut if way == "cut" else network.swallow)()
                await fails_within(2, lease["p"].redeem(redeem_with=tool), valetkey.Unavailable, valetkey.TimedOut)
                network.restore()
                assert (await after_the_dead_connection(lambda: lease["p"].redeem(redeem_with=tool))).expose() == VALUE


async def after_the_dead_connection(redeem: Callable[[], Awaitable[valetkey.Secret]]) -> valetkey.Secret:
    """A call may still meet it, and a redeem is not repeated by itself; the test knows that nothing got through."""
    while True:
        try:
            return await redeem()
        except valetkey.Unavailable:
            await asyncio.sleep(0.05)


async def test_a_policy_that_changes_in_mid_use(world: World) -> None:
    async with world.broker() as agent, world.broker("tool:navan.book_flight") as tool:
        names = {"p": PASSWORD, "user": USERNAME}
        async with agent.lease(names, tool=NAVAN, purpose="test") as lease:
            old = lease["p"].handle
            world.forbid(
                '@id("no-password")\nforbid (principal, action in Action::"access", resource)\n'
                'when { resource is Secret && resource.field == "password" };\n'
            )
            await asyncio.wait_for(lease.revoked.wait(), 20)
            with pytest.raises(valetkey.LeaseLost) as lost:
                _ = lease["p"].handle
            assert lost.value.cause == "policy"
            await fails_within(2, lease["p"].redeem(redeem_with=tool), valetkey.LeaseLost)
            await fails_within(2, tool.redeem(old), valetkey.HandleNotActive, valetkey.Denied)
            assert lease["user"].handle
            world.forbid('@id("nothing")\nforbid (principal, action in Action::"access", resource);\n')
            await until(lambda: lease.lost is not None)
            assert isinstance(lease.lost, valetkey.LeaseLost)


async def test_a_restart_under_other_policies_is_a_refusal(world: World) -> None:
    async with world.broker() as agent:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            world.kill()
            world.forbid('@id("nothing")\nforbid (principal, action in Action::"access", resource);\n')
            await asyncio.to_thread(world.start)
            await asyncio.wait_for(lease.revoked.wait(), 20)
            assert isinstance(lease.lost, valetkey.Denied)
            with pytest.raises(valetkey.Denied):
                _ = lease["p"].handle


async def test_nobody_is_there() -> None:
    async with Broker(f"http://127.0.0.1:{free_port()}", token="vkt_a", deadline=1) as broker:
        error = await fails_within(1, broker.redeem("vkh_a"), valetkey.Unavailable)
        assert "vkh_a" not in str(error)
        await fails_within(1, broker.check(PASSWORD, tool=NAVAN), valetkey.Unavailable)
        lease = broker.lease([PASSWORD], tool=NAVAN, purpose="test")
        await fails_within(1, lease.__aenter__(), valetkey.Unavailable)


@pytest.mark.parametrize("offset", [3600, -3600])
def test_a_clock_that_is_wrong_by_an_hour(shared: World, tmp_path: Path, offset: int) -> None:
    """The whole journey in a process whose wall clock is wrong: the lease is renewed, and redeemed."""
    library = tmp_path / "clock.so"
    words = ["cc", "-shared", "-fPIC", "-o", str(library), str(HERE / "clock.c")]
    subprocess.run(words, check=True, timeout=60)
    env = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
    said = subprocess.run(
        [sys.executable, "-c", JOURNEY],
        input=json.dumps(
            {
                "address": shared.address,
                "agent": shared.tokens["agent:travel-bot"],
                "tool": shared.tokens["tool:navan.book_flight"],
                "reference": PASSWORD,
            }
        ),
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
    )
    assert said.returncode == 0, said.stderr
    clock, value = said.stdout.split()
    assert abs(float(clock) - time.time() - offset) < 60, "the clock was not wrong"
    assert value == VALUE


JOURNEY = """
import json, sys, time
from valetkey.sync import Broker
it = json.load(sys.stdin)
with Broker(it["address"], token=it["agent"]) as agent, Broker(it["address"], token=it["tool"]) as tool:
    with agent.lease({"p": it["reference"]}, tool="navan.book_flight", purpose="test", ttl=4) as lease:
        first = lease["p"].handle
        while lease["p"].handle == first:
            time.sleep(0.05)
        print(time.time(), lease["p"].redeem(redeem_with=tool).expose())
"""


async def test_a_process_that_slept_shows_no_stale_handle(shared: World) -> None:
    """The loop does not come to read for longer than the handle lives: what it knows of is dead by then."""
    async with shared.broker() as agent, shared.broker("tool:navan.book_flight") as tool:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test", ttl=2) as lease:
            old = lease["p"].handle
            time.sleep(3.2)  # not a wait of asyncio's: nothing else runs meanwhile
            with pytest.raises(valetkey.Unavailable, match="had its time"):
                _ = lease["p"].handle
            await lease.ready()
            assert lease["p"].handle != old
            assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE
