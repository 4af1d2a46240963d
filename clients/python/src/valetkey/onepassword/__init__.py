"""The names of 1Password's SDK for resolving secrets, over a valetkey broker: one import line changes.

    from valetkey.onepassword import Client

    client = await Client.authenticate(auth=token, integration_name="My agent", integration_version="v1.0.0")
    value = await client.secrets.resolve("op://vault/item/field")

Each call is a lease, a redeem and an end: decided by policy, written down, and over when it returns. It gives values,
as the SDK does, so it is for code that no model reads along with; policy must say `@redeem_by("agent")`. Where a model
is near, use `valetkey.Broker` and hand it handles.

Not here: items, vaults, environments and groups. This is no package of 1Password's.
"""

from .client import (
    DEFAULT_INTEGRATION_NAME,
    DEFAULT_INTEGRATION_VERSION,
    Client,
    DesktopAuth,
    Secrets,
)
from .errors import DesktopSessionExpiredException, RateLimitExceededException
from .types import (
    ResolveAllResponse,
    ResolvedReference,
    ResolveReferenceError,
    ResolveReferenceErrorTypes,
    Response,
)

__all__ = [
    "DEFAULT_INTEGRATION_NAME",
    "DEFAULT_INTEGRATION_VERSION",
    "Client",
    "DesktopAuth",
    "DesktopSessionExpiredException",
    "RateLimitExceededException",
    "ResolveAllResponse",
    "ResolveReferenceError",
    "ResolveReferenceErrorTypes",
    "ResolvedReference",
    "Response",
    "Secrets",
]
