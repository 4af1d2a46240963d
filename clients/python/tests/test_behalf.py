"""On whose behalf, against a real broker: the person is proved by a signed token, decided about, and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import valetkey
from people import People
from world import FORBIDDEN, NAVAN, World

POLICY = """
@id("for-reviewers")
permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
when { context.session has on_behalf_of && context.session.on_behalf_of in Group::"reviewers" };

@id("for-reviewers-redeem")
permit (principal == Tool::"navan.book_flight", action == Action::"redeem", resource in Vault::"production")
when { context.session has on_behalf_of && context.session.on_behalf_of in Group::"reviewers" };
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people") / "jwks.json")


@pytest.fixture
def reviewed(tmp_path: Path, people: People) -> Iterator[World]:
    with World(tmp_path, people.settings, policy=POLICY) as world:
        yield world


async def test_an_agent_may_for_one_person_what_it_may_not_alone(reviewed: World, people: People) -> None:
    asked = {"tool": NAVAN, "purpose": "test"}
    ana = people.token("ana")
    async with reviewed.broker() as agent, reviewed.broker("tool:navan.book_flight") as tool:
        for nobody in (None, people.token("omar")):
            with pytest.raises(valetkey.Denied):
                await agent.lease({"p": FORBIDDEN}, **asked, on_behalf_of=nobody).__aenter__()
            assert not (await agent.check(FORBIDDEN, tool=NAVAN, on_behalf_of=nobody)).allowed
        assert (await agent.check(FORBIDDEN, tool=NAVAN, on_behalf_of=ana)).allowed
        async with agent.lease({"p": FORBIDDEN}, **asked, on_behalf_of=ana, redeem_with=tool) as lease:
            record = lease["p"].issued.record_id
            assert (await lease["p"].redeem()).expose()
            # Asked for again, it is so for the same person.
            reviewed.kill()
            await asyncio.to_thread(reviewed.start)
            assert (await lease["p"].redeem()).expose()
    rows = reviewed.audit("person:ana", "kind:acquire", "decision:allow")
    assert record in [row["record_id"] for row in rows] and len(rows) == 2
    assert {row["tool"] for row in reviewed.audit("person:ana", "kind:redeem")} == {NAVAN}


@pytest.mark.parametrize("fault", ["old", "forged", "no token", "of an agent"])
async def test_a_person_who_is_not_proved(reviewed: World, people: People, fault: str) -> None:
    ana = people.token("ana")
    shown = {
        "old": people.token("ana", -3600),
        "forged": f"{ana[:-8]}AAAAAAAA",
        "no token": "ana-is-no-token",
        "of an agent": reviewed.tokens["agent:sdk-bot"],
    }[fault]
    async with reviewed.broker() as agent:
        with pytest.raises(valetkey.PersonUnauthenticated) as caught:
            await agent.lease({"p": FORBIDDEN}, tool=NAVAN, purpose="test", on_behalf_of=shown).__aenter__()
        assert shown not in str(caught.value)


def test_without_asyncio(reviewed: World, people: People) -> None:
    with reviewed.sync_broker() as agent, reviewed.sync_broker("tool:navan.book_flight") as tool:
        with agent.lease([FORBIDDEN], tool=NAVAN, purpose="test", on_behalf_of=people.token("ana")) as lease:
            assert tool.redeem(lease[FORBIDDEN].handle).expose()
        assert agent.check(FORBIDDEN, tool=NAVAN, on_behalf_of=people.token("ana")).allowed
