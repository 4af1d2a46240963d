"""Wrappers for agent frameworks. The model writes a reference or a handle as a tool's argument; the value is put in
after the model spoke, below what traces and stores its words, and taken out of what the tool returns.

`Guard` is all that most need: `guard.wrap(function)` works with every framework. The modules beside it do that for all
tools of one: `openai_agents`, `langchain`, `pydantic_ai`, `google_adk`. Each imports its framework when it is used.
"""

from ._guard import Guard, GuardedTool

__all__ = ["Guard", "GuardedTool"]
