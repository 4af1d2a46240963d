"""Google ADK: events, sessions and spans have what the model wrote."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conftest import Refused, Scene
from valetkey.integrations.google_adk import plugin

SPANS = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def tracing() -> None:
    """For the process: OpenTelemetry takes one provider, once."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(SPANS))
    trace.set_tracer_provider(provider)


class Model(BaseLlm):
    """A script that keeps what it was sent."""

    said: str
    name: str = "book_flight"
    field: str = "password"
    seen: list[str] = []  # noqa: RUF012

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        self.seen.append(repr(llm_request.contents))
        part = types.Part(text="done")
        if len(self.seen) == 1:
            call = types.FunctionCall(name=self.name, args={self.field: self.said}, id="call_1")
            part = types.Part(function_call=call)
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


class Onlooker(BasePlugin):
    """Another plugin, which sees what plugins see."""

    def __init__(self) -> None:
        super().__init__(name="onlooker")
        self.seen: list[str] = []

    async def before_tool_callback(self, *, tool: Any, tool_args: Any, tool_context: Any) -> None:
        self.seen.append(repr(tool_args))

    async def after_tool_callback(self, *, tool: Any, tool_args: Any, tool_context: Any, result: Any) -> None:
        self.seen.append(repr((tool_args, result)))

    async def on_tool_error_callback(self, *, tool: Any, tool_args: Any, tool_context: Any, error: Exception) -> None:
        self.seen.append(repr((tool_args, error)))


@pytest.mark.parametrize("written", ["reference", "handle", "template", "failure"])
async def test_nothing_holds_the_value(scene: Scene, written: str) -> None:
    SPANS.clear()
    said = {"handle": f"Bearer {scene.handle}", "template": f"x {{{{ {scene.reference} }}}}"}.get(
        written, scene.reference
    )

    async def book_flight(password: str) -> dict[str, str]:
        """Books a flight."""
        told = scene.tell(password)
        if written == "failure":
            raise ValueError(told)
        return {"booked": told}

    model, onlooker = Model(model="scripted", said=said, seen=[]), Onlooker()
    agent = LlmAgent(name="travel_bot", model=model, tools=[book_flight])
    sessions = InMemorySessionService()
    app = App(name="travel", root_agent=agent, plugins=[onlooker, plugin(scene.guard)])
    runner = Runner(app=app, session_service=sessions)
    session = await sessions.create_session(app_name="travel", user_id="ana")
    events: list[str] = []
    asked = types.Content(role="user", parts=[types.Part(text="book")])
    try:
        async for event in runner.run_async(user_id="ana", session_id=session.id, new_message=asked):
            events.append(event.model_dump_json())
    except RuntimeError as error:
        assert written == "failure"
        events.append(f"{error!r} {error.__context__!r} {error.__cause__!r}")
    stored = await sessions.get_session(app_name="travel", user_id="ana", session_id=session.id)
    assert stored is not None
    told = [span.to_json() for span in SPANS.get_finished_spans()]
    scene.hidden(model.seen, events, stored.model_dump_json(), told, onlooker.seen)
    assert said in stored.model_dump_json() and said in "\n".join(onlooker.seen)
    assert "book_flight" in "\n".join(told)
    if written != "failure":
        assert "concealed by valetkey" in model.seen[-1]


async def test_a_refusal_is_told_to_the_model(refused: Refused) -> None:
    async def search(query: str) -> str:
        """Searches."""
        raise AssertionError("called")

    model = Model(model="scripted", said=refused.reference, seen=[], name="search", field="query")
    agent = LlmAgent(name="travel_bot", model=model, tools=[search])
    sessions = InMemorySessionService()
    runner = Runner(app=App(name="travel", root_agent=agent, plugins=[plugin(refused.guard)]), session_service=sessions)
    session = await sessions.create_session(app_name="travel", user_id="ana")
    asked = types.Content(role="user", parts=[types.Part(text="book")])
    async for _ in runner.run_async(user_id="ana", session_id=session.id, new_message=asked):
        pass
    assert refused.told in model.seen[-1] and refused.asked() == 1
