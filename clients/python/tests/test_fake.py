"""The fake broker, and what the client makes of events and failures that a real one gives rarely."""

from __future__ import annotations

import asyncio
import os
import pickle
import time

import pytest

import valetkey
from valetkey.testing import FakeBroker

REF = "op://Travel/Navan/password"
VALUE = "hunter2"


@pytest.fixture
def fake(valetkey_broker: FakeBroker) -> FakeBroker:
    valetkey_broker.secrets[REF] = VALUE
    return valetkey_broker


async def settled(condition: object) -> None:
    end = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "did not come about"
        await asyncio.sleep(0.005)


def test_the_fixture_is_found_from_the_environment(fake: FakeBroker) -> None:
    from valetkey.sync import Broker

    assert os.environ["VALETKEY_ADDRESS"] == fake.address
    with Broker.from_env() as broker:
        with broker.lease({"p": REF}, tool="navan", purpose="book", session="s", destination="navan.example") as lease:
            assert lease["p"].redeem().expose() == VALUE
            assert fake.leases == 1
    assert fake.leases == 0
    [acquired, redeemed, ended] = fake.calls
    assert (acquired.method, redeemed.method, ended.method) == ("AcquireLease", "RedeemHandle", "EndLease")
    assert acquired == valetkey.testing.Call(
        "AcquireLease", "vkt_fake", "navan", (REF,), "book", "s", "navan.example", ""
    )


