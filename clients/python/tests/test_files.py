"""The files of a token and of TLS: those that block, those that are wrong, and what is put into the wrong place."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import valetkey
import valetkey.sync
from test_connection import RULES, certificates
from test_leaks import reported
from valetkey import BadSettings, Broker
from valetkey._credentials import File
from valetkey.testing import FakeBroker
from world import NAVAN, PASSWORD, World

REF = "op://Travel/Navan/password"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zeroes(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def nothing(path: Path) -> None:
    pass


def too_much(path: Path) -> None:
    path.write_bytes(b"hunter2" * 200_000)


BAD = [(fifo, "no regular file"), (zeroes, "no regular file"), (folder, "cannot be read"), (nothing, "cannot be read")]


@pytest.mark.parametrize(("make", "says"), [*BAD, (too_much, "has more than")])
def test_a_file_that_is_no_file(
    valetkey_broker: FakeBroker, tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    """From the beginning, and where it is renewed as such: neither is waited for."""
    path = tmp_path / "token"
    path.write_text(valetkey_broker.token)
    with valetkey.sync.Broker(valetkey_broker.address, token_file=path) as broker:
        assert not broker.check(REF, tool="t").allowed
        path.unlink()
        make(path)
        for work in (lambda: broker.check(REF, tool="t"), lambda: Broker(token_file=path)):
            with pytest.raises(BadSettings, match=says) as caught:
                work()
            assert "hunter2" not in reported(caught.value)


async def test_a_file_system_that_does_not_answer(
    valetkey_broker: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes one thread and its own broker's deadline; others go on, and so does this one when it answers."""
    path = tmp_path / "token"
    path.write_text(valetkey_broker.token)
    caught_up, read = threading.Event(), File.read

    def slowly(file: File) -> bytes:
        caught_up.wait()
        return read(file)

    def threads() -> int:
        return sum(it.name == "valetkey-files" for it in threading.enumerate())

    async with (
        Broker(valetkey_broker.address, token_file=path, deadline=0.5) as broker,
        valetkey_broker.broker() as other,
    ):
        monkeypatch.setattr(File, "read", slowly)
        asked = [asyncio.create_task(broker.check(REF, tool="t")) for _ in range(8)]
        assert not (await other.check(REF, tool="t")).allowed
        assert threads() == 1
        for task in asked:
            with pytest.raises(BadSettings, match="does their file system answer"):
                await task
        with pytest.raises(BadSettings):
            await broker.lease([REF], tool="t", purpose="test").__aenter__()
        assert threads() == 1
        caught_up.set()
        while threads():
            await asyncio.sleep(0.01)
        broker.deadline = 60.0
        assert not (await broker.check(REF, tool="t")).allowed


KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
MISPLACED = ["vkt_abc_hunter2", "VKT_hunter2", "ops_hunter2", '"ops_hunter2"', "eyJhunter2.x.y", KEY, f"unix/{KEY}"]


@pytest.mark.parametrize("text", MISPLACED)
@pytest.mark.parametrize(
    "name", ["VALETKEY_ADDRESS", "VALETKEY_TOKEN_FILE", "VALETKEY_CA", "VALETKEY_CERT", "VALETKEY_KEY"]
)
async def test_what_is_in_the_wrong_place_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    settings = {
        "address": "VALETKEY_ADDRESS",
        "token_file": "VALETKEY_TOKEN_FILE",
        "ca": "VALETKEY_CA",
        "certificate": "VALETKEY_CERT",
        "key": "VALETKEY_KEY",
    }
    there = {"VALETKEY_ADDRESS": "https://127.0.0.1:1", "VALETKEY_CA": "c", "VALETKEY_CERT": "c", "VALETKEY_KEY": "k"}
    there[name] = text
    for variable, value in there.items():
        monkeypatch.setenv(variable, value)
    given = {argument: there[variable] for argument, variable in settings.items() if variable in there}

    async def asked(broker: Broker | valetkey.sync.Broker) -> None:
        inner = broker if isinstance(broker, Broker) else broker._inner
        del broker
        await inner.check(REF, tool="t")

    for make in (Broker.from_env, valetkey.sync.Broker.from_env, lambda: Broker(**given)):  # type: ignore[arg-type]
        with pytest.raises(BadSettings) as caught:
            await asked(make())
        assert "hunter2" not in reported(caught.value)


def test_a_folder_may_be_called_like_a_token(valetkey_broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "ops_team" / "vkt_token"
    path.parent.mkdir()
    path.write_text(valetkey_broker.token)
    with valetkey.sync.Broker(valetkey_broker.address, token_file=path) as broker:
        assert not broker.check(REF, tool="t").allowed
    assert Broker("unix:/run/ops_team/a@b.sock").address == "unix:/run/ops_team/a@b.sock"


async def test_a_key_in_place_of_a_certificate_is_not_reported(tmp_path: Path) -> None:
    path = tmp_path / "pem"
    path.write_text(KEY)
    async with Broker("https://127.0.0.1:1", token="vkt_a", ca=path) as broker:
        for text in (KEY, "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n"):
            path.write_text(text)
            with pytest.raises(BadSettings, match="no certificate") as caught:
                await broker.check(REF, tool="t")
            assert "hunter2" not in reported(caught.value)


def encrypted(key: Path) -> str:
    words = ["openssl", "pkcs8", "-topk8", "-passout", "pass:hunter2", "-in", str(key)]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


async def test_files_of_tls_that_come_and_go(tmp_path: Path) -> None:
    pki, mine = certificates(tmp_path / "pki"), tmp_path / "mine"
    mine.mkdir()
    tls = f'[tls]\ncertificate = "{pki}/broker.pem"\nkey = "{pki}/broker.key"\nclient_ca = "{pki}/ca.pem"\n'
    with World(tmp_path, tls + 'trust_domain = "valetkey.test"\n' + RULES) as world:

        def caller() -> Broker:
            address, pem = f"https://localhost:{world.port}", mine / "me.pem"
            return Broker(address, ca=pki / "ca.pem", certificate=pem, key=mine / "me.key", deadline=10)

        async def fails(says: str) -> None:
            async with caller() as other:
                with pytest.raises(BadSettings, match=says) as caught:
                    await other.check(PASSWORD, tool=NAVAN)
                assert "BEGIN" not in reported(caught.value)

        shutil.copy(pki / "agent.pem", mine / "me.pem")
        await fails("me.key` cannot be read")
        fifo(mine / "me.key")
        await fails("me.key` is no regular file")
        (mine / "me.key").unlink()
        shutil.copy(pki / "agent.pem", mine / "me.key")
        await fails("no private key")
        shutil.copy(pki / "tool.key", mine / "me.key")
        await fails("is not the key of the certificate.*KEY_VALUES_MISMATCH")
        (mine / "me.key").write_text(KEY)
        await fails("one of them is damaged")
        if shutil.which("openssl"):
            (mine / "me.key").write_text(encrypted(pki / "agent.key"))
            await fails("a key with a password")
        shutil.copy(pki / "agent.key", mine / "me.key")
        async with caller() as me:
            assert (await me.check(PASSWORD, tool=NAVAN)).allowed
            # Away for the moment, or half written: the connection that is there goes on.
            for text in ("", "-----BEGIN", (pki / "tool.key").read_text(), None):
                (mine / "me.key").unlink() if text is None else (mine / "me.key").write_text(text)
                assert (await me.check(PASSWORD, tool=NAVAN)).allowed
            shutil.copy(pki / "agent.key", mine / "me.key")
            assert (await me.check(PASSWORD, tool=NAVAN)).allowed
