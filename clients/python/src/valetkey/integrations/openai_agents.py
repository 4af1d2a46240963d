"""For the OpenAI Agents SDK: `function_tool`, in place of `agents.function_tool`.

    @function_tool(guard)
    async def book_flight(route: str, password: str) -> str: ...

The SDK has no hook that rewrites arguments, so the function itself is wrapped: below its traces, its sessions and its
handling of errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._guard import TOLD, Guard

__all__ = ["function_tool"]


def function_tool(guard: Guard, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """As `agents.function_tool` with these settings, for a function that takes secrets."""
    import agents

    def tell(context: Any, error: Exception) -> str:
        return str(error) if isinstance(error, TOLD) else str(agents.default_tool_error_function(context, error))

    settings.setdefault("failure_error_function", tell)

    def make(function: Callable[..., Any]) -> Any:
        name = settings.get("name_override") or function.__name__
        return agents.function_tool(**settings)(guard.wrap(function, name))

    return make
