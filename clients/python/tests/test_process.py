"""A process that forks, and what belongs to one process: a child neither hangs, nor harms its parent."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading

import pytest

import valetkey
import valetkey.sync
from valetkey.integrations import Guard
from valetkey.onepassword import Client
from valetkey.testing import FakeBroker

REF = "op://Travel/Navan/password"
TOKEN = "vkt_hunter2"

BEFORE = """
import asyncio, multiprocessing, os, sys
import valetkey, valetkey.sync
from valetkey.sync import Broker

REF = "op://Travel/Navan/password"
ASKED = {"tool": "navan", "purpose": "test"}


def say(*words):
    # In one piece: parent and child share it.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


def tried(work):
    try:
        return work()
    except valetkey.ValetkeyError as error:
        return type(error).__name__


def check(broker):
    return broker.check(REF, tool="navan").allowed


def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)
"""

INHERITED = """
with Broker.from_env() as broker:
    check(broker)
    child(lambda: say("inherited", tried(lambda: check(broker))))
    child(lambda: say("own", tried(lambda: check(Broker.from_env()))))
    child(lambda: say("asyncio", tried(lambda: asyncio.run(valetkey.Broker.from_env().check(REF, tool="navan")))))
    say("parent", check(broker))
"""

LEASE = """
def handle():
    return lease["p"].handle and "shown"

with Broker.from_env() as broker:
    with broker.lease({"p": REF}, **ASKED) as lease:
        child(lambda: say("handle", tried(handle)))
        child(lambda: say("released", lease.release()))
        child(lambda: say("closed", broker.close()))
        pid = os.fork()
        if pid == 0:
            # Leaves both blocks, and all that Python does at its end.
            sys.exit(0)
        os.waitpid(pid, 0)
        say("parent", lease["p"].redeem().expose(), lease.revoked.is_set(), lease.lost)
"""

LEASE_LATER = """
async def main():
    try:
        async with valetkey.Broker.from_env() as broker:
            async with broker.lease({"p": REF}, **ASKED) as lease:
                pid = os.fork()
                if pid == 0:
                    raise SystemExit
                os.waitpid(pid, 0)
                say("parent", (await lease["p"].redeem()).expose(), lease.revoked.is_set(), lease.lost)
    except SystemExit:
        # Out of both blocks. What asyncio does at its end in a child of its own process is not ours.
        os._exit(0)

asyncio.run(main())
"""

POOL = """
def work(_):
    return tried(lambda: check(Broker.from_env()))

with Broker.from_env() as broker:
    check(broker)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        say("pool", *pool.map(work, range(4)))
    say("parent", check(broker))
"""

BEFORE_USE = """
broker = Broker.from_env()
child(lambda: say("child", tried(lambda: check(broker))))
broker.close()
child(lambda: say("child", tried(lambda: check(broker))))
say("parent", check(broker))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (INHERITED, "inherited BadSettings\nown BadSettings\nasyncio BadSettings\nparent True\n"),
        (LEASE, "handle BadSettings\nreleased None\nclosed None\nparent hunter2 False None\n"),
        (LEASE_LATER, "parent hunter2 False None\n"),
        (POOL, "pool BadSettings BadSettings BadSettings BadSettings\nparent True\n"),
        (BEFORE_USE, "child True\nchild True\nparent True\n"),
    ],
    ids=["inherited", "lease", "lease-later", "pool", "before-use"],
)
def test_a_fork(valetkey_broker: FakeBroker, script: str, says: str) -> None:
    valetkey_broker.secrets[REF] = "hunter2"
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEFORE + script]
    said = subprocess.run(words, capture_output=True, text=True, timeout=80)
    assert (said.stdout, said.returncode) == (says, 0), said.stderr
    ended = [call.method for call in valetkey_broker.calls].count("EndLease")
    assert ended == (1 if "lease(" in script else 0), "by the parent alone"


def test_what_stays_in_its_process() -> None:
    plain, later = valetkey.sync.Broker("http://127.0.0.1:1", token=TOKEN), valetkey.Broker(token=TOKEN)
    leases = (plain.lease({"p": REF}, tool="t"), later.lease({"p": REF}, tool="t"))
    things = [plain, later, *leases, *(lease["p"] for lease in leases), Guard(plain, {}), made_client()]
    for thing in things:
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            if (way, thing) == (copy.copy, things[-2]):
                continue  # a second guard over the same broker
            with pytest.raises(TypeError, match="is not copied or pickled") as caught:
                way(thing)
            assert "hunter2" not in str(caught.value)


def made_client() -> Client:
    client = Client()
    client.secrets = valetkey.onepassword.client.Secrets(valetkey.Broker(token=TOKEN), "t", "test")
    return client


def test_a_loop_that_stands_still_is_not_waited_for(
    valetkey_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever holds it up, and a deadline that nobody is there to keep."""
    monkeypatch.setattr(valetkey.sync, "STILL_MAX", 0.2)
    go_on = threading.Event()
    with valetkey_broker.sync_broker() as broker:
        valetkey.sync._running().call_soon_threadsafe(go_on.wait)
        with pytest.raises(valetkey.TimedOut, match="stood still"):
            broker.check(REF, tool="navan")
        go_on.set()
        monkeypatch.setattr(valetkey.sync, "STILL_MAX", 60.0)
        valetkey.sync._moves()
        assert not broker.check(REF, tool="navan").allowed
