"""For Google's Agent Development Kit: `plugin`, for all tools of an app.

    app = App(name="travel", root_agent=agent, plugins=[plugin(guard)])

A tool runs as a copy of itself that takes values below callbacks and traces: events, sessions and spans have what the
model wrote.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from ._guard import TOLD, Guard

__all__ = ["guarded", "plugin"]


def plugin(guard: Guard) -> Any:
    """A `BasePlugin` that guards every tool; those that the guard does not name take no values."""
    from google.adk.plugins.base_plugin import BasePlugin

    class ValetkeyPlugin(BasePlugin):  # type: ignore[misc]
        """Puts values into the arguments of tools, and takes them out of their results."""

        def __init__(self) -> None:
            super().__init__(name="valetkey")

        async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:
            # What the model may call is what is called: the names lead here.
            tools = llm_request.tools_dict
            for name, tool in tools.items():
                if not hasattr(tool, GUARDED):
                    tools[name] = guarded(guard, tool)

    return ValetkeyPlugin()


def guarded(guard: Guard, tool: Any) -> Any:
    """A copy of an ADK tool, guarded."""
    made = copy.copy(tool)

    async def run_async(*, args: dict[str, Any], tool_context: Any) -> Any:
        try:
            return await guard.call(
                tool.name,
                args,
                lambda filled: functools.partial(tool.run_async, args=filled, tool_context=tool_context),
            )
        except TOLD as error:
            return {"error": str(error)}

    made.run_async = run_async
    setattr(made, GUARDED, True)
    return made


GUARDED = "_valetkey_guarded"
