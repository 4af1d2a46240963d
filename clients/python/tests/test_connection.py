"""Where a broker is, and how a caller is known: addresses, the environment, TLS, a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import valetkey
from valetkey import BadSettings, Broker
from valetkey._credentials import Token
from valetkey._waiting import Deadline
from world import BINARY, NAVAN, PASSWORD, VALUE, World

TOKEN = "vkt_hunter2"


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:7447",
        "http://localhost:7447/",
        "http://[::1]:1",
        "http://127.9.9.9:1",
        "unix:/run/b.sock",
        "unix:///b",
        "unix:b",
    ],
)
def test_addresses(address: str) -> None:
    assert Broker(address, token=TOKEN).address == address


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "is no address"),
        ("unix:", "is no address"),
        ("127.0.0.1:7447", "is no address"),
        ("ftp://127.0.0.1", "is no address"),
        ("http://127.0.0.1:99999", "is no address"),
        ("http://127.0.0.1:7447/path", "is no address"),
        ("https://broker.example.com/path", "is no address"),
        ("http://user:hunter2@127.0.0.1:7447", "is no address"),
        ("https://user:hunter2@127.0.0.1:7447", "is no address"),
        ("http://127.0.0.1:7447\n", "is no address"),
        ("http://10.0.0.1:7447", "clear text"),
        ("http://127.0.0.1.example.com:7447", "clear text"),
        ("http://localhost.example.com", "clear text"),
        ("https://broker.example.com", "VALETKEY_CA"),
    ],
)
def test_what_is_no_place_for_a_token(address: str, says: str) -> None:
    with pytest.raises(BadSettings, match=says) as caught:
        Broker(address, token=TOKEN)
    assert "hunter2" not in str(caught.value)


async def shown(broker: Broker, person: Token | None = None) -> object:
    _, metadata = await broker._connection.prepare(Deadline(20), person)
    return metadata


async def test_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("vkt_file\n")
    assert Broker.from_env({"VALETKEY_TOKEN": TOKEN}).address == "http://127.0.0.1:7447"
    there = {"VALETKEY_ADDRESS": "http://127.0.0.1:1", "VALETKEY_TOKEN_FILE": str(file)}
    broker = Broker.from_env(there)
    assert await shown(broker) == (("authorization", "Bearer vkt_file"),)
    file.write_text("vkt_renewed")
    assert await shown(broker) == (("authorization", "Bearer vkt_renewed"),)
    # The token itself comes before a file with one.
    broker = Broker.from_env({**there, "VALETKEY_TOKEN": TOKEN})
    assert await shown(broker, Token("jwt.of.ana")) == (
        ("authorization", f"Bearer {TOKEN}"),
        ("x-valetkey-on-behalf-of", "jwt.of.ana"),
    )
    assert TOKEN not in f"{broker!r} {broker._connection._credentials!r}"


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({}, "who are you"),
        ({"VALETKEY_TOKEN": " "}, "is empty"),
        ({"VALETKEY_TOKEN": "a b"}, "a character that no token has"),
        ({"VALETKEY_TOKEN": "a" * 8193}, "more than 8192"),
        ({"VALETKEY_TOKEN_FILE": "/nowhere"}, "cannot be read"),
        ({"VALETKEY_TOKEN": TOKEN, "VALETKEY_CERT": "c.pem"}, "needs its key"),
        ({"VALETKEY_TOKEN": TOKEN, "VALETKEY_CERT": "c.pem", "VALETKEY_KEY": "k.pem"}, "without TLS"),
    ],
)
def test_what_would_be_dropped_in_silence_is_refused(env: dict[str, str], says: str) -> None:
    with pytest.raises(BadSettings, match=says) as caught:
        Broker.from_env(env)
    assert TOKEN not in str(caught.value)


async def test_a_file_that_is_no_authority(tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text("nonsense")
    async with Broker("https://127.0.0.1:1", token=TOKEN, ca=bad) as broker:
        with pytest.raises(BadSettings, match="no certificate"):
            await broker.check(PASSWORD, tool=NAVAN)


@pytest.mark.parametrize("deadline", [0, -1, float("inf"), float("nan")])
def test_every_wait_has_an_end(deadline: float) -> None:
    with pytest.raises(BadSettings):
        Broker("http://127.0.0.1:1", token=TOKEN, deadline=deadline)


def certificates(folder: Path) -> Path:
    subprocess.run([BINARY, "dev-ca", str(folder)], check=True, capture_output=True, timeout=60)
    return folder


RULES = "".join(
    f'[[spiffe_rule]]\npattern = "spiffe://valetkey.test/{kind}/{{name}}"\n{kind} = "{{name}}"\n'
    for kind in ("agent", "tool", "person")
)


async def test_over_tls(tmp_path: Path) -> None:
    pki, others = certificates(tmp_path / "pki"), certificates(tmp_path / "others")
    tls = f'''[tls]
certificate = "{pki}/broker.pem"
key = "{pki}/broker.key"
client_ca = "{pki}/ca.pem"
trust_domain = "valetkey.test"
client_certificates = "optional"
'''
    with World(tmp_path, tls + RULES) as world:
        address = f"https://localhost:{world.port}"

        def caller(name: str, folder: Path = pki, ca: Path = pki) -> Broker:
            return Broker(
                address, ca=ca / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key", deadline=5
            )

        async with caller("agent") as agent, caller("tool") as tool:
            async with agent.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
                assert (await lease["p"].redeem(redeem_with=tool)).expose() == VALUE
        # With a token, and no certificate.
        async with Broker(address, token=world.tokens["agent:travel-bot"], ca=pki / "ca.pem") as agent:
            assert (await agent.check(PASSWORD, tool=NAVAN)).allowed
        # Another authority: said at once, because waiting does not mend it.
        async with caller("agent", ca=others) as agent:
            start = time.monotonic()
            with pytest.raises(valetkey.Unavailable):
                await agent.check(PASSWORD, tool=NAVAN)
            assert time.monotonic() - start < 4
        # In clear text where there is TLS.
        async with Broker(f"http://localhost:{world.port}", token=TOKEN, deadline=2) as agent:
            with pytest.raises((valetkey.Unavailable, valetkey.NoBroker)):
                await agent.check(PASSWORD, tool=NAVAN)


async def test_renewed_files_are_used(tmp_path: Path) -> None:
    pki, mine = certificates(tmp_path / "pki"), tmp_path / "mine"
    mine.mkdir()
    tls = f'[tls]\ncertificate = "{pki}/broker.pem"\nkey = "{pki}/broker.key"\nclient_ca = "{pki}/ca.pem"\n'
    with World(tmp_path, tls + 'trust_domain = "valetkey.test"\n' + RULES) as world:
        for kind in ("pem", "key"):
            shutil.copy(pki / f"agent.{kind}", mine / f"me.{kind}")
        me = Broker(
            f"https://localhost:{world.port}", ca=pki / "ca.pem", certificate=mine / "me.pem", key=mine / "me.key"
        )
        async with me:
            async with me.lease({"p": PASSWORD}, tool=NAVAN, purpose="test") as lease:
                for kind in ("pem", "key"):
                    shutil.copy(pki / f"tool.{kind}", mine / f"me.{kind}")
                # Known as the tool from now on; the lease goes on over the connection that it has.
                assert (await me.redeem(lease["p"].handle)).expose() == VALUE
                assert lease.lost is None


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    settings = f'[unix]\npath = "{tmp_path / "broker.sock"}"\nmode = "0600"\n'
    user = f'[[identity]]\nagent = "socket-bot"\nuid = {os.getuid()}\n'
    with World(tmp_path, settings + user) as world:
        # Whoever shows two identities must be the same one by both.
        async with world.broker("agent:sdk-bot", address=f"unix:{world.socket}") as agent:
            with pytest.raises(valetkey.Unauthenticated):
                await agent.check(PASSWORD, tool="script")
        async with Broker(f"unix://{world.socket}") as agent:
            assert not (await agent.check(PASSWORD, tool="script")).allowed
