"""What an error tracker collects of our frames when a tool fails: no value, also where its error shows none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.adk.tools import FunctionTool
from langchain_core.tools import tool
from pydantic_ai.toolsets import FunctionToolset

from conftest import Scene
from fixtures import reported
from valetkey.integrations import google_adk, langchain, pydantic_ai


def failing(scene: Scene) -> Any:
    def book_flight(password: str) -> str:
        """Books a flight."""
        scene.tell(password)
        raise ConnectionError("the service is away")

    return book_flight


async def adk(scene: Scene, function: Any) -> None:
    guarded: Any = google_adk.guarded(scene.guard, FunctionTool(function))
    await guarded.run_async(args={"password": scene.reference}, tool_context=None)


async def langchain_now(scene: Scene, function: Any) -> None:
    langchain.guarded(scene.guard, tool(function)).invoke({"password": scene.reference})


async def langchain_later(scene: Scene, function: Any) -> None:
    await langchain.guarded(scene.guard, tool(function)).ainvoke({"password": scene.reference})


async def pydantic(scene: Scene, function: Any) -> None:
    class Bare(FunctionToolset[None]):
        async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
            return function(**tool_args)

    guarded = pydantic_ai.toolset(scene.guard, Bare())
    nothing: Any = None
    await guarded.call_tool("book_flight", {"password": scene.reference}, nothing, nothing)


@pytest.mark.parametrize("way", [adk, langchain_now, langchain_later, pydantic])
async def test_our_frames_hold_no_value(scene: Scene, way: Callable[[Scene, Any], Awaitable[None]]) -> None:
    with pytest.raises(ConnectionError) as caught:
        await way(scene, failing(scene))
    scene.hidden(reported(caught.value))
