"""LangChain and LangGraph: messages, checkpoints and callbacks have what the model wrote."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import InjectedState

from conftest import Refused, Scene
from valetkey.integrations.langchain import guarded, middleware


class Model(FakeMessagesListChatModel):
    """A script that takes tools, and keeps what it was sent."""

    seen: list[Any] = []  # noqa: RUF012

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(repr(messages))
        return super()._generate(messages, *args, **kwargs)


class Recorder(BaseCallbackHandler):
    """Keeps what a tracer would."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda *args, **kwargs: self.seen.append(f"{name} {args!r} {kwargs!r}")


@pytest.mark.parametrize("written", ["reference", "handle", "template", "failure"])
@pytest.mark.parametrize("how", ["async", "sync", "sync in async"])
async def test_nothing_holds_the_value(scene: Scene, written: str, how: str) -> None:
    said = {"handle": f"Bearer {scene.handle}", "template": f"x {{{{ {scene.reference} }}}}"}.get(
        written, scene.reference
    )

    def act(password: str) -> str:
        told = scene.tell(password)
        if written == "failure":
            raise ValueError(told)
        return told

    if how == "async":

        @tool
        async def book_flight(route: str, password: str) -> str:
            """Books a flight."""
            return act(password)
    else:

        @tool
        def book_flight(route: str, password: str) -> str:
            """Books a flight."""
            return act(password)

    call = {"name": "book_flight", "args": {"route": "LIS-BER", "password": said}, "id": "call_1"}
    model = Model(responses=[AIMessage("", tool_calls=[call]), AIMessage("done")], seen=[])
    saver, recorder = InMemorySaver(), Recorder()
    agent = create_agent(model, [book_flight], middleware=[middleware(scene.guard)], checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "run"}, "callbacks": [recorder]}
    asked: Any = {"messages": [("user", "book")]}
    result: object = None
    try:
        result = agent.invoke(asked, config) if how == "sync" else await agent.ainvoke(asked, config)
    except RuntimeError as error:
        # An agent without handling of errors ends with that of its tool.
        assert written == "failure"
        result = repr(error), repr(error.__context__), repr(error.__cause__)
    stored = [repr(it) for it in saver.list(config)]
    scene.hidden(result, stored, saver.storage, saver.blobs, saver.writes, recorder.seen, model.seen)
    assert said in str(stored) and any("on_tool_start" in it and said in it for it in recorder.seen)
    if written != "failure":
        assert "concealed by valetkey" in str(model.seen)


def test_the_state_is_not_the_models_to_fill(scene: Scene) -> None:
    """What the framework adds to a call, such as the conversation with its handles, is left alone."""

    @tool
    def book_flight(password: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Books a flight."""
        assert (scene.value in repr(state)) == bool(scene.got)
        return scene.tell(password)

    call = {"name": "book_flight", "args": {"password": scene.reference}, "id": "call_1"}
    model = Model(responses=[AIMessage("", tool_calls=[call]), AIMessage("done")], seen=[])
    agent = create_agent(model, [book_flight], middleware=[middleware(scene.guard)])
    scene.hidden(agent.invoke({"messages": [("user", f"book with {scene.handle}")]}))
    # Nor is what a person wrote there a guess of the model's.
    model.i = 0
    agent.invoke({"messages": [("user", f"it is {scene.value}, I think")]})
    assert scene.got == [scene.value, scene.value]


def test_a_page_fills_nothing_in(scene: Scene) -> None:
    """What an earlier tool found stands in the state; nobody wrote it into an argument."""

    @tool
    def fetch_page(url: str) -> str:
        """Fetches a page."""
        return f"cheap flights! {{{{ {scene.reference} }}}} {scene.handle}"

    @tool
    @scene.guard.wrap
    def book_flight(password: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Books a flight."""
        assert scene.value not in repr(state) and scene.handle in repr(state)
        return scene.tell(password)

    first = {"name": "fetch_page", "args": {"url": "https://flights.example"}, "id": "call_1"}
    then = {"name": "book_flight", "args": {"password": scene.reference}, "id": "call_2"}
    model = Model(responses=[AIMessage("", tool_calls=[first]), AIMessage("", tool_calls=[then]), AIMessage("done")])
    scene.hidden(create_agent(model, [fetch_page, book_flight]).invoke({"messages": [("user", "book")]}))


def test_a_tool_that_is_an_agent_is_told_the_handle(scene: Scene) -> None:
    """Its model reads what this model wrote, and its tools get the value; so does nobody else's."""
    guards = [middleware(scene.guard)]

    @tool
    def book_flight(password: str) -> str:
        """Books a flight."""
        return scene.tell(password)

    @tool
    def travel_agent(request: str) -> Any:
        """Books what is asked for."""
        return inner.invoke({"messages": [("user", request)]})["messages"]

    asked = f"book LIS-BER, with {scene.handle}"
    book = {"name": "book_flight", "args": {"password": scene.handle}, "id": "call_1"}
    delegate = {"name": "travel_agent", "args": {"request": asked}, "id": "call_2"}
    below = Model(responses=[AIMessage("", tool_calls=[book]), AIMessage("booked")], seen=[])
    inner = create_agent(below, [book_flight], middleware=guards)
    above = Model(responses=[AIMessage("", tool_calls=[delegate]), AIMessage("done")], seen=[])
    result = create_agent(above, [travel_agent], middleware=guards).invoke({"messages": [("user", "go")]})
    scene.hidden(below.seen, above.seen, result)
    assert asked in below.seen[0]


def test_a_tool_alone(scene: Scene) -> None:
    @tool
    def book_flight(password: str) -> str:
        """Books a flight."""
        return scene.tell(password)

    scene.hidden(guarded(scene.guard, book_flight).invoke({"password": scene.handle}))


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_refusal_is_told_to_the_model(refused: Refused, how: str) -> None:
    @tool
    def search(query: str) -> str:
        """Searches."""
        raise AssertionError("called")

    call = {"name": "search", "args": {"query": refused.reference}, "id": "call_1"}
    model = Model(responses=[AIMessage("", tool_calls=[call]), AIMessage("done")], seen=[])
    agent = create_agent(model, [search], middleware=[middleware(refused.guard)])
    asked: Any = {"messages": [("user", "search")]}
    _ = agent.invoke(asked) if how == "sync" else await agent.ainvoke(asked)
    assert refused.told in model.seen[-1] and refused.asked() == 1
