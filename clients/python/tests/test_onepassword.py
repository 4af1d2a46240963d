"""The names of 1Password's SDK, against a real broker; its own README's examples with the import changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import valetkey
from test_leaks import reported
from valetkey import onepassword
from valetkey.onepassword import Client, RateLimitExceededException, ResolveReferenceErrorTypes
from valetkey.testing import FakeBroker
from world import FORBIDDEN, PASSWORD, REPOSITORY, USERNAME, VALUE, World

# As they stand in the README of onepassword-sdk 0.4.2, with a reference that exists and a `print` at the comment.
DESKTOP = """
import asyncio
import os
from onepassword.client import Client, DesktopAuth

async def main():
    # Connects to 1Password. Fill in your own integration name and version.
    client = await Client.authenticate(
    auth=DesktopAuth(
        # TODO: Set to your 1Password account name.
        account_name="your-account-name"
    ),
    # TODO: Set to your own integration name and version.
    integration_name="My 1Password Integration",
    integration_version="v1.0.0",
)

    # Retrieves a secret from 1Password. Takes a secret reference as input and returns the secret to which it points.
    value = await client.secrets.resolve("op://Tutorial/Navan/password")
    # use value here
    print(value)

if __name__ == '__main__':
    asyncio.run(main())
"""
README = """
import asyncio
import os
from onepassword.client import Client

async def main():
    # Gets your service account token from the OP_SERVICE_ACCOUNT_TOKEN environment variable.
    token = os.getenv("OP_SERVICE_ACCOUNT_TOKEN")

    # Connects to 1Password. Fill in your own integration name and version.
    client = await Client.authenticate(auth=token, integration_name="My 1Password Integration", integration_version="v1.0.0")

    # Retrieves a secret from 1Password. Takes a secret reference as input and returns the secret to which it points.
    value = await client.secrets.resolve("op://Tutorial/Navan/password")
    # use value here
    print(value)

if __name__ == '__main__':
    asyncio.run(main())
