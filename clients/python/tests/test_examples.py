"""The journeys of `examples/python`, as one runs them, and the words of `docs/python.md`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from world import BINARY, REPOSITORY, VALUE

EXAMPLES = REPOSITORY / "examples/python"
DOCS = REPOSITORY / "docs/python.md"


def values() -> list[str]:
    vault = json.loads((REPOSITORY / "examples/travel/vault.json").read_text())
    return [field["value"] for item in vault["items"] for field in item["fields"]]


def run(file: Path, **env: str) -> str:
    env = {**os.environ, "VALETKEY_BIN": BINARY, **env}
    said = subprocess.run(
        [sys.executable, "-W", "error", str(file)], capture_output=True, text=True, timeout=90, env=env
    )
    assert (said.returncode, said.stderr) == (0, ""), said.stderr
    return said.stdout


def test_the_model_sees_handles_alone() -> None:
    transcript = run(EXAMPLES / "journey.py")
    assert [value for value in values() if value in transcript] == []
    assert len(set(re.findall(r"vkh_[0-9a-v]{16}_[0-9a-v]{40}", transcript))) == 7
    assert "LIS-BER-42" in transcript and "EXP-7" in transcript, "booked and filed, so the values were right"
    assert transcript.endswith("-- 0 of 7 values in it --\n")


def test_the_tutorials_way_shows_the_difference() -> None:
    transcript = run(EXAMPLES / "journey_tutorial.py")
    assert "vkh_" not in transcript and VALUE in transcript
    assert "LIS-BER-42" in transcript and "EXP-7" in transcript
    assert transcript.endswith("-- 7 of 7 values in it --\n")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def try_out() -> Iterator[dict[str, str]]:
    """The throw-away broker of the page, and what it prints."""
    process = subprocess.Popen(
        [BINARY, "serve", "--dev"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        tokens: dict[str, str] = {}
        name = ""
        for line in process.stdout:
            if line.startswith("export VALETKEY_ADDRESS="):
                tokens["address"] = line.strip().partition("=")[2]
            if found := re.match(r"# ((agent|tool|person):\S+)$", line):
                name = found[1]
            if line.startswith("export VALETKEY_TOKEN="):
                tokens[name] = line.strip().partition("=")[2]
            if name == "person:omar" and name in tokens:
                break
        yield tokens
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_from_install_to_the_first_redeemed_handle(try_out: dict[str, str], tmp_path: Path) -> None:
    start = DOCS.read_text().partition("\n## ")[0]
    lines = [
        line
        for block in re.findall(r"^```\w+\n(.*?)^```", start, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len([line for line in lines if line.strip()]) < 20
    script = tmp_path / "first.py"
    script.write_text(blocks("python")[0])
    said = run(
        script,
        VALETKEY_ADDRESS=try_out["address"],
        VALETKEY_TOKEN=try_out["agent:travel-bot"],
        NAVAN_TOKEN=try_out["tool:navan.book_flight"],
    )
    assert re.fullmatch(rf"for the model: vkh_\w+\nfor the tool: {VALUE}\n", said)


@pytest.mark.parametrize("number", range(1, len(blocks("python"))))
def test_the_other_examples_of_the_page(try_out: dict[str, str], tmp_path: Path, number: int) -> None:
    block = blocks("python")[number]
    script = tmp_path / ("test_block.py" if "def test_" in block else "block.py")
    script.write_text(block)
    env = {
        "VALETKEY_ADDRESS": try_out["address"],
        "VALETKEY_TOKEN": try_out["agent:travel-bot"],
        "NAVAN_TOKEN": try_out["tool:navan.book_flight"],
    }
    if "def test_" in block:
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
        said = subprocess.run(
            words, capture_output=True, text=True, timeout=60, env={**os.environ, **env}, cwd=tmp_path
        )
        assert said.returncode == 0, said.stdout
    else:
        run(script, **env)
