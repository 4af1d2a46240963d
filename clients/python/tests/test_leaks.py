"""What is reported about a failure: tracebacks with locals, the objects themselves, debug logs."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import valetkey
import valetkey.sync
from fixtures import reported
from valetkey.integrations import Guard, GuardedTool
from valetkey.testing import FakeBroker
from world import FORBIDDEN, NAVAN, World

REF = "op://Travel/Navan/password"
# Short: a `repr` that is cut off would still show all of it.
VALUE = "hunter2"
TOKEN = "vkt_hunter2"
PERSON = "jwt.of.hunter2"
DEAD = f"vkh_{'0' * 16}_{'0' * 40}"


@pytest.fixture
def fake(valetkey_broker: FakeBroker) -> FakeBroker:
    valetkey_broker.secrets[REF] = VALUE
    return valetkey_broker


def plainly(broker: valetkey.sync.Broker, way: str) -> None:
    if way == "lease":
        with broker.lease([FORBIDDEN], tool=NAVAN, purpose="test", on_behalf_of=PERSON):
            raise AssertionError("opened")
    if way == "redeem":
        broker.redeem(DEAD)
    broker.check("nonsense", on_behalf_of=PERSON)


async def later(broker: valetkey.Broker, way: str) -> None:
    if way == "lease":
        async with broker.lease([FORBIDDEN], tool=NAVAN, purpose="test", on_behalf_of=PERSON):
            raise AssertionError("opened")
    if way == "redeem":
        await broker.redeem(DEAD)
    await broker.check("nonsense", on_behalf_of=PERSON)


@pytest.mark.parametrize("way", ["lease", "redeem", "check"])
async def test_a_refusal_shows_no_token(shared: World, way: str) -> None:
    token = shared.tokens["agent:travel-bot"]
    with pytest.raises(valetkey.ValetkeyError) as caught:
        async with shared.broker() as broker:
            await later(broker, way)
    told = [reported(caught.value)]
    with pytest.raises(valetkey.ValetkeyError) as caught, shared.sync_broker() as plain:
        await asyncio.to_thread(plainly, plain, way)
    told.append(reported(caught.value))
    lease = broker.lease([REF], tool=NAVAN, on_behalf_of=PERSON)
    told += [f"{vars(it)}" for it in (broker, lease, broker._connection, broker._connection._credentials)]
    for text in told:
        assert token not in text and PERSON not in text, text


@pytest.mark.parametrize("kind", [valetkey.Broker, valetkey.sync.Broker])
@pytest.mark.parametrize("token", [TOKEN, "two\nlines of hunter2"])
def test_bad_settings_show_no_token(
    kind: type[valetkey.Broker], token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    monkeypatch.setenv("VALETKEY_ADDRESS", "http://10.0.0.1:1")
    monkeypatch.setenv("VALETKEY_TOKEN", token)
    ways: list[Callable[[], object]] = [
        lambda: kind("http://10.0.0.1:1", token=token),
        lambda: kind("http://127.0.0.1:1", token=token, deadline=-1),
        lambda: kind("http://127.0.0.1:1", token_file=file, certificate=file),
        kind.from_env,
    ]
    for way in ways:
        with pytest.raises(valetkey.BadSettings) as caught:
            way()
        assert "hunter2" not in reported(caught.value)


def test_a_guard_shows_no_value(fake: FakeBroker) -> None:
    """Not of the handle that was good, where another one is not; nor where the tool itself fails."""

    def pay(one: str, other: str = "") -> None:
        raise ValueError("nothing of it")

    with (
        fake.sync_broker() as broker,
        fake.sync_broker() as other,
        broker.lease({"p": REF}, tool="t", purpose="test") as lease,
    ):
        guard = Guard(broker, {"pay": GuardedTool("t", fields=["one", "other"], redeem_with=other)})
        with pytest.raises(valetkey.HandleNotActive) as refused:
            guard.wrap(pay)(lease["p"].handle, DEAD)
        with pytest.raises(ValueError) as failed:
            guard.wrap(pay)(REF)
    for error in (refused.value, failed.value):
        assert VALUE not in reported(error)


async def test_the_debug_log_shows_no_value(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    loops = (asyncio.get_running_loop(), valetkey.sync._running())
    for loop in loops:
        loop.set_debug(True)
        # Now it tells of every step.
        monkeypatch.setattr(loop, "slow_callback_duration", 0.0)
    with fake.sync_broker() as plain:
        guard = Guard(plain, {"t": GuardedTool("t", fields=["card"], redeem_with=plain)})
        async with valetkey.Broker(fake.address, token=TOKEN) as broker:
            async with broker.lease({"p": REF}, tool="t", purpose="test", on_behalf_of=PERSON) as lease:
                task = asyncio.create_task(lease["p"].redeem())
                await task
            assert "concealed" in await asyncio.to_thread(guard.wrap(echo, "t"), REF)
            assert "concealed" in await guard.wrap(echo_later, "t")(REF)
    for loop in loops:
        loop.set_debug(False)
    assert "_invoke() done" in caplog.text and "enter() done" in caplog.text, "it does not tell what it was meant to"
    for text in (caplog.text, repr(task)):
        assert "hunter2" not in text


def echo(card: str) -> str:
    return card


async def echo_later(card: str) -> str:
    return card


SCRIPT = """
import faulthandler, logging, sys
logging.basicConfig(level=logging.DEBUG)
from valetkey.sync import Broker
with Broker.from_env() as broker, broker.lease({"p": sys.argv[1]}, tool="t", purpose="test") as lease:
    secret = lease["p"].redeem()
    logging.debug("got %s %r %s", secret, secret, {"password": secret})
    faulthandler.dump_traceback(all_threads=True)
    raise RuntimeError(secret)
"""


def test_what_a_process_says_shows_no_value(fake: FakeBroker) -> None:
    """In developer mode, with the debug logs of asyncio and gRPC, a dump of all threads and a crash."""
    env = {**os.environ, "GRPC_VERBOSITY": "debug", "PYTHONASYNCIODEBUG": "1"}
    words = [sys.executable, "-X", "dev", "-c", SCRIPT, REF]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)
    assert said.returncode == 1 and "RuntimeError: <concealed by valetkey>" in said.stderr, said.stderr
    assert VALUE not in said.stdout + said.stderr and fake.token not in said.stdout + said.stderr