"""  # noqa: E501
IMPORT = "from onepassword.client import"


@pytest.fixture
def here(shared: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("VALETKEY_ADDRESS", shared.address)
    monkeypatch.setenv("VALETKEY_TOKEN", shared.tokens["agent:sdk-bot"])
    return shared


@pytest.mark.parametrize("module", ["valetkey.onepassword", "valetkey.onepassword.client"])
@pytest.mark.parametrize("example", [README, DESKTOP])
def test_the_readmes_examples_with_one_line_changed(shared: World, tmp_path: Path, module: str, example: str) -> None:
    changed = example.replace(IMPORT, f"from {module} import")
    assert sum(a != b for a, b in zip(example.splitlines(), changed.splitlines(), strict=True)) == 1
    token = shared.tokens["agent:sdk-bot"]
    shown = {"OP_SERVICE_ACCOUNT_TOKEN": token} if example is README else {"VALETKEY_TOKEN": token}
    said = run(changed, tmp_path, VALETKEY_ADDRESS=shared.address, **shown)
    assert said.stdout == f"{VALUE}\n"
    assert ("leave `DesktopAuth` out" in said.stderr) if example is DESKTOP else (said.stderr == "")


def test_the_policy_of_the_page_is_enough_for_it(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/python.md").read_text()
    [policy] = re.findall(r"^```cedar\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    changed = README.replace(IMPORT, "from valetkey.onepassword import")
    for more, value in ((policy, f"{VALUE}\n"), ("", "")):
        folder = tmp_path / (value.strip() or "without")
        folder.mkdir()
        with World(folder, policy=more) as world:
            token = world.tokens["agent:travel-bot"]
            said = run(changed, tmp_path, VALETKEY_ADDRESS=world.address, OP_SERVICE_ACCOUNT_TOKEN=token)
            assert said.stdout == value and ("Denied" in said.stderr) == (not value)


def run(text: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    script = folder / "example.py"
    script.write_text(text)
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=env)


async def test_each_call_is_a_lease_a_redeem_and_an_end(here: World) -> None:
    client = await Client.authenticate(None, "My agent", "v1")
    assert await client.secrets.resolve(PASSWORD) == VALUE
    acquired = here.audit("kind:acquire", "tool:My-agent")[0]
    assert acquired["purpose"] == "resolve a secret for My agent v1"
    kinds = {row["kind"] for row in here.audit(f"lease:{acquired['lease_id']}")}
    assert {"acquire", "redeem", "end_lease", "lease_end"} <= kinds
    await client.close()


async def test_the_answers_of_resolve_all(here: World) -> None:
    client = await Client.authenticate(None, "My agent", "v1")
    references = [PASSWORD, "nonsense", FORBIDDEN, "op://Tutorial/Nothing/x", "op://Tutorial/Navan/nothing", USERNAME]
    answer = await client.secrets.resolve_all([*references, PASSWORD])
    found = answer.individual_responses
    assert list(found) == references
    assert found[PASSWORD].content is not None and found[PASSWORD].content.secret == VALUE
    assert VALUE not in repr(answer)
    kinds = {reference: it.error.type for reference, it in found.items() if it.error}
    assert kinds == {
        "nonsense": ResolveReferenceErrorTypes.PARSING,
        FORBIDDEN: ResolveReferenceErrorTypes.OTHER,
        "op://Tutorial/Nothing/x": ResolveReferenceErrorTypes.ITEM_NOT_FOUND,
        "op://Tutorial/Navan/nothing": ResolveReferenceErrorTypes.FIELD_NOT_FOUND,
    }
    await client.close()


@pytest.mark.parametrize("nothing", ["op://Tutorial/Nothing", "op://Tutorial/Navan", "op://Production/Database"])
async def test_the_answers_where_none_is_resolved(here: World, nothing: str) -> None:
    """Each has its own, also where the broker refuses the lease as a whole."""
    client = await Client.authenticate(None, "My agent", "v1")
    references = [f"{nothing}/one", f"{nothing}/other", f"{nothing}/nothing"]
    found = (await client.secrets.resolve_all(references)).individual_responses
    assert list(found) == references
    reasons = {it.error.reason for it in found.values() if it.error}
    assert len(reasons) == 1 and reasons <= {"ITEM_NOT_FOUND", "FIELD_NOT_FOUND", "ACCESS_DENIED"}
    records = {it.error.message.rpartition(" ")[2] for it in found.values() if it.error}
    assert len(records) == 3, "each names a record of its own"
    await client.close()


async def test_errors(here: World) -> None:
    client = await Client.authenticate(None, "My agent", "v1")
    with pytest.raises(valetkey.Denied):
        await client.secrets.resolve(FORBIDDEN)
    with pytest.raises(valetkey.InvalidRequest):
        await client.secrets.resolve("nonsense")
    with pytest.raises(AttributeError, match="1Password's own SDK"):
        client.items.get("vault", "item")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = client.nothing
    await client.close()


@pytest.fixture
def fake(valetkey_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    valetkey_broker.secrets[PASSWORD] = VALUE
    for name, value in valetkey_broker.environment.items():
        monkeypatch.setenv(name, value)
    return valetkey_broker


@pytest.mark.parametrize(
    "auth",
    [
        "ops_eyJhunter2",
        " ops_eyJhunter2\n",
        '"ops_eyJhunter2"',
        "'ops_eyJhunter2'",
        "OPS_eyJhunter2",
        "OP_SERVICE_ACCOUNT_TOKEN=ops_eyJhunter2",
        "\ufeffops_eyJhunter2",
        "Bearer ops_eyJhunter2",
    ],
)
async def test_a_service_accounts_token_goes_nowhere(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    monkeypatch.setenv("OP_SERVICE_ACCOUNT_TOKEN", auth)
    with pytest.warns(UserWarning, match="take the service account's token out") as warned:
        client = await Client.authenticate(os.environ["OP_SERVICE_ACCOUNT_TOKEN"], "My agent", "v1")
    assert "hunter2" not in str(warned[0].message)
    assert await client.secrets.resolve(PASSWORD) == VALUE
    assert {call.caller for call in fake.calls} == {fake.token}
    await client.close()
    # Nor as a broker's own token, by mistake.
    monkeypatch.setenv("VALETKEY_TOKEN", auth)
    with pytest.raises(valetkey.BadSettings, match="token of a service account") as caught:
        await Client.authenticate(None, "My agent", "v1")
    assert "hunter2" not in reported(caught.value)


@pytest.mark.parametrize("auth", ["hunter2", '"vkt_hunter2"', "vkt_hunter2 vkt_b", "eyJhunter2", " "])
async def test_nothing_else_is_sent_either(fake: FakeBroker, auth: str) -> None:
    with pytest.raises(valetkey.BadSettings, match="quotes around it") as caught:
        await Client.authenticate(auth, "My agent", "v1")
    assert "hunter2" not in reported(caught.value) and not fake.calls


# The last has a service account's prefix in it by chance.
@pytest.mark.parametrize("auth", ["vkt_0123456789abcdef_0123", " vkt_a\n", "eyJa.eyJb.c-_d", "eyJa.eyJops_b.c"])
async def test_a_token_for_the_broker_is_sent(fake: FakeBroker, auth: str) -> None:
    client = await Client.authenticate(auth, "My agent", "v1")
    assert await client.secrets.resolve(PASSWORD) == VALUE
    assert {call.caller for call in fake.calls} == {auth.strip()}
    await client.close()


async def test_a_limit_is_the_sdks_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBroker() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        fake.secrets["op://a/b/c"] = "value"
        fake.fail("RESOURCE_EXHAUSTED", "LEASE_LIMIT", "too many leases")
        client = await Client.authenticate(None, "My agent", "v1")
        with pytest.raises(RateLimitExceededException) as caught:
            await client.secrets.resolve("op://a/b/c")
        assert "too many leases" in caught.value.message
        await client.close()


async def test_what_waits_for_approval_says_so(valetkey_broker: FakeBroker) -> None:
    """The SDK has no such error: it is the broker's own where one is raised, and another one in a list of answers."""
    one, other = "op://a/b/c", "op://a/b/d"
    valetkey_broker.secrets.update({one: "value", other: "value"})
    valetkey_broker.require_approval(one, "https://approvals.example/{id}")
    client = await Client.authenticate(None, "My agent", "v1")
    with pytest.raises(valetkey.ApprovalRequired) as caught:
        await client.secrets.resolve(one)
    assert caught.value.url == f"https://approvals.example/{caught.value.approval_id}"
    found = (await client.secrets.resolve_all([one, other])).individual_responses
    assert found[other].content is not None and found[other].content.secret == "value"
    error = found[one].error
    assert error is not None and error.type is ResolveReferenceErrorTypes.OTHER
    assert error.reason == "APPROVAL_REQUIRED" and "valetkey approval approve vkl_" in error.message
    await client.close()


@pytest.mark.parametrize(
    "reference", ["op://v/i/f", "op://v v/i.i/s-s/f_f", "op://v/i/f?attribute=otp", "op://v/i/f?ssh-format=openssh"]
)
def test_references(reference: str) -> None:
    onepassword.Secrets.validate_secret_reference(reference)


@pytest.mark.parametrize(
    "reference", ["", "op://v/i", "op://v/i/s/f/x", "op://v//f", "op:// v/i/f", "op://v/../f", "x"]
)
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(valetkey.InvalidRequest):
        onepassword.Secrets.validate_secret_reference(reference)


def test_the_examples_are_the_sdks_own() -> None:
    """Where the SDK is installed beside, its README is what the examples above are taken from."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        readme = metadata("onepassword-sdk").get_payload()  # type: ignore[attr-defined]
    except PackageNotFoundError:
        pytest.skip("onepassword-sdk is not installed here")
    for example in (README, DESKTOP):
        there = example.replace("op://Tutorial/Navan/password", "op://vault/item/field").replace(
            "    print(value)\n", ""
        )
        assert re.sub(r"\s+", " ", there).strip() in re.sub(r"\s+", " ", readme)
