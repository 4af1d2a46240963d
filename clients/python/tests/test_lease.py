"""Leases, against a real broker."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import threading

import pytest

import valetkey
import valetkey.sync
from valetkey import Broker
from world import CARD, FORBIDDEN, NAVAN, PASSWORD, USERNAME, VALUE, World


async def test_from_lease_to_value(shared: World) -> None:
    async with shared.broker() as agent, shared.broker("tool:navan.book_flight") as tool:
        async with agent.lease({"user": USERNAME, "password": PASSWORD}, tool=NAVAN, purpose="book") as lease:
            handle = lease["password"].handle
            assert handle.startswith("vkh_") and lease.id.startswith("vkl_")
            assert handle not in repr(lease["password"].issued)
            value = await tool.redeem(handle)
            assert value.expose() == VALUE
            assert VALUE not in f"{value!r}{value}{lease}"
            with pytest.raises(valetkey.HandleNotActive):
                await tool.redeem(handle)
            user = await lease["user"].redeem(redeem_with=tool)
            assert user.expose() == "demo-navan-user@travel.example"
        with pytest.raises(valetkey.LeaseLost):
            _ = lease["password"].handle


async def test_the_handles_are_dead_when_the_block_ends(shared: World) -> None:
    async with shared.broker() as agent, shared.broker("tool:navan.book_flight") as tool:
        async with agent.lease([PASSWORD], tool=NAVAN, purpose="book") as lease:
            handle = lease[PASSWORD].handle
        with pytest.raises(valetkey.HandleNotActive) as caught:
            await tool.redeem(handle)
        assert handle not in str(caught.value)


async def test_a_lease_that_is_left_is_ended_and_nothing_else(shared: World) -> None:
    """Each by a call that is allowed, not by a connection that breaks; and nobody is told that it was revoked."""
    async with shared.broker() as agent:
        for _ in range(10):
            async with agent.lease([PASSWORD], tool=NAVAN, purpose="test") as lease:
                lease_id = lease.id
            assert not lease.revoked.is_set()
            records = {(row["kind"], row["decision"], row["reason"]) for row in shared.audit(f"lease:{lease_id}")}
            assert records == {
                ("acquire", "allow", "POLICY_PERMIT"),
                ("end_lease", "allow", "POLICY_PERMIT"),
                ("lease_end", None, "END_CALLER"),
            }


async def test_a_handle_of_its_own_is_no_use_to_the_agent(shared: World) -> None:
    async with shared.broker() as agent, agent.lease([PASSWORD], tool=NAVAN, purpose="book") as lease:
        with pytest.raises(valetkey.HandleNotActive):
            await lease[PASSWORD].redeem()


async def test_the_agent_redeems_where_policy_says_so(shared: World) -> None:
    async with shared.broker("agent:sdk-bot") as agent:
        async with agent.lease({"password": PASSWORD}, tool="script", purpose="test") as lease:
            assert lease["password"].issued.redeemer == "agent"
            assert (await lease["password"].redeem()).expose() == VALUE
            with pytest.raises(valetkey.HandleNotActive):
                await lease["password"].redeem()


async def test_refusals_are_typed_and_name_the_record(shared: World) -> None:
    async with shared.broker() as agent:
        with pytest.raises(valetkey.Denied) as denied:
            async with agent.lease([FORBIDDEN], tool=NAVAN, purpose="test"):
                raise AssertionError("opened")
        assert denied.value.reason == "ACCESS_DENIED" and denied.value.reference == FORBIDDEN
        [record] = shared.audit(f"record:{denied.value.record_id}")
        assert record["decision"] == "deny" and record["reference"] == FORBIDDEN
        with pytest.raises(valetkey.Denied) as denied:
            async with agent.lease([CARD], tool="web.search", purpose="test"):
                raise AssertionError("opened")
        assert denied.value.advice and "navan.book_flight" in denied.value.advice
        with pytest.raises(valetkey.InvalidRequest) as invalid:
            async with agent.lease(["nonsense"], tool=NAVAN, purpose="test"):
                raise AssertionError("opened")
        assert invalid.value.violations
        with pytest.raises(valetkey.InvalidRequest):
            agent.lease([PASSWORD], purpose="test")
    stranger = Broker(shared.address, token="vkt_nobody")
    async with stranger:
        with pytest.raises(valetkey.Unauthenticated):
            async with stranger.lease([PASSWORD], tool=NAVAN, purpose="test"):
                raise AssertionError("opened")
    async with shared.broker("agent:sdk-bot") as agent:
        with pytest.raises(valetkey.NotFound) as missing:
            async with agent.lease(["op://Tutorial/Nothing/password"], tool="script", purpose="test"):
                raise AssertionError("opened")
        assert missing.value.reason == "ITEM_NOT_FOUND"


async def test_some_where_others_are_refused(shared: World) -> None:
    async with shared.broker() as agent:
        names = {"password": PASSWORD, "database": FORBIDDEN}
        async with agent.lease(names, tool=NAVAN, purpose="test", partial=True) as lease:
            assert lease["password"].handle
            assert list(lease.refused) == ["database"]
            with pytest.raises(valetkey.Denied):
                _ = lease["database"].handle
            with pytest.raises(valetkey.Denied):
                await lease["database"].redeem()
            with pytest.raises(KeyError):
                lease["other"]


async def test_where_all_are_refused_the_reasons_stay(shared: World) -> None:
    """The lease ends at once, because nothing in it is alive; why not is still to be read."""
    names = {"item": "op://Tutorial/Nothing/x", "field": "op://Tutorial/Navan/nothing"}
    async with shared.broker("agent:sdk-bot") as agent:
        async with agent.lease(names, tool="script", purpose="test", partial=True) as lease:
            await asyncio.wait_for(lease.revoked.wait(), 20)
            assert {name: error.reason for name, error in lease.refused.items()} == {
                "item": "ITEM_NOT_FOUND",
                "field": "FIELD_NOT_FOUND",
            }
            with pytest.raises(valetkey.NotFound):
                _ = lease["item"].handle
            with pytest.raises(valetkey.NotFound):
                await lease["field"].redeem()


async def test_two_names_for_one_reference(shared: World) -> None:
    async with shared.broker() as agent:
        async with agent.lease({"a": PASSWORD, "b": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            assert lease["a"].handle == lease["b"].handle


async def test_a_check_is_an_answer(shared: World) -> None:
    async with shared.broker() as agent:
        allowed = await agent.check(CARD, tool=NAVAN)
        assert (allowed.allowed, allowed.ttl_max, allowed.redeemer) == (True, 120.0, "tool")
        refused = await agent.check(CARD, tool="web.search")
        assert not refused.allowed and "navan" in refused.advice


async def test_a_renewal_replaces_the_handle(shared: World) -> None:
    async with shared.broker() as agent, shared.broker("tool:navan.book_flight") as tool:
        async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test", ttl=3) as lease:
            first = lease["p"].handle
            for _ in range(600):
                if lease["p"].handle != first:
                    break
                await asyncio.sleep(0.02)
            assert lease["p"].handle != first
            assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE
            assert not lease.revoked.is_set()


async def test_a_block_that_is_cancelled_ends_its_lease(shared: World) -> None:
    async with shared.broker() as agent, shared.broker("tool:navan.book_flight") as tool:
        handles: list[str] = []

        async def hold() -> None:
            async with agent.lease([PASSWORD], tool=NAVAN, purpose="test") as lease:
                handles.append(lease[PASSWORD].handle)
                await asyncio.sleep(60)

        task = asyncio.create_task(hold())
        while not handles:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(valetkey.HandleNotActive):
            await tool.redeem(handles[0])


async def test_an_opening_that_is_cancelled_leaves_nothing(shared: World) -> None:
    async with shared.broker() as agent:
        for wait in (0.0, 0.001, 0.003, 0.01):
            lease = agent.lease([PASSWORD], tool=NAVAN, purpose="test")
            task = asyncio.create_task(lease.__aenter__())
            await asyncio.sleep(wait)
            task.cancel()
            try:
                await task
                await lease.release()
            except asyncio.CancelledError:
                pass
            assert lease._call is None or lease._call.done(), "a stream is left open"


async def test_200_leases_at_once(shared: World) -> None:
    async with shared.broker() as agent, shared.broker("tool:navan.book_flight") as tool:
        everyone_is_in = asyncio.Event()
        inside = 0

        async def once() -> str:
            nonlocal inside
            async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
                inside += 1
                if inside == 200:
                    everyone_is_in.set()
                await everyone_is_in.wait()
                return (await lease["p"].redeem(redeem_with=tool)).expose()

        async def one() -> str:
            while True:
                try:
                    return await once()
                except valetkey.Unavailable:
                    # On a machine so busy that a ping had no answer, in mid-redeem: whether the handle was spent is not
                    # known, and so it is not repeated. Whoever needs the value takes another lease.
                    assert everyone_is_in.is_set()

        assert await asyncio.gather(*(one() for _ in range(200))) == [VALUE] * 200


async def test_what_is_being_done_is_said_from_above(shared: World) -> None:
    async with shared.broker() as agent:
        with valetkey.acting(tool=NAVAN, purpose="from above", session="run-7"):
            async with agent.lease([PASSWORD]) as lease:
                record = lease[PASSWORD].issued.record_id
    [found] = shared.audit(f"record:{record}")
    assert found["purpose"] == "from above" and found["session"] == "run-7"


def test_without_asyncio(shared: World) -> None:
    with shared.sync_broker() as agent, shared.sync_broker("tool:navan.book_flight") as tool:
        with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test", redeem_with=tool) as lease:
            assert lease["p"].redeem().expose() == VALUE
            assert not lease.revoked.is_set() and len(lease) == 1
            lease.ready()
            handle = lease["p"].handle
        with pytest.raises(valetkey.HandleNotActive):
            tool.redeem(handle)
        with pytest.raises(valetkey.Denied), agent.lease([FORBIDDEN], tool=NAVAN, purpose="test"):
            raise AssertionError("opened")
        assert agent.check(PASSWORD, tool=NAVAN).allowed


def test_threads_share_a_broker(shared: World) -> None:
    values = []
    with shared.sync_broker() as agent, shared.sync_broker("tool:navan.book_flight") as tool:

        def one() -> None:
            with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
                values.append(tool.redeem(lease["p"].handle).expose())

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert values == [VALUE] * 8


def test_one_broker_in_two_loops_after_each_other(shared: World) -> None:
    agent = shared.broker("agent:sdk-bot")

    async def once() -> str:
        async with agent.lease([PASSWORD], tool="script", purpose="test") as lease:
            return (await lease[PASSWORD].redeem()).expose()

    assert [asyncio.run(once()), asyncio.run(once())] == [VALUE, VALUE]
    asyncio.run(agent.close())


def test_both_have_the_same_names() -> None:
    for one, other in (
        (valetkey.Broker, valetkey.sync.Broker),
        (valetkey.Lease, valetkey.sync.Lease),
        (valetkey.LeasedSecret, valetkey.sync.LeasedSecret),
    ):
        names, others = ({name for name in dir(it) if not name.startswith("_")} for it in (one, other))
        # These are set on each object.
        assert names - others <= {"address", "deadline", "revoked", "lost", "name", "reference"}
        assert others - names <= {"address", "deadline", "revoked", "lost", "name", "reference"}
        for name in names & others:
            mine, theirs = getattr(one, name), getattr(other, name)
            if callable(mine):
                assert list(inspect.signature(mine).parameters) == list(inspect.signature(theirs).parameters), name


def test_two_loops_in_one_process(shared: World) -> None:
    """Coroutines here and plain functions in a thread, at once: both work, and nobody complains."""
    script = """
import asyncio, json, sys
import valetkey, valetkey.sync
it = json.load(sys.stdin)
asked = {"tool": "navan.book_flight", "purpose": "test"}
def plain():
    with valetkey.sync.Broker(it["address"], token=it["agent"]) as agent:
        for _ in range(30):
            with agent.lease({"p": it["reference"]}, **asked) as lease:
                lease["p"].handle
async def main():
    task = asyncio.create_task(asyncio.to_thread(plain))
    async with valetkey.Broker(it["address"], token=it["agent"]) as agent:
        for _ in range(30):
            async with agent.lease({"p": it["reference"]}, **asked) as lease:
                lease["p"].handle
    await task
asyncio.run(main())
"""
    given = json.dumps({"address": shared.address, "agent": shared.tokens["agent:travel-bot"], "reference": PASSWORD})
    said = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
