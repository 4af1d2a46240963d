"""What a person must approve first, against a real broker: refused, approved by its id, granted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import valetkey
from valetkey.integrations import Guard, GuardedTool
from world import BINARY, FORBIDDEN, NAVAN, USERNAME, World

SETTINGS = '[approvals]\nurl = "https://approvals.example/{id}"\n'
POLICY = """
@id("with-approval")
@approval("reviewers")
permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
when { context.tool == Tool::"navan.book_flight" };

@id("with-approval-redeem")
permit (principal == Tool::"navan.book_flight", action == Action::"redeem", resource in Vault::"production");

@id("reviewers-approve")
permit (principal in Group::"reviewers", action == Action::"approve", resource);
"""


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, SETTINGS, policy=POLICY) as world:
        yield world


def approve(world: World, approval_id: str) -> None:
    env = {"VALETKEY_ADDRESS": world.address, "VALETKEY_TOKEN": world.tokens["person:ana"], "PATH": ""}
    words = [BINARY, "approval", "approve", approval_id]
    subprocess.run(words, check=True, capture_output=True, timeout=60, env=env)


async def test_it_is_refused_then_approved_then_granted(asked: World) -> None:
    async with asked.broker() as agent, asked.broker("tool:navan.book_flight") as tool:
        with pytest.raises(valetkey.ApprovalRequired) as caught:
            await agent.lease({"p": FORBIDDEN}, tool=NAVAN, purpose="test").__aenter__()
        error = caught.value
        assert error.reference == FORBIDDEN and error.record_id
        assert error.url == f"https://approvals.example/{error.approval_id}"
        assert f"valetkey approval approve {error.approval_id}`" in str(error)
        approve(asked, error.approval_id)
        async with agent.lease({"p": FORBIDDEN}, tool=NAVAN, purpose="test", redeem_with=tool) as lease:
            assert (await lease["p"].redeem()).expose()


async def test_a_partial_lease_names_it(asked: World) -> None:
    async with asked.broker() as agent:
        names = {"p": FORBIDDEN, "u": USERNAME}
        async with agent.lease(names, tool=NAVAN, purpose="test", partial=True) as lease:
            assert lease["u"].handle
            error = lease.refused["p"]
            assert isinstance(error, valetkey.ApprovalRequired) and error.approval_id.startswith("vkl_")
            approve(asked, error.approval_id)
        async with agent.lease(names, tool=NAVAN, purpose="test", partial=True) as lease:
            assert lease["p"].handle and lease["u"].handle and not lease.refused


def test_a_guarded_tool_works_once_it_is_approved(asked: World) -> None:
    with asked.sync_broker() as agent, asked.sync_broker("tool:navan.book_flight") as tool:
        guard = Guard(agent, {"book": GuardedTool(NAVAN, fields=["password"], redeem_with=tool)})
        book = guard.wrap(lambda password: f"booked with {password}", "book")
        with pytest.raises(valetkey.ApprovalRequired) as caught:
            book(FORBIDDEN)
        approve(asked, caught.value.approval_id)
        assert book(FORBIDDEN) == "booked with <concealed by valetkey>"
