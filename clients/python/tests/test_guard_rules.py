"""What a guard refuses: other tools, other fields, guesses, and values that come back later."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

import valetkey
from valetkey.integrations import Guard, GuardedTool, _guard, _released
from valetkey.integrations._released import Released
from valetkey.secret import Secret
from valetkey.sync import Broker
from valetkey.testing import FakeBroker
from world import NAVAN, PASSWORD, VALUE, World

REF = "op://Travel/Navan/password"
PIN = "4471"
CONCEALED = "<concealed by valetkey>"


@pytest.fixture
def fake(valetkey_broker: FakeBroker) -> FakeBroker:
    valetkey_broker.secrets[REF] = PIN
    return valetkey_broker


@pytest.fixture
def broker(fake: FakeBroker) -> Iterator[Broker]:
    with fake.sync_broker() as broker:
        yield broker


@pytest.fixture
def guard(broker: Broker) -> Guard:
    """Two tools of which the agent itself redeems, as policy can say."""
    return Guard(
        broker,
        {
            "pay": GuardedTool("navan.pay", fields=["card"], redeem_with=broker),
            "search": GuardedTool("web.search", fields=["query"], redeem_with=broker),
        },
    )


def never(*_: object, **__: object) -> str:
    raise AssertionError("called")


def asked(fake: FakeBroker) -> list[str]:
    return [call.method for call in fake.calls]


# Which tool.


def test_a_handle_is_good_for_its_own_tool_alone(fake: FakeBroker, broker: Broker, guard: Guard) -> None:
    def search(query: str) -> str:
        raise AssertionError("called")

    def pay(card: str) -> str:
        assert card == f"with {PIN}"
        return "paid"

    with broker.lease({"p": REF}, tool="navan.pay", purpose="test") as lease:
        with pytest.raises(valetkey.HandleNotActive, match=r"web\.search"):
            guard.wrap(search)(f"flights {lease['p'].handle}")
        assert asked(fake) == ["AcquireLease"], "nothing was spent"
        assert guard.wrap(pay)(f"with {lease['p'].handle}") == "paid"


def test_an_agents_own_handle_is_one_that_it_holds(fake: FakeBroker, guard: Guard) -> None:
    """One from elsewhere may be for any tool: nobody here can tell."""
    with fake.sync_broker() as other, other.lease({"p": REF}, tool="navan.pay", purpose="test") as lease:
        with pytest.raises(valetkey.HandleNotActive):
            guard.wrap(never, "pay")(card=lease["p"].handle)
    assert asked(fake) == ["AcquireLease", "EndLease"]


def test_a_tools_identity_redeems_for_that_tool_alone(shared: World) -> None:
    """Against a real broker, with its policies."""
    sent = []
    with shared.sync_broker() as agent, shared.sync_broker("tool:navan.book_flight") as navan:
        book = GuardedTool(NAVAN, fields=["password"], redeem_with=navan)
        also = GuardedTool("web.search", fields=["query"], redeem_with=navan)
        guard = Guard(agent, {"book_flight": book, "other_search": also})
        with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
            written = f"flights {lease['p'].handle}"
            guard.wrap(lambda query: sent.append(query), "web_search")(written)
            assert sent == [written]
            with pytest.raises(valetkey.HandleNotActive):
                guard.wrap(lambda query: never(), "other_search")(written)
            guard.wrap(lambda password: sent.append(password), "book_flight")(lease["p"].handle)
            assert sent[-1] == VALUE


@pytest.mark.parametrize("written", [REF, f"{{{{ {REF} }}}}", f"vkh_{'0' * 16}_{'0' * 40}", {"query": [REF]}])
def test_a_tool_that_is_not_named_gets_nothing(fake: FakeBroker, guard: Guard, written: object) -> None:
    assert guard.wrap(lambda text: text, "fetch")(written) is written
    assert fake.calls == []


def test_who_redeems_is_said_for_each_tool(fake: FakeBroker, broker: Broker) -> None:
    with pytest.raises(TypeError):
        GuardedTool("navan.pay", fields=["card"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="redeem_with"):
        GuardedTool("navan.pay", fields=["card"], redeem_with={"navan.pay": broker})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="several"):
        GuardedTool("navan.pay", fields="card", redeem_with=broker)
    with pytest.raises(TypeError, match="GuardedTool"):
        Guard(broker, {"pay": "navan.pay"})  # type: ignore[dict-item]
    with Broker(fake.address, token="vkt_tool") as tool:
        Guard(broker, {"pay": GuardedTool("navan.pay", fields=["card"], redeem_with=tool)}).wrap(
            lambda card: None, "pay"
        )(REF)
    assert [call.caller for call in fake.calls if call.method == "RedeemHandle"] == ["vkt_tool"]


# Which argument.


def test_a_field_that_is_not_named_stays(fake: FakeBroker, guard: Guard) -> None:
    seen: list[object] = []

    def pay(card: str, note: str, *, state: dict[str, Any], **more: str) -> None:
        seen.append((note, state, more))

    planted = f"cheap flights {{{{ {REF} }}}}"
    state = {"messages": [planted, {"card": REF}]}
    guard.wrap(pay)("none", planted, state=state, other=REF)
    assert seen == [(planted, state, {"other": REF})] and fake.calls == []


class InjectedState:
    """As LangGraph's."""


