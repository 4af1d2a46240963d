"""A network that can be cut: a TCP proxy in a thread of its own."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time


class Proxy:
    """Passes bytes on to a port, until told otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._silent = threading.Event()
        self._refuse = threading.Event()
        self._stopped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._drop()
        self._listener.close()

    def cut(self) -> None:
        """Every connection is reset, and new ones are too."""
        self._refuse.set()
        self._drop()

    def swallow(self) -> None:
        """Bytes vanish without a word, as behind a firewall that lost its table."""
        self._silent.set()

    def restore(self) -> None:
        """The network is back. Connections whose bytes vanished stay as they are: dead."""
        self._refuse.clear()
        if self._silent.is_set():
            self._drop()
        self._silent.clear()

    def lead_to(self, port: int) -> None:
        """New connections go there, as when a balancer takes a server out; those that are open stay."""
        self._port = port

    def _drop(self) -> None:
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuse.is_set():
                client.close()
                continue
            try:
                pair = (client, socket.create_connection(("127.0.0.1", self._port)))
            except OSError:
                client.close()
                continue
            self._pairs.append(pair)
            threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                for end in select.select([one, other], [], [])[0]:
                    content = end.recv(65536)
                    if not content:
                        # That an end has hung up is a message too.
                        while self._silent.is_set() and not self._stopped.is_set():
                            time.sleep(0.02)
                        raise OSError("closed")
                    if not self._silent.is_set():
                        (other if end is one else one).sendall(content)
        one.close()
        other.close()
