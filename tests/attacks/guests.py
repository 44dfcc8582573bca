"""Clients beside the viewers: guests whose token ends, and a writer of notes that repeats itself."""

import asyncio
import contextlib
import inspect
import os
import random
import time
from collections.abc import Awaitable, Callable

from lines import HOST, PATIENCE, Web
from victim import H3CAST, H3cast

# Ticks, ten a second, whatever happens.
FEED = "/stream/live"


async def until(what: str, seconds: float, holds: Callable[[], bool | Awaitable[bool]]) -> None:
    end = time.monotonic() + seconds
    while not (await held if inspect.isawaitable(held := holds()) else held):
        assert time.monotonic() < end, f"not in {seconds:.0f} s: {what}"
        await asyncio.sleep(0.1)


async def admitted(web: Web, token: str) -> bool:
    """Whether the feed may be read with it."""
    status, _ = await web.get(f"{FEED}?limit=1", f"Authorization: Bearer {token}")
    assert status in (200, 401), status
    return status == 200


class Guest:
    """A viewer that notices by itself, from what the protocol says, that its token has ended."""

    def __init__(self) -> None:
        self.reading, self.ending = asyncio.Event(), ""

    @property
    def done(self) -> bool:
        return self._task.done()

    @classmethod
    async def all(cls, server: H3cast, web: Web, token: str, seconds: float) -> "list[Guest]":
        """One of each kind, each of which reads; an empty list if they do not get in in time."""
        guests = [Listener(web, token), Getter(server, token, False), Getter(server, token, True)]
        for guest in guests:
            guest._task = asyncio.create_task(guest.read())
        try:
            async with asyncio.timeout(seconds):
                for guest in guests:
                    await guest.reading.wait()
            return guests
        except TimeoutError:
            for guest in guests:
                guest._task.cancel()
            await asyncio.gather(*(guest._task for guest in guests), return_exceptions=True)
            return []

    @staticmethod
    async def expire(guests: "list[Guest]", seconds: float) -> None:
        """Each is to be ended as docs/protocol.md says."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(guest._task for guest in guests))
        except TimeoutError:
            left = [type(guest).__name__ for guest in guests if not guest.done]
            raise AssertionError(f"{left} still read {seconds:.0f} s after their token ended") from None
        for guest in guests:
            assert guest.expected in guest.ending, f"{guest.expected!r} expected: {guest.ending!r}"


class Listener(Guest):
    """Server-sent events."""

    expected = "event: expired\ndata: {}\n\n"

    def __init__(self, web: Web, token: str) -> None:
        super().__init__()
        self._web, self._fields = web, ["Accept: text/event-stream", f"Authorization: Bearer {token}"]

    async def read(self) -> None:
        async with self._web.request("GET", FEED, *self._fields) as (reader, _):
            status = await self._web.status(reader)
            assert status == 200, status
            # To the last chunk, without which the response would look cut.
            async for piece in self._web.chunks(reader):
                self.ending = (self.ending + piece.decode())[-200:]
                self.reading.set()


class Getter(Guest):
    """`h3cast get`: over HTTP/3 the last frame says it, and the code of a session whose stream has no frames."""

    def __init__(self, server: H3cast, token: str, session: bool) -> None:
        super().__init__()
        url = f"https://{HOST}:{server.port}{FEED}?format={'raw' if session else 'frames'}"
        self._command = [H3CAST, "get", url, "--no-progress", "--cacert", server.cacert]
        self._command += ["--webtransport"] * session
        self._env = os.environ | {"H3CAST_TOKEN": token}
        self.expected = "(code 2)" if session else "last bytes 0700"

    async def read(self) -> None:
        # On a busy machine a connection may take several attempts.
        while not self.reading.is_set():
            await self._attempt()

    async def _attempt(self) -> None:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*self._command, stdout=pipe, stderr=pipe, env=self._env)
        try:
            last = b""
            while data := await child.stdout.read(65536):
                last = (last + data)[-2:]
                self.reading.set()
            errors = (await child.stderr.read()).decode()
            self.ending = f"last bytes {last.hex()}, exit code {await child.wait()}: {errors}"
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()


class Notes:
    """Publications under Idempotency-Keys, each sent several times: none may be there twice."""

    LINES = 3

    def __init__(self, web: Web, token: str, epoch: str) -> None:
        self._web, self._token, self.epoch = web, token, epoch
        self.keys, self.aborted = 0, 0

    async def publish(self, keys: int, chance: random.Random) -> None:
        first = self.keys + 1
        for _ in range(keys):
            self.keys += 1
            body = self._lines(self.keys)
            if chance.random() < 0.2:
                # The client goes away in the middle of it.
                await self._begin(body[: chance.randrange(1, len(body))], len(body))
            for _ in range(2):
                await until("a note is published", PATIENCE * 2, lambda: self._sent(body))
        await until("the notes are read", PATIENCE * 2, lambda: self._are_there(first))

    def _lines(self, key: int) -> bytes:
        return b"".join(b"%d %d\n" % (key, line) for line in range(self.LINES))

    def _fields(self, length: int) -> list[str]:
        fields = [f"Authorization: Bearer {self._token}", f"Idempotency-Key: note-{self.keys}"]
        return [*fields, f"Content-Length: {length}"]

    def _request(self, length: int):
        return self._web.request("POST", "/stream/notes?chunk=lines", *self._fields(length))

    async def _begin(self, part: bytes, length: int) -> None:
        self.aborted += 1
        with contextlib.suppress(OSError, TimeoutError):
            async with self._request(length) as (_, writer):
                writer.write(part)
                await writer.drain()

    async def _sent(self, body: bytes) -> bool:
        """Sends all of it. No answer may mean that it was published, and may not."""
        with contextlib.suppress(OSError, ValueError, TimeoutError, EOFError):
            async with asyncio.timeout(PATIENCE), self._request(len(body)) as (reader, writer):
                writer.write(body)
                return await self._web.status(reader) == 200
        return False

    async def _are_there(self, first: int) -> bool:
        """Reads those from `first` on: each line once, in order. A chunk's number is the place of its line."""
        expected = b"".join(self._lines(key) for key in range(first, self.keys + 1))
        lines = (self.keys - first + 1) * self.LINES
        path = f"/stream/notes?from={self.epoch}-{(first - 1) * self.LINES - 1}&limit={lines}"
        path = path if first > 1 else f"/stream/notes?from=start&limit={lines}"
        with contextlib.suppress(OSError, ValueError, TimeoutError, EOFError):
            async with asyncio.timeout(PATIENCE):
                status, found = await self._web.get(path, f"Authorization: Bearer {self._token}")
            assert (status, found) == (200, expected), f"notes {first} to {self.keys}: {status}, {found!r}"
            return True
        return False