def test_what_a_framework_adds_takes_no_value(guard: Guard, broker: Broker) -> None:
    def pay(card: InjectedState) -> None: ...

    class Desk:
        def pay(self, cart: str) -> None: ...

    with pytest.raises(TypeError, match="framework"):
        guard.wrap(pay)
    with pytest.raises(TypeError, match="`card`"):
        guard.wrap(Desk.pay)

    def search(query: str, state: InjectedState) -> str:
        return "found"

    # What stands there is not the model's: nor is it looked into for guesses.
    assert guard.wrap(search)(REF, state=PIN) == "found"  # type: ignore[arg-type]


def test_a_field_among_others(guard: Guard) -> None:
    def pay(**fields: str) -> int:
        return len(fields["card"] + fields["note"])

    assert guard.wrap(pay)(card=REF, note=REF) == len(PIN + REF)


# What comes back.


async def test_what_was_stored_is_concealed_later(guard: Guard) -> None:
    stored = []

    def pay(card: str) -> str:
        stored.append(f"a note: {card}")
        return "paid"

    def now() -> object:
        return {"bookings": stored}

    async def later() -> object:
        raise LookupError(stored)

    guard.wrap(pay)(REF)
    assert stored == [f"a note: {PIN}"]
    assert await asyncio.to_thread(guard.wrap(now, "list_bookings")) == {"bookings": [f"a note: {CONCEALED}"]}
    with pytest.raises(RuntimeError, match="concealed"):
        await guard.wrap(later)()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(_released, "elapsed", lambda: now)
    released = Released()
    for number in range(_released.VALUES_MAX + 2):
        released.add([Secret(b"value-%05d" % number)])
    assert not released.concealer().hides("value-00001") and released.concealer().hides("value-00002")
    # What is released again is new.
    released.add([Secret(b"value-00002"), Secret(b"one-more")])
    assert not released.concealer().hides("value-00003") and released.concealer().hides("value-00002")
    now = _released.SECONDS_MAX
    assert not released.concealer().hides("value-00002 one-more")
    assert released.concealer([Secret(b"value-00002")]).hides("value-00002"), "the call's own, however long it took"
    large = b"x" * _released.BYTES_MAX
    released.add([Secret(b"value"), Secret(large), Secret(b"no")])
    assert released.concealer().hides(large.decode()) and not released.concealer().hides("value no")
    assert "x" * 9 not in f"{released!r} {released._known[large.decode()]!r}"


# Guesses.


