"""OpenAI Agents: the model's input, the session on disk and the trace have what the model wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, SQLiteSession, add_trace_processor, set_trace_processors
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing import TracingProcessor

from conftest import Refused, Scene
from valetkey.integrations.openai_agents import function_tool


class Recorder(TracingProcessor):
    """Keeps what would be sent to whoever collects traces."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_trace_start(self, trace: Any) -> None:
        self.seen.append(trace.export())

    def on_trace_end(self, trace: Any) -> None:
        self.seen.append(trace.export())

    def on_span_start(self, span: Any) -> None:
        self.seen.append(span.export())

    def on_span_end(self, span: Any) -> None:
        self.seen.append(span.export())

    def shutdown(self) -> None:
        pass

    def force_flush(self) -> None:
        pass


@pytest.mark.parametrize("written", ["reference", "handle", "template", "failure"])
async def test_nothing_holds_the_value(scene: Scene, tmp_path: Path, written: str) -> None:
    recorder = Recorder()
    set_trace_processors([])
    add_trace_processor(recorder)

    @function_tool(scene.guard)
    async def book_flight(route: str, password: str) -> str:
        """Books a flight."""
        told = scene.tell(password)
        if written == "failure":
            raise ValueError(told)
        return told

    said = {"handle": f"Bearer {scene.handle}", "template": f"x {{{{ {scene.reference} }}}}"}.get(
        written, scene.reference
    )
    arguments = json.dumps({"route": "LIS-BER", "password": said})
    model = ScriptedModel(
        [[function_call("book_flight", arguments, call_id="call_1")], [assistant_message("done")]], emit_traces=True
    )
    session = SQLiteSession("run", tmp_path / "session.db")
    agent = Agent(name="travel-bot", model=model, tools=[book_flight])
    result = await Runner.run(agent, "book", session=session, run_config=RunConfig(trace_include_sensitive_data=True))
    assert result.final_output == "done"
    calls = [call.input for call in model.calls]
    stored = await session.get_items()
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    scene.hidden(calls, stored, files, recorder.seen, result.to_input_list(), result.new_items)
    assert said in str(calls)
    assert "concealed by valetkey" in str(recorder.seen if written == "failure" else calls)
    assert recorder.seen and "book_flight" in str(recorder.seen)
    assert "password" in str(book_flight.params_json_schema) and "Books a flight" in book_flight.description


async def test_a_refusal_is_told_to_the_model(refused: Refused) -> None:
    @function_tool(refused.guard, name_override="search")
    def anything(query: str) -> str:
        raise AssertionError("called")

    arguments = json.dumps({"query": refused.reference})
    model = ScriptedModel([[function_call("search", arguments, call_id="call_1")], [assistant_message("done")]])
    await Runner.run(Agent(name="travel-bot", model=model, tools=[anything]), "search")
    assert refused.told in str(model.calls[-1].input) and refused.asked() == 1
