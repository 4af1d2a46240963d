"""A model that is scripted: it reads the conversation, and calls the tools that the journey needs.

It knows what stands in its messages and nothing else: what it writes into a tool's arguments, it has read there. A real
one would take its place with the same messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

Tool = Callable[..., Awaitable[str]]

SCRIPT: list[tuple[str, dict[str, str]]] = [
    (
        "book_flight",
        {
            "route": "Lisbon to Berlin",
            "username": "Navan username",
            "password": "Navan password",
            "card_number": "card number",
            "card_expiry": "card expiry",
            "card_code": "card code",
        },
    ),
    ("submit_expense", {"amount": "184.20 EUR", "username": "Ramp username", "password": "Ramp password"}),
]


async def converse(task: str, tools: dict[str, Tool]) -> list[dict[str, Any]]:
    """Runs the conversation to its end. Returns all that the model saw and said."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
    for name, wanted in SCRIPT:
        arguments = {argument: read(messages, what) for argument, what in wanted.items()}
        messages.append({"role": "assistant", "tool": name, "arguments": arguments})
        messages.append({"role": "tool", "content": await tools[name](**arguments)})
    messages.append({"role": "assistant", "content": "The flight is booked, and the expense is filed."})
    return messages


def read(messages: list[dict[str, Any]], what: str) -> str:
    """What the messages say about it: `- Navan password: …`. What they say nothing about, it makes up itself."""
    for message in messages:
        if found := re.search(rf"^- {re.escape(what)}: (.+)$", str(message.get("content", "")), re.MULTILINE):
            return found[1]
    return what


def show(messages: list[dict[str, Any]], values: list[str]) -> None:
    """Prints the transcript: what a provider, a log or a trace would have of it. Then how many of the values it has."""
    print("-- the model's whole transcript --")
    text = "\n".join(json.dumps(message, indent=1, ensure_ascii=False) for message in messages)
    print(text)
    print(f"-- {sum(value in text for value in values)} of {len(values)} values in it --")
