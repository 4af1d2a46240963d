"""Book a flight with Navan, pay with the travel card, file the expense in Ramp: the model sees handles alone.

    pip install ./clients/python && cargo build
    python examples/python/journey.py

Beside it, `journey_tutorial.py` is the same with the values near the model.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

from valetkey import Broker
from valetkey.conceal import Concealer

from model import converse, show
from stage import Stage, stage

NAVAN = {
    "Navan username": "op://Tutorial/Navan/username",
    "Navan password": "op://Tutorial/Navan/password",
    "card number": "op://Tutorial/Travel Card/number",
    "card expiry": "op://Tutorial/Travel Card/expiry date",
    "card code": "op://Tutorial/Travel Card/verification number",
}
RAMP = {
    "Ramp username": "op://Tutorial/Ramp/username",
    "Ramp password": "op://Tutorial/Ramp/password",
}


async def main() -> None:
    with stage() as here:
        agent = Broker(here.broker, token=here.tokens["agent:travel-bot"])
        tools = {"book_flight": navan_tool(here), "submit_expense": ramp_tool(here)}
        why = "book the flight to Berlin, and file it"
        async with agent, agent.lease(NAVAN, tool="navan.book_flight", purpose=why) as navan:
            async with agent.lease(RAMP, tool="ramp.submit_expense", purpose=why) as ramp:
                handles = {name: secret.handle for lease in (navan, ramp) for name, secret in lease.items()}
                show(await converse(task(handles), tools), here.values)


def task(handles: dict[str, str]) -> str:
    lines = "\n".join(f"- {name}: {handle}" for name, handle in handles.items())
    return f"Book a flight from Lisbon to Berlin and file the expense. Use these:\n{lines}"


def navan_tool(here: Stage) -> Any:
    """The tool that books. It is known to the broker as itself, and alone can redeem what was leased for it."""
    broker = Broker(here.broker, token=here.tokens["tool:navan.book_flight"])

    async def book_flight(route: str, **handles: str) -> str:
        values = {name: (await broker.redeem(handle)).expose() for name, handle in handles.items()}
        answer = await post(f"{here.navan}/bookings", {"route": route, **values})
        return Concealer(values.values()).text(answer)

    return book_flight


def ramp_tool(here: Stage) -> Any:
    """The tool that files, likewise."""
    broker = Broker(here.broker, token=here.tokens["tool:ramp.submit_expense"])

    async def submit_expense(amount: str, username: str, password: str) -> str:
        login = {
            "username": (await broker.redeem(username)).expose(),
            "password": (await broker.redeem(password)).expose(),
        }
        answer = await post(f"{here.ramp}/expenses", {"amount": amount, **login})
        return Concealer(login.values()).text(answer)

    return submit_expense


async def post(url: str, body: dict[str, str]) -> str:
    def send() -> str:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(send)


if __name__ == "__main__":
    asyncio.run(main())
