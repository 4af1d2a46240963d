"""What all tests have."""

from fixtures import pytest_pyfunc_call, shared, world

__all__ = ["pytest_pyfunc_call", "shared", "world"]
