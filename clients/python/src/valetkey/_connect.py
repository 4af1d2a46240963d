"""The connection: what gRPC is told, and what goes with each call."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from . import _process
from ._address import Address
from ._aside import Aside
from ._credentials import Credentials, Pem, Token
from ._proto import lease_service_pb2 as wire
from ._proto import lease_service_pb2_grpc as services
from ._waiting import Deadline
from .errors import BadSettings
from .secret import Secret

VERSION = "0.1.0"
# A broker that vanished without a word is noticed after these two together.
KEEP_ALIVE_INTERVAL_MS = 3_000
KEEP_ALIVE_MAX_MS = 2_000
CONNECT_MAX_MS = 5_000
MESSAGE_MAX = 4 * 1024 * 1024
# Connections with older files, on which leases may still go on.
RETIRED_MAX = 4

Metadata = tuple[tuple[str, str], ...]

OPTIONS: list[tuple[str, object]] = [
    ("grpc.primary_user_agent", f"valetkey-python/{VERSION}"),
    ("grpc.keepalive_time_ms", KEEP_ALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", KEEP_ALIVE_MAX_MS),
    # A minute, where it is not said: then the one above is not kept.
    ("grpc.http2.ping_timeout_ms", KEEP_ALIVE_MAX_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MAX_MS),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    # What is asked again, and when, is decided here: a redeem must not be repeated behind our back.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A token must not travel through whatever `http_proxy` names.
    ("grpc.enable_http_proxy", 0),
    # Another broker of this process must not share the connection's pauses.
    ("grpc.use_local_subchannel_pool", 1),
]


class Connection:
    """Reaches one broker as one identity. Made lazily, because a channel belongs to the loop it is made in."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        credentials.check(address.scheme, address.shown)
        self.address = address
        self._credentials = credentials
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pem: Pem | None = None
        self._retired: list[grpc.aio.Channel] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._read_aside = Aside(self._read)

    async def prepare(
        self, deadline: Deadline, person: Token | None = None
    ) -> tuple[services.LeaseServiceStub, Metadata]:
        """What a call is made with: the connection as it is now, and who calls, for whom."""
        _process.use()
        try:
            async with deadline.bound():
                shown, pem = await self._files()
        except TimeoutError:
            raise BadSettings(
                f"the files of the token or of TLS were not read within {deadline.seconds:g} s; does their file system "
                "answer?"
            ) from None
        for_whom = (("x-valetkey-on-behalf-of", person.plain()),) if person else ()
        return self._stub(pem), (*shown, *for_whom)

    async def _files(self) -> tuple[Metadata, Pem | None]:
        if self._credentials.token_file is None and self.address.scheme != "https":
            return self._read()
        return await self._read_aside()

    def _read(self) -> tuple[Metadata, Pem | None]:
        """What the files say now."""
        bearer = self._credentials.bearer()
        shown = (("authorization", bearer),) if bearer else ()
        if self.address.scheme != "https":
            return shown, None
        try:
            pem = self._credentials.pem()
            if pem != self._pem:
                self._credentials.fit_together(pem)
            return shown, pem
        except BadSettings:
            if self._channel is None:
                raise
            # They are just being renewed, or away for the moment: the connection stays as it is.
            return shown, self._pem

    def _stub(self, pem: Pem | None) -> services.LeaseServiceStub:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A second `asyncio.run`: what belongs to the first cannot even be closed here.
            self._loop, self._channel, self._retired = loop, None, []
        if self._channel is not None and self._pem != pem:
            # The files were renewed: calls that are open go on over the connection they have.
            self._retire(self._channel)
            self._channel = None
        if self._channel is None:
            self._channel = self._open(pem)
            self._pem = pem
        stub = services.LeaseServiceStub(self._channel)
        # Of a message, asyncio's debug log would show the value.
        stub.RedeemHandle = self._channel.unary_unary(
            "/valetkey.v1.LeaseService/RedeemHandle",
            request_serializer=wire.RedeemHandleRequest.SerializeToString,
            response_deserializer=secret_of,
        )
        return stub

    async def close(self) -> None:
        channels = [*self._retired, *([self._channel] if self._channel else [])]
        self._retired, self._channel = [], None
        if self.is_here():
            for channel in channels:
                await channel.close()

    def is_here(self) -> bool:
        """Whether what is open belongs to the loop that runs."""
        return self._loop is asyncio.get_running_loop()

    def _open(self, pem: Pem | None) -> grpc.aio.Channel:
        target, options = self.address.target, list(OPTIONS)
        if pem is not None:
            shown = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
            return grpc.aio.secure_channel(target, shown, options)
        if self.address.scheme == "unix":
            # The authority of requests; nobody looks at it.
            options.append(("grpc.default_authority", "localhost"))
        return grpc.aio.insecure_channel(target, options)

    def _retire(self, channel: grpc.aio.Channel) -> None:
        self._retired.append(channel)
        if len(self._retired) > RETIRED_MAX:
            task = asyncio.get_running_loop().create_task(self._retired.pop(0).close())
            # The loop keeps no hold of it.
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def secret_of(reply: bytes) -> Secret:
    return Secret(wire.RedeemHandleResponse.FromString(reply).secret_value)
