"""Counts round trips: a relay between a contender and the server, which reads along."""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from sqlalchemy import make_url

CHUNK = 65536
# The first message has no type; these codes in it ask for encryption, and are followed by another one.
ENCRYPTION_REQUESTS = {80877103, 80877104}
READY_FOR_QUERY = ord("Z")


class Answers:
    """What the server sends on one connection; finds the messages in the stream, however it is cut."""

    def __init__(self) -> None:
        self._begun = b""
        self._left = 0

    def count_ready(self, data: bytes) -> int:
        """How many messages in ``data`` say that the server has answered, and is ready for the next query."""
        data = self._begun + data
        position, found = self._left, 0
        while position + 5 <= len(data):
            found += data[position] == READY_FOR_QUERY
            position += 1 + int.from_bytes(data[position + 1 : position + 5])
        self._begun = data[position:]
        self._left = max(0, position - len(data))
        return found


class Relay:
    """Passes connections on to the server of a URL while the block runs, on an event loop of its own.

    A client that sends a query or a batch waits for ReadyForQuery before it sends the next one, whatever its
    driver and its protocol: each is one round trip. Those that belong to connecting are not counted.
    """

    def __init__(self, url: str) -> None:
        server = make_url(url)
        self._server = (server.host or "localhost", server.port or 5432)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self.round_trips = 0

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._pass_on, "127.0.0.1", 0), self._loop)
        self._listener = starting.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._listener.close()
        passing_on = asyncio.all_tasks() - {asyncio.current_task()}
        for each in passing_on:
            each.cancel()
        await asyncio.gather(*passing_on, return_exceptions=True)

    def through(self, url: str) -> str:
        """The same database by way of the relay."""
        port = self._listener.sockets[0].getsockname()[1]
        return make_url(url).set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(*self._server)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            to_server.write(await _startup(client, to_client))
            await asyncio.gather(_pump(client, to_server), self._answer(server, to_client))
        to_server.close()
        to_client.close()

    async def _answer(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        answers = Answers()
        is_connecting = True
        while data := await server.read(CHUNK):
            # Counted before the client can go on, so that the count is complete when the client is done.
            if ready := answers.count_ready(data):
                self.round_trips += ready - is_connecting
                is_connecting = False
            to_client.write(data)
        to_client.close()


async def _startup(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> bytes:
    """The client's first message that is not a wish for encryption; wishes are refused, to read along."""
    while True:
        start = await client.readexactly(8)
        length, code = struct.unpack("!II", start)
        if code not in ENCRYPTION_REQUESTS:
            return start + await client.readexactly(length - 8)
        to_client.write(b"N")


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK):
        target.write(data)
    target.close()
