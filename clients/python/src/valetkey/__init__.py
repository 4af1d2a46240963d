"""Valet keys for AI agents: a lease on a team's secrets, handles for the model, values for the tool alone.

`Broker` is for asyncio; `valetkey.sync.Broker` has the same names without it. `valetkey.onepassword.Client` takes the
place of the 1Password SDK's. `valetkey.integrations` has wrappers for agent frameworks, `valetkey.testing` a fake
broker.
"""

# First: gRPC looks at the environment when it is imported.
from . import _process as _process
from ._broker import Access, Broker
from ._connect import VERSION as __version__
from ._context import acting
from ._events import Issued
from ._lease import Lease, LeasedSecret
from .errors import (
    ApprovalRequired,
    BadSettings,
    BrokerFailed,
    Denied,
    HandleNotActive,
    InvalidRequest,
    LeaseLost,
    LimitReached,
    NoBroker,
    NotFound,
    PersonUnauthenticated,
    Precondition,
    TimedOut,
    Unauthenticated,
    Unavailable,
    ValetkeyError,
    Violation,
)
from .secret import Secret

__all__ = [
    "Access",
    "ApprovalRequired",
    "BadSettings",
    "Broker",
    "BrokerFailed",
    "Denied",
    "HandleNotActive",
    "InvalidRequest",
    "Issued",
    "Lease",
    "LeaseLost",
    "LeasedSecret",
    "LimitReached",
    "NoBroker",
    "NotFound",
    "PersonUnauthenticated",
    "Precondition",
    "Secret",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "ValetkeyError",
    "Violation",
    "__version__",
    "acting",
]
