"""For Pydantic AI: `capability`, for all tools of an agent, or `toolset`, for those of one toolset.

    agent = Agent(model, tools=[...], capabilities=[capability(guard)])

The toolset is the innermost place: hooks, instrumentation and messages have what the model wrote.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from ..errors import ApprovalRequired
from ._guard import TOLD, Guard

__all__ = ["capability", "toolset"]


def capability(guard: Guard) -> Any:
    """A capability that guards every tool of the agent; those that the guard does not name take no values."""
    from pydantic_ai.capabilities import AbstractCapability

    class Valetkey(AbstractCapability):  # type: ignore[misc]
        """Puts values into the arguments of tools, and takes them out of their results."""

        def get_wrapper_toolset(self, wrapped: Any) -> Any:
            return toolset(guard, wrapped)

    return Valetkey()


def toolset(guard: Guard, wrapped: Any) -> Any:
    """The same tools, guarded."""
    from pydantic_ai import ModelRetry
    from pydantic_ai.toolsets import WrapperToolset

    @dataclass
    class GuardedToolset(WrapperToolset):  # type: ignore[misc]
        """Runs each tool with values in its arguments."""

        async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
            try:
                return await guard.call(
                    name, tool_args, lambda filled: functools.partial(self.wrapped.call_tool, name, filled, ctx, tool)
                )
            except ApprovalRequired as error:
                # A result, because a retry is what must not come of it: a person needs minutes.
                return str(error)
            except TOLD as error:
                raise ModelRetry(str(error)) from None

    return GuardedToolset(wrapped)