async def test_a_renewed_handle_is_the_one_to_use(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        old = lease["p"].handle
        fake.renew(REF)
        await settled(lambda: lease["p"].handle != old)
        assert (await lease["p"].redeem()).expose() == VALUE


async def test_a_redeem_meets_a_renewal(fake: FakeBroker) -> None:
    """The handle dies while it is on its way: the fresh one is used."""
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        old = lease["p"].handle
        fake._handles.pop(old)
        fake._handles[old + "x"] = fake_handle = type("H", (), {"reference": REF, "handle_id": "h", "uses": 1})()
        for held in fake._leases.values():
            held.handles[REF] = old + "x"
        value = asyncio.create_task(lease["p"].redeem())
        await settled(lambda: any(call.method == "RedeemHandle" for call in fake.calls))
        fake.renew(REF)
        assert (await value).expose() == VALUE
        assert fake_handle.uses == 1


async def test_a_revoked_handle_is_never_shown(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        fake.revoke(REF)
        await asyncio.wait_for(lease.revoked.wait(), 10)
        with pytest.raises(valetkey.LeaseLost) as lost:
            _ = lease["p"].handle
        assert lost.value.cause == "policy"
        with pytest.raises(valetkey.LeaseLost):
            await lease["p"].redeem()


async def test_a_source_that_was_away_is_asked_again(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        old = lease["p"].handle
        fake.revoke(REF, "unavailable")
        await settled(lambda: len([call for call in fake.calls if call.method == "AcquireLease"]) == 2)
        await lease.ready()
        assert lease["p"].handle != old and lease.lost is None and not lease.revoked.is_set()


@pytest.mark.parametrize("cause", ["policy", "credential", "caller", "expiry"])
async def test_an_end_that_stays(fake: FakeBroker, cause: str) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        fake.end(cause)
        await asyncio.wait_for(lease.revoked.wait(), 10)
        assert isinstance(lease.lost, valetkey.LeaseLost) and lease.lost.cause == cause
        with pytest.raises(valetkey.LeaseLost):
            _ = lease["p"].handle
    assert [call.method for call in fake.calls] == ["AcquireLease"]


@pytest.mark.parametrize("cause", ["shutdown", "unavailable", "stalled", "disconnect"])
async def test_an_end_that_passes(fake: FakeBroker, cause: str) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        old = lease["p"].handle
        fake.end(cause)
        await settled(lambda: len(fake.calls) == 2)
        await lease.ready()
        assert lease["p"].handle != old and not lease.revoked.is_set()


async def test_a_token_that_was_renewed_is_tried(fake: FakeBroker, tmp_path: object) -> None:
    file = tmp_path / "token"  # type: ignore[operator]
    file.write_text("vkt_old")
    async with valetkey.Broker(fake.address, token_file=file) as broker:
        async with broker.lease({"p": REF}, tool="t", purpose="test") as lease:
            file.write_text("vkt_new")
            fake.end("credential")
            await settled(lambda: len(fake.calls) == 2)
            await lease.ready()
    assert [call.caller for call in fake.calls[:2]] == ["vkt_old", "vkt_new"]


async def test_what_passes_is_asked_again(fake: FakeBroker) -> None:
    fake.fail("UNAVAILABLE", "AUDIT_UNAVAILABLE", times=2)
    fake.fail("RESOURCE_EXHAUSTED", "IDENTITY_LIMIT", retry_after=0.05)
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        fake.fail("UNAVAILABLE", "AUDIT_UNAVAILABLE")
        assert (await lease["p"].redeem()).expose() == VALUE


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("RESOURCE_EXHAUSTED", "LEASE_LIMIT", valetkey.LimitReached),
        ("UNAVAILABLE", "RESOLVER_CREDENTIALS_REFUSED", valetkey.Unavailable),
        ("PERMISSION_DENIED", "ACCESS_DENIED", valetkey.Denied),
        ("NOT_FOUND", "ITEM_NOT_FOUND", valetkey.NotFound),
        ("FAILED_PRECONDITION", "AMBIGUOUS_REFERENCE", valetkey.Precondition),
        ("UNAUTHENTICATED", "AGENT_UNAUTHENTICATED", valetkey.Unauthenticated),
        ("UNAUTHENTICATED", "PERSON_UNAUTHENTICATED", valetkey.PersonUnauthenticated),
        ("INVALID_ARGUMENT", "INVALID_TTL", valetkey.InvalidRequest),
        ("INTERNAL", "INTERNAL", valetkey.BrokerFailed),
        ("INTERNAL", "", valetkey.NoBroker),
    ],
)
async def test_what_stays_is_said_at_once(
    fake: FakeBroker, code: str, reason: str, kind: type[valetkey.ValetkeyError]
) -> None:
    fake.fail(code, reason, "scripted \x1b[2J text")
    async with fake.broker() as broker:
        with pytest.raises(kind) as caught:
            await broker.lease({"p": REF}, tool="t", purpose="test").__aenter__()
        assert type(caught.value) is kind and caught.value.reason == reason
        assert "\x1b" not in str(caught.value)
    assert len(fake.calls) == 1


async def test_a_time_to_wait_that_is_too_long_is_not_waited(fake: FakeBroker) -> None:
    fake.fail("UNAVAILABLE", "RESOLVER_UNAVAILABLE", retry_after=60)
    async with fake.broker(deadline=5) as broker:
        start = time.monotonic()
        with pytest.raises(valetkey.Unavailable) as caught:
            await broker.lease({"p": REF}, tool="t", purpose="test").__aenter__()
        assert time.monotonic() - start < 4 and caught.value.retry_after == 60


async def test_a_redeem_that_may_have_been_done_is_not_repeated(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        handle = lease["p"].handle
        fake.fail("UNAVAILABLE", "", "the connection broke")
        with pytest.raises(valetkey.Unavailable):
            await broker.redeem(handle)
        assert [call.method for call in fake.calls].count("RedeemHandle") == 1


async def test_a_slow_answer_is_not_waited_for_past_the_deadline(fake: FakeBroker) -> None:
    fake.delay = 3
    async with fake.broker(deadline=0.5) as broker:
        start = time.monotonic()
        with pytest.raises(valetkey.TimedOut):
            await broker.check(REF, tool="t")
        with pytest.raises(valetkey.TimedOut):
            await broker.lease({"p": REF}, tool="t", purpose="test").__aenter__()
        assert time.monotonic() - start < 2.8


async def test_it_vanishes_and_comes_back(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        old = lease["p"].handle
        fake.stop()
        fake.start()
        await settled(lambda: len([call for call in fake.calls if call.method == "AcquireLease"]) == 2)
        await lease.ready()
        assert lease["p"].handle != old
        fake.drain()
        await settled(lambda: lease.draining)


async def test_a_denial_carries_advice(fake: FakeBroker) -> None:
    fake.deny(REF, "ask with tool navan")
    async with fake.broker() as broker:
        with pytest.raises(valetkey.Denied, match="ask with tool navan"):
            await broker.lease({"p": REF}, tool="t", purpose="test").__aenter__()
        assert not (await broker.check(REF, tool="t")).allowed


APPROVALS = "https://approvals.example/{id}"


@pytest.mark.parametrize("url", [APPROVALS, "https://approvals.example", None])
async def test_a_person_must_approve(fake: FakeBroker, url: str | None) -> None:
    fake.require_approval(REF, url)
    async with fake.broker() as broker:
        with pytest.raises(valetkey.ApprovalRequired) as caught:
            await broker.lease({"p": REF}, tool="t", purpose="test").__aenter__()
        error = caught.value
        assert error.approval_id.startswith("vkl_") and error.record_id and error.reference == REF
        assert error.reason == "APPROVAL_REQUIRED"
        assert error.url == (url.replace("{id}", error.approval_id) if url else None)
        assert f"`valetkey approval approve {error.approval_id}`" in str(error) and (error.url or "") in str(error)
        assert len(fake.calls) == 1, "a person needs minutes: nothing is asked again by itself"
        back = pickle.loads(pickle.dumps(error))
        assert (str(back), back.approval_id, back.url) == (str(error), error.approval_id, error.url)
        fake.approve(REF)
        async with broker.lease({"p": REF}, tool="t", purpose="test") as lease:
            assert (await lease["p"].redeem()).expose() == VALUE


async def test_a_partial_lease_names_what_waits_for_approval(fake: FakeBroker) -> None:
    fake.secrets["op://Travel/Navan/username"] = "ana"
    fake.require_approval(REF, APPROVALS)
    names = {"p": REF, "u": "op://Travel/Navan/username"}
    async with fake.broker() as broker, broker.lease(names, tool="t", purpose="test", partial=True) as lease:
        assert lease["u"].handle
        error = lease.refused["p"]
        assert isinstance(error, valetkey.ApprovalRequired) and error.url is None
        assert error.approval_id.startswith("vkl_") and error.approval_id in str(error)
        with pytest.raises(valetkey.ApprovalRequired) as caught:
            _ = lease["p"].handle
        assert caught.value.approval_id == error.approval_id
        with pytest.raises(valetkey.ApprovalRequired):
            await lease["p"].redeem()


async def test_an_approval_that_ran_out_ends_a_lease_that_is_asked_for_again(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        fake.require_approval(REF)
        fake.end("shutdown")
        await asyncio.wait_for(lease.revoked.wait(), 20)
        with pytest.raises(valetkey.ApprovalRequired):
            _ = lease["p"].handle


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "https://a\x1b[2J.example/{id}"])
async def test_what_a_person_is_shown_is_fit_to_be_shown(fake: FakeBroker, url: str) -> None:
    fake.require_approval(REF, url)
    async with fake.broker() as broker:
        with pytest.raises(valetkey.ApprovalRequired) as caught:
            await broker.lease({"p": REF}, tool="t", purpose="test").__aenter__()
        assert not caught.value.url or caught.value.url.isprintable()
        assert str(caught.value).isprintable() and "javascript" not in str(caught.value)


async def test_a_check_says_that_a_person_must_approve(fake: FakeBroker) -> None:
    async with fake.broker() as broker:
        assert not (await broker.check(REF, tool="t")).approval_required
        fake.require_approval(REF)
        answer = await broker.check(REF, tool="t")
        assert answer.allowed and answer.approval_required


async def test_a_persons_token_goes_along(fake: FakeBroker) -> None:
    async with fake.broker() as broker:
        async with broker.lease({"p": REF}, tool="t", purpose="test", on_behalf_of="jwt.of.ana"):
            pass
    assert fake.calls[0].on_behalf_of == "jwt.of.ana"


async def test_a_lease_is_opened_once(fake: FakeBroker) -> None:
    async with fake.broker() as broker:
        lease = broker.lease({"p": REF}, tool="t", purpose="test")
        with pytest.raises(valetkey.LeaseLost, match="not open"):
            _ = lease["p"].handle
        async with lease:
            with pytest.raises(RuntimeError):
                await lease.__aenter__()
        with pytest.raises(RuntimeError):
            await lease.__aenter__()


async def test_a_value_that_is_no_text(fake: FakeBroker) -> None:
    fake.secrets[REF] = b"\xff\x00hunter2"
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        value = await lease["p"].redeem()
        assert value.expose_bytes() == b"\xff\x00hunter2"
        with pytest.raises(UnicodeDecodeError) as caught:
            value.expose()
        assert b"hunter2" not in caught.value.object


async def test_a_broker_that_is_closed_around_a_lease(fake: FakeBroker) -> None:
    broker = fake.broker()
    async with broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        await broker.close()
        with pytest.raises(valetkey.LeaseLost):
            _ = lease["p"].handle
        assert fake.leases == 0


async def test_a_stream_that_breaks_its_contract(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:

        def broken(_: object) -> str:
            raise RuntimeError("a fault of ours")

        monkeypatch.setattr(lease._state, "apply", broken)
        fake.renew(REF)
        await asyncio.wait_for(lease.revoked.wait(), 10)
        with pytest.raises(valetkey.LeaseLost):
            _ = lease["p"].handle


async def test_a_lease_outlasts_pings(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        await asyncio.sleep(13)
        assert (await lease["p"].redeem()).expose() == VALUE
    assert [call.method for call in fake.calls].count("AcquireLease") == 1


async def test_of_a_spent_handle_no_fresh_one_is_waited_for(fake: FakeBroker) -> None:
    async with fake.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        await lease["p"].redeem()
        lease._state._dies[REF] = 0.0
        start = time.monotonic()
        with pytest.raises(valetkey.HandleNotActive, match="acquire a new lease"):
            await lease["p"].redeem()
        assert time.monotonic() - start < 4
