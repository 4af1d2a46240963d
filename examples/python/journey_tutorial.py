"""The same journey as `journey.py`, the way of 1Password's tutorial: resolve, and give the values to the model.

    pip install ./clients/python && cargo build
    python examples/python/journey_tutorial.py

Each value is asked for, decided and written down here too. What cannot be helped is what happens then: the transcript
at the end, and so the model's provider, every log and every trace, has all seven. Only the import differs from code
for 1Password's own SDK.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from valetkey import acting
from valetkey.onepassword import Client

from journey import NAVAN, RAMP, post, task
from model import converse, show
from stage import Stage, stage


async def main() -> None:
    with stage() as here:
        os.environ["VALETKEY_ADDRESS"] = here.broker
        values = {}
        for tool, references in (("navan.book_flight", NAVAN), ("ramp.submit_expense", RAMP)):
            with acting(tool=tool):
                client = await Client.authenticate(
                    auth=here.tokens["agent:tutorial-bot"],
                    integration_name="Travel tutorial",
                    integration_version="v1.0.0",
                )
            for name, reference in references.items():
                values[name] = await client.secrets.resolve(reference)
            await client.close()
        show(await converse(task(values), tools(here)), here.values)


def tools(here: Stage) -> dict[str, Any]:
    async def book_flight(**values: str) -> str:
        return await post(f"{here.navan}/bookings", values)

    async def submit_expense(**values: str) -> str:
        return await post(f"{here.ramp}/expenses", values)

    return {"book_flight": book_flight, "submit_expense": submit_expense}


if __name__ == "__main__":
    asyncio.run(main())
