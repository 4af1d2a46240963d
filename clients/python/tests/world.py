"""A real broker on the travel story's vault, which can be killed, frozen, drained and started again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import valetkey
import valetkey.sync

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent.parent
BINARY = os.environ.get("VALETKEY_BIN") or str(REPOSITORY / "target/debug/valetkey")

USERNAME = "op://Tutorial/Navan/username"
PASSWORD = "op://Tutorial/Navan/password"
RAMP = "op://Tutorial/Ramp/password"
CARD = "op://Tutorial/Travel Card/number"
FORBIDDEN = "op://Production/Database/password"
NAVAN = "navan.book_flight"
VALUE = "demo-navan-password-7f3a91"
IDENTITIES = ("agent:travel-bot", "agent:sdk-bot", "tool:navan.book_flight", "tool:ramp.submit_expense", "person:ana")


@cache
def identities() -> tuple[str, dict[str, str]]:
    """The entries of the configuration, and the tokens they are for."""
    import tempfile

    tokens = {}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "valetkey.toml"
        config.write_text("")
        for identity in IDENTITIES:
            kind, name = identity.split(":")
            words = [BINARY, "token", "create", "--config", str(config), f"--{kind}", name]
            made = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
            tokens[identity] = made.stdout.strip()
        return config.read_text(), tokens


class World:
    """The broker, its folder and the tokens of all identities."""

    def __init__(self, folder: Path, settings: str = "", policy: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.policies = folder / "policies"
        self.socket = folder / "broker.sock"
        entries, self.tokens = identities()
        shutil.copytree(REPOSITORY / "policies", self.policies, ignore=shutil.ignore_patterns("tests", "matrix*"))
        shutil.copy(HERE / "policies/sdk.cedar", self.policies)
        if policy:
            (self.policies / "more.cedar").write_text(policy)
        vault = folder / "vault.json"
        shutil.copy(REPOSITORY / "examples/travel/vault.json", vault)
        vault.chmod(0o600)
        self.config = folder / "valetkey.toml"
        self.config.write_text(
            f'listen = "127.0.0.1:{self.port}"\n'
            '[audit]\ndatabase = "audit.db"\n[policies]\ndirectory = "policies"\n'
            "[limits]\ndrain_grace_seconds = 2\n"
            f'[[source]]\nname = "file"\nkind = "file"\nfile = "vault.json"\n{settings}\n{entries}'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> World:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        log = open(self.folder / "broker.log", "ab")
        words = [BINARY, "serve", "--config", str(self.config), "--create-database"]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + 60
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "broker.log").read_text())
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        self.kill()

    def broker(self, identity: str = "agent:travel-bot", **settings: Any) -> valetkey.Broker:
        return valetkey.Broker(settings.pop("address", self.address), token=self.tokens[identity], **settings)

    def sync_broker(self, identity: str = "agent:travel-bot", **settings: Any) -> valetkey.sync.Broker:
        return valetkey.sync.Broker(settings.pop("address", self.address), token=self.tokens[identity], **settings)

    def audit(self, *query: str) -> list[dict[str, Any]]:
        """What the log says, the newest first."""
        env = {"VALETKEY_ADDRESS": self.address, "VALETKEY_TOKEN": self.tokens["person:ana"], "PATH": ""}
        words = [BINARY, "audit", "query", "--format", "jsonl", *query]
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60, env=env)
        return [json.loads(line) for line in said.stdout.splitlines() if line]

    def forbid(self, text: str) -> None:
        """Puts one more policy in place, as an operator would: by renaming."""
        draft = self.folder / "draft"
        draft.write_text(text)
        draft.rename(self.policies / "zz-test.cedar")


def free_port() -> int:
    """One that a broker can have again after a restart: no connection is given it meanwhile, as one above 32767 is."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
