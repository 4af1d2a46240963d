"""The pytest fixture `valetkey_broker`. Nothing is imported before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from . import FakeBroker


@pytest.fixture
def valetkey_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    """A fake broker, which `Broker.from_env()` finds."""
    from . import FakeBroker

    with FakeBroker() as fake:
        for name in ("VALETKEY_TOKEN_FILE", "VALETKEY_CA", "VALETKEY_CERT", "VALETKEY_KEY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake
