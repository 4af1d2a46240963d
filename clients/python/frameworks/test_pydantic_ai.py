"""Pydantic AI: messages and spans have what the model wrote."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, Field, computed_field
from pydantic_ai import Agent, ModelResponse, RunContext, TextPart, ToolCallPart
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.toolsets import FunctionToolset

from conftest import Refused, Scene
from valetkey.conceal import Concealer
from valetkey.integrations.pydantic_ai import capability, toolset


class Login(BaseModel):
    """An argument that is made of others."""

    password: str


@pytest.mark.parametrize("written", ["reference", "handle", "template", "failure"])
@pytest.mark.parametrize("order", ["before", "behind"])
async def test_nothing_holds_the_value(scene: Scene, written: str, order: str) -> None:
    said = {"handle": f"Bearer {scene.handle}", "template": f"x {{{{ {scene.reference} }}}}"}.get(
        written, scene.reference
    )
    seen: list[str] = []

    def model(messages: Any, info: AgentInfo) -> ModelResponse:
        seen.append(repr(messages))
        if len(seen) == 1:
            return ModelResponse(parts=[ToolCallPart("book_flight", {"password": {"password": said}}, "call_1")])
        return ModelResponse(parts=[TextPart("done")])

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    both: list[Any] = [capability(scene.guard), Instrumentation(InstrumentationSettings(tracer_provider=provider))]
    if order == "behind":
        both.reverse()
    agent = Agent(FunctionModel(model), name="travel-bot", capabilities=both, deps_type=dict)

    @agent.tool
    async def book_flight(ctx: RunContext[dict[str, str]], password: Login) -> str:
        """Books a flight."""
        assert scene.value not in repr(ctx.deps)
        told = scene.tell(password.password)
        if written == "failure":
            raise ValueError(told)
        return told

    result: Any = None
    try:
        result = (await agent.run("book", deps={"kept": scene.reference})).all_messages_json()
    except RuntimeError as error:
        assert written == "failure"
        result = repr(error), repr(error.__context__), repr(error.__cause__)
    told = [f"{span.name} {span.to_json()}" for span in spans.get_finished_spans()]
    scene.hidden(seen, result, told)
    assert said in "\n".join(told) and "book_flight" in "\n".join(told)
    if written != "failure":
        assert "concealed by valetkey" in seen[-1] and said in seen[-1]


async def test_one_toolset(scene: Scene) -> None:
    tools: Any = FunctionToolset()

    @tools.tool_plain
    def book_flight(password: str) -> str:
        """Books a flight."""
        return scene.tell(password)

    seen: list[str] = []

    def model(messages: Any, info: AgentInfo) -> ModelResponse:
        seen.append(repr(messages))
        if len(seen) == 1:
            return ModelResponse(parts=[ToolCallPart("book_flight", {"password": scene.handle}, "call_1")])
        return ModelResponse(parts=[TextPart("done")])

    agent = Agent(FunctionModel(model), toolsets=[toolset(scene.guard, tools)])
    scene.hidden((await agent.run("book")).all_messages_json(), seen)


async def test_a_refusal_is_told_to_the_model(refused: Refused) -> None:
    seen: list[str] = []

    def model(messages: Any, info: AgentInfo) -> ModelResponse:
        seen.append(repr(messages))
        if len(seen) == 1:
            return ModelResponse(parts=[ToolCallPart("search", {"query": refused.reference}, "call_1")])
        return ModelResponse(parts=[TextPart("done")])

    agent = Agent(FunctionModel(model), capabilities=[capability(refused.guard)])

    @agent.tool_plain
    def search(query: str) -> str:
        """Searches."""
        raise AssertionError("called")

    await agent.run("search")
    assert refused.told in seen[-1] and refused.asked() == 1


class Reply(BaseModel):
    """One that shows more than it is dumped as, or less."""

    ok: bool = True
    request: str = Field(default="", exclude=True)
    inner: Login | None = None

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def length(self) -> str:
        return f"as in {self._kept}"

    _kept: str = ""


def test_a_model_as_a_result() -> None:
    concealer = Concealer(["hunter2"])
    shown = concealer.anything(Reply(request="POST /login hunter2", inner=Login(password="hunter2")))
    assert isinstance(shown, Reply) and "hunter2" not in f"{shown!r} {shown.model_dump_json()}"
    assert "concealed" in shown.request
    kept = Reply()
    kept._kept = "hunter2"
    assert "hunter2" not in str(concealer.anything(kept))
    harmless = Reply(request="nothing")
    assert concealer.anything(harmless) is harmless
