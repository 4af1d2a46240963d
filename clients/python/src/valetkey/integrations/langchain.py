"""For LangChain and LangGraph: `middleware`, for all tools of an agent.

    agent = create_agent(model, tools, middleware=[middleware(guard)])

A tool runs as a copy of itself that takes values below its callbacks: messages, checkpoints and traces have what the
model wrote.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from ._guard import TOLD, Guard

__all__ = ["guarded", "middleware"]


def middleware(guard: Guard) -> Any:
    """An `AgentMiddleware` that guards every tool."""
    from langchain.agents.middleware import AgentMiddleware

    class ValetkeyMiddleware(AgentMiddleware):  # type: ignore[misc]
        """Puts values into the arguments of tools, and takes them out of their results."""

        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            try:
                return handler(with_guard(guard, request))
            except TOLD as error:
                return told(request, error)

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            try:
                return await handler(with_guard(guard, request))
            except TOLD as error:
                return told(request, error)

    return ValetkeyMiddleware()


def guarded(guard: Guard, tool: Any, written: set[str] | None = None) -> Any:
    """A copy of a LangChain tool that takes values. `written` names the arguments that the model writes; without it,
    those of the tool's schema."""
    copy = tool.model_copy()
    only = set(tool.args) if written is None else written
    run, arun = tool._run, tool._arun

    @functools.wraps(run)
    def now(*args: Any, **kwargs: Any) -> Any:
        return guard.call_now(tool.name, run, args, kwargs, only)

    @functools.wraps(arun)
    async def later(*args: Any, **kwargs: Any) -> Any:
        return await guard.call(tool.name, arun, args, kwargs, only)

    # A field of the model's cannot be had for this: the class looks for methods.
    object.__setattr__(copy, "_run", now)
    object.__setattr__(copy, "_arun", later)
    return copy


def with_guard(guard: Guard, request: Any) -> Any:
    if request.tool is None:
        return request
    # What is injected, such as the state with its messages, is not the model's to fill.
    written = set(request.tool_call["args"])
    return dataclasses.replace(request, tool=guarded(guard, request.tool, written))


def told(request: Any, error: Exception) -> Any:
    from langchain_core.messages import ToolMessage

    return ToolMessage(str(error), tool_call_id=request.tool_call["id"], name=request.tool_call["name"], status="error")
