"""For LangChain and LangGraph: `middleware`, for all tools of an agent.

    agent = create_agent(model, tools, middleware=[middleware(guard)])

A tool runs as a copy of itself that takes values below its callbacks: messages, checkpoints and traces have what the
model wrote.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

from ._guard import TOLD, Guard

__all__ = ["guarded", "middleware"]


def middleware(guard: Guard) -> Any:
    """An `AgentMiddleware` that guards every tool; those that the guard does not name take no values."""
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


def guarded(guard: Guard, tool: Any, written: Collection[str] | None = None) -> Any:
    """A copy of a LangChain tool, guarded. `written` names the arguments that the model wrote; without it, those of
    the tool's schema."""
    copy = tool.model_copy()
    # Not those that are injected, such as the state with its messages.
    names = [name for name in tool.args if written is None or name in written]
    run, arun = tool._run, tool._arun

    def call(function: Any, args: Any, kwargs: Any) -> tuple[str, dict[str, Any], Any]:
        # A tool of the oldest kind is given its one text by position.
        by_position = dict(zip(names, args, strict=False))
        by_name = {name: kwargs[name] for name in names if name in kwargs}

        def prepare(filled: Mapping[str, Any]) -> Any:
            first = [filled[name] for name in by_position]
            rest = {name: it for name, it in filled.items() if name not in by_position}
            return functools.partial(function, *first, *args[len(first) :], **{**kwargs, **rest})

        return tool.name, {**by_position, **by_name}, prepare

    @functools.wraps(run)
    def now(*args: Any, **kwargs: Any) -> Any:
        return guard.call_now(*call(run, args, kwargs))

    @functools.wraps(arun)
    async def later(*args: Any, **kwargs: Any) -> Any:
        return await guard.call(*call(arun, args, kwargs))

    # A field of the model's cannot be had for this: the class looks for methods.
    object.__setattr__(copy, "_run", now)
    object.__setattr__(copy, "_arun", later)
    return copy


def with_guard(guard: Guard, request: Any) -> Any:
    if request.tool is None:
        return request
    return dataclasses.replace(request, tool=guarded(guard, request.tool, request.tool_call["args"]))


def told(request: Any, error: Exception) -> Any:
    from langchain_core.messages import ToolMessage

    return ToolMessage(str(error), tool_call_id=request.tool_call["id"], name=request.tool_call["name"], status="error")
