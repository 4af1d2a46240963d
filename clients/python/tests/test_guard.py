"""What all framework wrappers share, without a framework: filling arguments in, and concealing results."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import valetkey
from valetkey.integrations import Guard, GuardedTool
from valetkey.sync import Broker
from valetkey.testing import FakeBroker

REF = "op://Travel/Travel Card/expiry date"
VALUE = 'hünter2 "/+?'
CONCEALED = "<concealed by valetkey>"
Pair = namedtuple("Pair", "a b")


@dataclass
class Login:
    password: str


def guard_of(broker: Broker, *fields: str, tool: str = "pay", redeem_with: Broker | None = None) -> Guard:
    return Guard(broker, {"pay": GuardedTool(tool, fields=fields or ["card"], redeem_with=redeem_with or broker)})


@pytest.fixture
def fake(valetkey_broker: FakeBroker) -> FakeBroker:
    valetkey_broker.secrets[REF] = VALUE
    return valetkey_broker


@pytest.mark.parametrize(
    ("written", "got"),
    [
        (REF, VALUE),
        (f" {REF} ", VALUE),
        (f"Bearer {{{{ {REF} }}}}!", f"Bearer {VALUE}!"),
        (f"pay with {REF}", f"pay with {REF}"),
        ([{"deep": (REF,)}], [{"deep": (VALUE,)}]),
        (Login(REF), Login(VALUE)),
        (Pair(REF, 1), Pair(VALUE, 1)),
        (7, 7),
    ],
)
def test_arguments_are_filled_in(fake: FakeBroker, written: object, got: object) -> None:
    seen: list[object] = []
    with fake.sync_broker() as broker:
        guard = guard_of(broker, "what", "also", tool="navan.pay")

        def pay(what: object, *, also: object = None) -> str:
            """Pays."""
            seen.append((what, also))
            return "paid"

        wrapped = guard.wrap(pay)
        assert wrapped(written, also=written) == "paid"
        assert (wrapped.__name__, wrapped.__doc__, inspect.signature(wrapped)) == (
            "pay",
            "Pays.",
            inspect.signature(pay),
        )
    assert seen == [(got, got)]
    assert {call.tool for call in fake.calls if call.method == "AcquireLease"} <= {"navan.pay"}
    assert fake.leases == 0


async def test_handles_are_redeemed_as_the_tool(fake: FakeBroker) -> None:
    with fake.sync_broker() as agent, valetkey.sync.Broker(fake.address, token="vkt_tool") as tool:

        async def pay(card: str) -> str:
            return f"paid with {card}"

        with agent.lease({"card": REF}, tool="pay", purpose="test") as lease:
            guard = guard_of(agent, redeem_with=tool)
            assert await guard.wrap(pay)(f"the card {lease['card'].handle}.") == f"paid with the card {CONCEALED}."
    redeems = [call for call in fake.calls if call.method == "RedeemHandle"]
    assert [call.caller for call in redeems] == ["vkt_tool"]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_what_a_tool_raises_shows_no_value(fake: FakeBroker, how: str) -> None:
    def inner(card: str) -> None:
        try:
            raise KeyError(card)
        except KeyError as error:
            raise ValueError("no such card") from error

    async def later(card: str) -> None:
        inner(card)

    with fake.sync_broker() as broker:
        guard = guard_of(broker)
        work: Callable[[], object] = lambda: guard.wrap(inner, "pay")(REF)  # noqa: E731
        with pytest.raises(RuntimeError, match="ValueError") as caught:
            await (guard.wrap(later, "pay")(REF) if how == "async" else asyncio.to_thread(work))
        told = "".join(traceback.format_exception(caught.value, chain=True))
        assert "nter2" not in told and caught.value.__context__ is None and caught.value.__cause__ is None
        harmless = ValueError("nothing of it")

        def fails(card: str) -> None:
            raise harmless

        with pytest.raises(ValueError) as same:
            guard.wrap(fails, "pay")(REF)
        assert same.value is harmless
    assert fake.leases == 0


def test_a_refused_tool_is_not_called(fake: FakeBroker) -> None:
    def pay(card: str) -> None:
        raise AssertionError("called")

    with fake.sync_broker() as broker:
        with pytest.raises(valetkey.Denied):
            guard_of(broker).wrap(pay)("op://Other/item/field")
        with pytest.raises(valetkey.InvalidRequest):
            guard_of(broker).wrap(pay)([f"op://Travel/item/{number}" for number in range(65)])  # type: ignore[arg-type]


def test_a_tool_that_waits_for_approval_is_not_called(fake: FakeBroker) -> None:
    fake.require_approval(REF, "https://approvals.example/{id}")
    with fake.sync_broker() as broker:
        with pytest.raises(valetkey.ApprovalRequired) as caught:
            guard_of(broker).wrap(lambda card: pytest.fail("called"), "pay")(REF)
        assert caught.value.url and caught.value.url in str(caught.value)
        fake.approve(REF)
        assert guard_of(broker).wrap(lambda card: f"paid with {card}", "pay")(REF) == f"paid with {CONCEALED}"


async def test_a_call_that_is_cancelled_ends_its_lease(fake: FakeBroker) -> None:
    inside = asyncio.Event()

    async def pay(card: str) -> None:
        inside.set()
        await asyncio.sleep(60)

    with fake.sync_broker() as broker:
        task = asyncio.create_task(guard_of(broker).wrap(pay)(REF))
        await inside.wait()
        assert fake.leases == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fake.leases == 0


async def test_a_value_that_is_no_text_ends_its_lease(fake: FakeBroker) -> None:
    fake.secrets[REF] = b"\xffhunter2"

    async def later(card: str) -> None:
        raise AssertionError("called")

    with fake.sync_broker() as broker:
        with pytest.raises(UnicodeDecodeError) as caught:
            await guard_of(broker).wrap(later, "pay")(REF)
        assert b"hunter2" not in caught.value.object
        assert fake.leases == 0


def test_a_value_that_looks_like_a_reference_is_not_followed(fake: FakeBroker) -> None:
    fake.secrets[REF] = "op://Travel/other/field"
    seen = []
    with fake.sync_broker() as broker:
        guard_of(broker).wrap(lambda card: seen.append(card), "pay")(f"{{{{ {REF} }}}}")
    assert seen == ["op://Travel/other/field"]
    assert len([call for call in fake.calls if call.method == "AcquireLease"]) == 1


def test_a_method_keeps_its_object(fake: FakeBroker) -> None:
    with fake.sync_broker() as broker:
        guard = guard_of(broker)

        @dataclass
        class Desk:
            name: str
            paid: int = 0

            @guard.wrap
            def pay(self, card: str) -> None:
                assert card == VALUE
                self.paid += 1

        desk = Desk("front")
        desk.pay(REF)
        assert desk.paid == 1


async def test_what_is_yet_to_come_is_refused(fake: FakeBroker) -> None:
    async def later(card: str) -> str:
        return card

    def piece(card: str) -> object:
        yield card

    async def pieces(card: str) -> object:
        yield card

    with fake.sync_broker() as broker:
        guard = guard_of(broker)
        coroutines: list[object] = []

        def hidden(card: str) -> object:
            coroutines.append(later(card))
            return coroutines[0]

        for tool in (hidden, piece, pieces):
            with pytest.raises(TypeError, match="whole"):
                await asyncio.to_thread(guard.wrap(tool, "pay"), REF)
        await coroutines[0]  # type: ignore[misc]
