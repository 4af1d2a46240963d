"""Where a broker is: `https://host:port`, `http://` over loopback, `unix:/path`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ._credentials import fit, hushed
from .errors import BadSettings


@dataclass(frozen=True)
class Address:
    """`target` is in gRPC's form. `shown` is fit for messages."""

    shown: str
    target: str
    scheme: str

    @classmethod
    def parse(cls, text: str) -> Address:
        # It may hold a password before its `@`, and a broken one may hold anything.
        shown = fit(text.rsplit("@", 1)[-1])
        found = parted(text)
        if found is None:
            raise BadSettings(
                f"`{shown}` is no address of a broker; it looks like `https://broker.example.com:7447`, "
                "`http://127.0.0.1:7447` or `unix:/run/valetkey/broker.sock`"
            )
        scheme, target, near = found
        if scheme == "http" and not near:
            raise BadSettings(
                f"`{shown}` is not a loopback address, and nothing travels there in clear text; use `https` and "
                "name the broker's authority (`VALETKEY_CA`)"
            )
        return cls(shown, target, scheme)


def parted(text: str) -> tuple[str, str, bool] | None:
    """The scheme, gRPC's target, and whether that is this machine; nothing where it is no address."""
    if text.startswith("unix:"):
        path = text[5:]
        # `unix:///path` means the same.
        path = path[2:] if path.startswith("///") else path
        return ("unix", f"unix:{path}", True) if path and "\0" not in path else None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    # Credentials, a path or a query would be dropped in silence.
    more = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not host or more or any(c <= " " for c in text):
        return None
    usual = 80 if parts.scheme == "http" else 443
    name = f"[{host}]" if ":" in host else host
    return parts.scheme, hushed(f"dns:///{name}:{port or usual}"), is_loopback(host)


def is_loopback(host: str) -> bool:
    """`localhost` counts: resolvers must answer it with loopback (RFC 6761, section 6.3)."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
