"""A fake broker for tests: a real gRPC server in this process, whose decisions the test scripts.

    def test_booking(valetkey_broker):                       # a fixture that comes with the package
        valetkey_broker.secrets["op://Travel/Navan/password"] = "hunter2"
        with valetkey_broker.sync_broker() as broker:
            ...
        assert valetkey_broker.calls[0].tool == "navan.book_flight"

It decides nothing by itself: what is not in `secrets` is refused. It is no broker to keep secrets in.
"""

from ._fake import Call, FakeBroker

__all__ = ["Call", "FakeBroker"]
