"""What both journeys need around them: a broker on the travel story's vault, and small stand-ins for Navan and Ramp.

All of it is on loopback, lives in a temporary folder and goes when the journey ends.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IDENTITIES = ("agent:travel-bot", "agent:tutorial-bot", "tool:navan.book_flight", "tool:ramp.submit_expense")


@dataclass
class Stage:
    """Where everything is, and who is who."""

    broker: str
    values: list[str]
    tokens: dict[str, str]
    navan: str
    ramp: str


@contextmanager
def stage() -> Iterator[Stage]:
    """Sets it up, and takes it down."""
    with tempfile.TemporaryDirectory() as folder, services() as (navan, ramp):
        address, tokens, process = start_broker(Path(folder))
        try:
            yield Stage(address, values(), tokens, navan, ramp)
        finally:
            process.terminate()
            process.wait(30)


def values() -> list[str]:
    """The seven, to look for in a transcript."""
    items = vault()
    return [items[title][label] for title, label in SEVEN]


def vault() -> dict[str, dict[str, str]]:
    """Each item's fields, by their labels."""
    content = json.loads((REPOSITORY / "examples/travel/vault.json").read_text())
    return {item["title"]: {it["label"]: it["value"] for it in item["fields"]} for item in content["items"]}


def start_broker(folder: Path) -> tuple[str, dict[str, str], subprocess.Popen[str]]:
    program = os.environ.get("VALETKEY_BIN") or shutil.which("valetkey") or str(REPOSITORY / "target/debug/valetkey")
    shutil.copytree(REPOSITORY / "policies", folder / "policies", ignore=shutil.ignore_patterns("tests", "matrix*"))
    (folder / "policies/tutorial.cedar").write_text(TUTORIAL_POLICY)
    shutil.copy(REPOSITORY / "examples/travel/vault.json", folder / "vault.json")
    (folder / "vault.json").chmod(0o600)
    config = folder / "valetkey.toml"
    port = free_port()
    config.write_text(CONFIG.format(port=port))
    tokens = {}
    for identity in IDENTITIES:
        kind, name = identity.split(":")
        words = [program, "token", "create", "--config", str(config), f"--{kind}", name]
        tokens[identity] = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    words = [program, "serve", "--config", str(config), "--create-database"]
    with open(folder / "broker.log", "w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, text=True)
    # A client waits for a broker that is about to listen; here it may also have refused its configuration.
    time.sleep(0.1)
    if process.poll() is not None:
        raise SystemExit((folder / "broker.log").read_text())
    return f"http://127.0.0.1:{port}", tokens, process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def services() -> Iterator[tuple[str, str]]:
    """Navan and Ramp, as far as the journey needs them. Each knows what the vault has about it."""
    items = vault()
    servers = []
    for handler in (navan(items), ramp(items)):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    try:
        yield tuple(f"http://127.0.0.1:{server.server_port}" for server in servers)  # type: ignore[misc]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def navan(items: dict[str, dict[str, str]]) -> type[BaseHTTPRequestHandler]:
    card = items["Travel Card"]

    def book(said: dict[str, Any]) -> dict[str, Any] | None:
        paid = (said["card_number"], said["card_expiry"], said["card_code"])
        if paid != (card["number"], card["expiry date"], card["verification number"]):
            return None
        # As some services do: what was sent comes back in the answer.
        return {"booking": "LIS-BER-42", "amount": "184.20 EUR", "paid_with": said["card_number"]}

    return service(items["Navan"], "/bookings", book)


def ramp(items: dict[str, dict[str, str]]) -> type[BaseHTTPRequestHandler]:
    def file(said: dict[str, Any]) -> dict[str, Any]:
        return {"expense": "EXP-7", "amount": said["amount"], "filed_by": said["username"]}

    return service(items["Ramp"], "/expenses", file)


def service(login: dict[str, str], path: str, act: Any) -> type[BaseHTTPRequestHandler]:
    """One path, behind a user's name and password."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["content-length"])))
            known = (said.get("username"), said.get("password")) == (login["username"], login["password"])
            answer = act(said) if known and self.path == path else None
            self.send_response(200 if answer else 403)
            self.end_headers()
            self.wfile.write(json.dumps(answer or {"error": "refused"}).encode())

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    return Handler


SEVEN = (
    *(("Navan", "username"), ("Navan", "password"), ("Ramp", "username"), ("Ramp", "password")),
    *(("Travel Card", "number"), ("Travel Card", "expiry date"), ("Travel Card", "verification number")),
)
CONFIG = """listen = "127.0.0.1:{port}"
[audit]
database = "audit.db"
[policies]
directory = "policies"
[[source]]
name = "travel"
kind = "file"
file = "vault.json"
"""
# What the tutorial's way takes: an agent that may see every value itself.
TUTORIAL_POLICY = """@id("tutorial-bot")
@redeem_by("agent")
permit (principal == Agent::"tutorial-bot", action == Action::"acquire", resource in Vault::"tutorial")
when { context.tool in Toolset::"travel" };

@id("tutorial-bot-redeem")
permit (principal == Agent::"tutorial-bot", action == Action::"redeem", resource in Vault::"tutorial");
"""
