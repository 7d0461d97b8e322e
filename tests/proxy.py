"""A TCP proxy before PostgreSQL, which loses chosen requests, answers and connections."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self

from sqlalchemy import URL

# The simple query "COMMIT", as every driver sends it, with or without a semicolon.
COMMIT = re.compile(rb"\AQ....COMMIT;?\0", re.DOTALL)
CHUNK = 65536
# The first message has no type byte; these codes in it ask for encryption and are followed by another.
ENCRYPTION_REQUESTS = {80877103, 80877104}


class Loss(Enum):
    """What is lost of the exchange that a cut waits for; the connection is lost with it."""

    REQUEST = auto()
    ANSWER = auto()


@dataclass(frozen=True)
class Cut:
    """A loss to come. ``happened`` is set when it has: for a lost answer, the server has answered."""

    pattern: re.Pattern[bytes]
    loss: Loss
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Passes bytes between clients and the server of ``url`` until it is told to lose some.

    ``proxy.url`` and ``proxy.port`` are for the clients. It works for every driver that speaks to
    PostgreSQL in the clear. Drivers that prepare a statement send its text once, when they prepare
    it: a pattern made of SQL then meets the preparation and not the execution.
    """

    def __init__(self, url: URL) -> None:
        self._server = (url.host or "127.0.0.1", url.port or 5432)
        self._lock = threading.Lock()
        self._cuts: list[Cut] = []
        self._links: set[_Link] = set()
        self._is_refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = url.set(host="127.0.0.1", port=self.port)
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def cut(self, loss: Loss = Loss.ANSWER, *, at: re.Pattern[bytes] = COMMIT) -> Cut:
        """Lose the next exchange, of any connection, in whose request ``at`` is found; then go on as before.

        The request is one message of PostgreSQL's protocol: its type, its length, its content.
        """
        cut = Cut(at, loss)
        with self._lock:
            self._cuts.append(cut)
        return cut

    def cut_all(self) -> int:
        """Break every connection at once, and say how many there were; new ones are accepted."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()
        return len(links)

    def refuse(self) -> None:
        """Break every connection, and every new one until ``accept``: a server that is away."""
        self._is_refusing = True
        self.cut_all()

    def accept(self) -> None:
        """End what ``refuse`` began."""
        self._is_refusing = False

    def close(self) -> None:
        """End the proxy with all connections."""
        # close() alone does not wake the thread that waits in accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()
            link.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_refusing:
                _break(client)
                continue
            try:
                server = socket.create_connection(self._server)
            except OSError:
                _break(client)
                continue
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.start()

    def _taken(self, message: bytes) -> Cut | None:
        """The first cut that waits for this message; it waits no more."""
        with self._lock:
            for cut in self._cuts:
                if cut.pattern.search(message):
                    self._cuts.remove(cut)
                    return cut
        return None

    def _forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One client's connection, and the one to the server that was opened for it."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._losing_answer: Cut | None = None
        self._threads = [
            threading.Thread(target=self._pump, args=(self._pass_requests,), name="proxy requests", daemon=True),
            threading.Thread(target=self._pump, args=(self._pass_answers,), name="proxy answers", daemon=True),
        ]
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        _break(self._client)
        _break(self._server)

    def _pump(self, passing: Callable[[], None]) -> None:
        with suppress(OSError):
            passing()
        self.close()
        self._proxy._forget(self)

    def _pass_requests(self) -> None:
        for message in _messages(self._client):
            if cut := self._proxy._taken(message):
                if cut.loss is Loss.REQUEST:
                    cut.happened.set()
                    return
                # Before the request goes out, since its answer comes to the other thread.
                self._losing_answer = cut
            self._server.sendall(message)

    def _pass_answers(self) -> None:
        while chunk := self._server.recv(CHUNK):
            if cut := self._losing_answer:
                # Before the client can know of it.
                cut.happened.set()
                return
            self._client.sendall(chunk)


def _messages(client: socket.socket) -> Iterator[bytes]:
    """The client's messages one by one, each complete.

    https://www.postgresql.org/docs/current/protocol-message-formats.html
    """
    received = b""
    # Where the length stands, and how many bytes must be there to know it and what follows.
    start, header = 0, 8
    while True:
        length = start + int.from_bytes(received[start : start + 4])
        if len(received) < header or len(received) < length:
            chunk = client.recv(CHUNK)
            if not chunk:
                return
            received += chunk
            continue
        if start == 0 and int.from_bytes(received[4:8]) not in ENCRYPTION_REQUESTS:
            start, header = 1, 5
        yield received[:length]
        received = received[length:]


def _break(end: socket.socket) -> None:
    """End a connection with a reset, as a crash does, and wake the thread that reads from it."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
