"""What a peer may send without end, and what a client keeps of it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import valetkey
from valetkey._events import State
from valetkey._proto import lease_pb2 as words
from valetkey._proto import lease_service_pb2 as wire
from valetkey._proto import lease_service_pb2_grpc as services
from valetkey.testing import FakeBroker

REF = "op://Travel/Navan/password"
EVENTS = 1_000


class Loud(services.LeaseServiceServicer):  # type: ignore[misc]
    """Opens a lease as asked, and then talks of others."""

    def __init__(self) -> None:
        self.metadata_size = 0

    def AcquireLease(self, request: Any, context: Any) -> Iterator[wire.AcquireLeaseResponse]:
        context.send_initial_metadata((("x", "y" * self.metadata_size),))
        yield wire.AcquireLeaseResponse(opened=words.LeaseOpened(lease_id="vkl_a"))
        yield wire.AcquireLeaseResponse(issued=issued(REF, 0))
        for number in range(EVENTS):
            other = f"op://Travel/Other/{number}"
            yield wire.AcquireLeaseResponse(issued=issued(other, number))
            yield wire.AcquireLeaseResponse(renewed=words.HandleRenewed(issued=issued(other, number)))
            yield wire.AcquireLeaseResponse(refused=words.ReferenceRefused(reference=other, reason="ACCESS_DENIED"))
            yield wire.AcquireLeaseResponse(revoked=words.HandleRevoked(reference=other, handle_id=f"vkh_{number}"))
        yield wire.AcquireLeaseResponse(draining=words.LeaseDraining())
        time.sleep(60)

    def EndLease(self, request: Any, context: Any) -> wire.EndLeaseResponse:
        return wire.EndLeaseResponse()


def issued(reference: str, number: int) -> words.HandleIssued:
    return words.HandleIssued(reference=reference, handle=f"vkh_{number}_a", handle_id=f"vkh_{number}", uses=1)


@pytest.fixture
def loud() -> Iterator[tuple[Loud, str]]:
    servicer = Loud()
    server = grpc.server(ThreadPoolExecutor(4))
    services.add_LeaseServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"http://127.0.0.1:{port}"
    server.stop(0)


async def test_what_was_not_asked_for_is_not_kept(loud: tuple[Loud, str]) -> None:
    _, address = loud
    async with valetkey.Broker(address, token="vkt_a") as broker:
        async with broker.lease({"p": REF}, tool="t", purpose="test") as lease:
            while not lease.draining:
                await asyncio.sleep(0.01)
            state = lease._state
            kept = [*state.issued, *state.refused, *state.revoked, *state._dies]
            assert set(kept) == {REF} and lease["p"].handle == "vkh_0_a"
            assert lease.refused == {} and not lease.revoked.is_set()


async def test_an_answer_that_is_too_large_is_the_brokers_fault(loud: tuple[Loud, str]) -> None:
    servicer, address = loud
    servicer.metadata_size = 200_000
    async with valetkey.Broker(address, token="vkt_a", deadline=10) as broker:
        with pytest.raises(valetkey.BrokerFailed, match="metadata"):
            await broker.lease({"p": REF}, tool="t", purpose="test").__aenter__()


async def test_a_lease_that_lives_long_stays_small(valetkey_broker: FakeBroker) -> None:
    valetkey_broker.secrets[REF], valetkey_broker.uses = "hunter2", 2
    async with valetkey_broker.broker() as broker, broker.lease({"p": REF}, tool="t", purpose="test") as lease:
        for _ in range(20):
            old = lease["p"].handle
            await lease["p"].redeem()
            valetkey_broker.renew(REF)
            while lease["p"].handle == old:
                await asyncio.sleep(0.001)
        assert len(lease._spent) == 1


async def test_leases_that_are_over_are_forgotten(valetkey_broker: FakeBroker) -> None:
    valetkey_broker.secrets[REF] = "hunter2"
    ours = (valetkey.Lease, valetkey.LeasedSecret, State, asyncio.Task)
    async with valetkey_broker.broker() as broker:

        async def alive(times: int) -> int:
            for _ in range(times):
                async with broker.lease({"p": REF}, tool="t", purpose="test") as lease:
                    await lease["p"].redeem()
            del lease
            # What is only just being cancelled.
            for _ in range(20):
                await asyncio.sleep(0.01)
            gc.collect()
            return sum(isinstance(it, ours) for it in gc.get_objects())

        before = await alive(5)
        assert await alive(100) <= before + 10
