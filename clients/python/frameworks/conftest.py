"""A broker, a guard, and a tool that tells all it knows."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fixtures import pytest_pyfunc_call, shared  # noqa: F401
from valetkey.integrations import Guard, GuardedTool
from valetkey.sync import Broker, Lease
from valetkey.testing import FakeBroker
from world import NAVAN, PASSWORD, USERNAME, VALUE, World


@dataclass
class Scene:
    """What the model writes, what the tool got, and what must not be seen anywhere."""

    guard: Guard
    handle: str
    reference: str = PASSWORD
    value: str = VALUE
    got: list[str] = field(default_factory=list)

    def tell(self, password: str) -> str:
        """What a tool that repeats what it is given returns."""
        self.got.append(password)
        return f"booked with {password}, {base64.b64encode(password.encode()).decode()}"

    def hidden(self, *records: object) -> None:
        """None of these holds the value, in any form; what the model wrote is there."""
        text = "\n".join(str(record) for record in records)
        assert self.got and self.got[0].endswith(self.value), "the tool did not get the value"
        for form in (self.value, base64.b64encode(self.value.encode()).decode(), self.value.encode().hex()):
            assert form not in text, text


@pytest.fixture
def scene(shared: World) -> Iterator[Scene]:  # noqa: F811
    with shared.sync_broker() as agent, shared.sync_broker("tool:navan.book_flight") as tool:
        named = GuardedTool(NAVAN, fields=["password"], redeem_with=tool)
        guard = Guard(agent, {"book_flight": named}, purpose="a framework's test")
        held: Lease
        with agent.lease({"p": PASSWORD, "u": USERNAME}, tool=NAVAN, purpose="for the model") as held:
            yield Scene(guard, held["p"].handle)


@dataclass
class Refused:
    """A tool that may not have the secret as things are, and what the model must read of it."""

    guard: Guard
    told: str
    asked: Callable[[], int]
    reference: str = PASSWORD


def searches(agent: Broker) -> Guard:
    return Guard(agent, {"search": GuardedTool("web.search", fields=["query"], redeem_with=agent)})


@pytest.fixture(params=["denied", "approval"])
def refused(request: pytest.FixtureRequest, shared: World, valetkey_broker: FakeBroker) -> Iterator[Refused]:  # noqa: F811
    """By policy; and until a person approves, which the model must ask one for."""
    if request.param == "denied":
        with shared.sync_broker() as agent:
            yield Refused(searches(agent), "access denied", lambda: 1)
        return
    valetkey_broker.secrets[PASSWORD] = VALUE
    valetkey_broker.require_approval(PASSWORD, "https://approvals.example/ask")
    with valetkey_broker.sync_broker() as agent:
        yield Refused(searches(agent), "https://approvals.example/ask", lambda: len(valetkey_broker.calls))