@pytest.mark.parametrize(
    "written",
    [
        ",".join(f"{number:04}" for number in range(10_000)),
        base64.b64encode(PIN.encode()).decode(),
        int(PIN),
        {PIN: 1},
        [["a", {"b": (f"x{PIN}",)}]],
    ],
)
def test_a_guess_is_refused(fake: FakeBroker, guard: Guard, written: object) -> None:
    def pay(card: str, route: object) -> str:
        raise AssertionError("called")

    with pytest.raises(valetkey.InvalidRequest, match="`route`") as caught:
        guard.wrap(pay)(REF, written)
    assert PIN not in str(caught.value) and fake.leases == 0
    fake.calls.clear()
    # It was not released, so that nobody conceals it either; from here on it is.
    guard.wrap(lambda card, route: None, "pay")(REF, "LIS-BER")
    fake.calls.clear()
    for name in ("search", "echo"):
        with pytest.raises(valetkey.InvalidRequest):
            guard.wrap(lambda query: never(), name)(written)
    with pytest.raises(valetkey.InvalidRequest, match="`card`"):
        guard.wrap(lambda card: never(), "pay")([REF, written])
    assert fake.calls == [], "nothing was spent on it"


def test_a_reference_may_have_the_value_in_it(fake: FakeBroker, guard: Guard) -> None:
    fake.secrets[REF] = "Navan"
    for _ in range(2):
        assert guard.wrap(lambda card: f"paid as {card}", "pay")(f"{{{{ {REF} }}}}") == f"paid as {CONCEALED}"


async def test_guarded_twice_is_guarded_once(fake: FakeBroker, guard: Guard) -> None:
    """As where a tool is decorated and its framework's tools are all guarded."""

    def pay(card: str, route: str = "LIS-BER") -> str:
        return f"{route} {card}"

    async def later(card: str) -> str:
        return await asyncio.to_thread(guard.wrap(pay), card)

    assert guard.wrap(guard.wrap(pay))(REF) == f"LIS-BER {CONCEALED}"
    assert await guard.wrap(later, "pay")(REF) == f"LIS-BER {CONCEALED}"
    assert asked(fake).count("RedeemHandle") == 2

    async def guesses(card: str) -> str:
        return await asyncio.to_thread(guard.wrap(pay), card[:1] + card[1:], route=card)

    # Another call within it is not the same one.
    with pytest.raises(valetkey.InvalidRequest):
        await guard.wrap(guesses, "pay")(REF)


# A call that is cut off.


async def test_cancelled_when_all_is_done(fake: FakeBroker, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is there, and whoever waits for it is cancelled before they are told."""
    begin, cut = _guard.start, []

    def start(work: Coroutine[Any, Any, Any]) -> Future[Any]:
        async def to_its_end() -> Any:
            result = await work
            if not cut:
                cut.append(waiting.cancel())
            return result

        waiting = begin(to_its_end())
        return waiting

    monkeypatch.setattr(_guard, "start", start)

    async def pay(card: str) -> None:
        raise AssertionError("called")

    with pytest.raises(asyncio.CancelledError):
        await guard.wrap(pay)(REF)
    assert cut == [True]
    await no_lease(fake)


async def test_cancelled_twice(fake: FakeBroker, guard: Guard) -> None:
    """While it leaves, too."""

    async def pay(card: str) -> None:
        fake.delay = 0.2
        await asyncio.sleep(60)

    for pauses in range(8):
        fake.delay = 0.0
        task = asyncio.create_task(guard.wrap(pay)(REF))
        while not fake.leases or not fake.delay:
            await asyncio.sleep(0.001)
        task.cancel()
        for _ in range(pauses):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await no_lease(fake)


async def no_lease(fake: FakeBroker) -> None:
    end = time.monotonic() + 20
    while fake.leases:
        assert time.monotonic() < end, "left behind"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("result", [lambda: iter("x"), lambda: map(str, ()), lambda: memoryview(b"x")])
def test_what_is_read_only_once_is_no_result(guard: Guard, result: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="whole"):
        guard.wrap(lambda card: result(), "pay")(REF)
