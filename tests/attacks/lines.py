"""A publication and its viewers, who know what must arrive: lines of a fixed length, each unlike any other."""

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import signal
import ssl

from victim import H3CAST

LENGTH = 100
HOST = "127.0.0.1"
# What a client waits for an answer before it tries again.
PATIENCE = 10.0
PAUSE = 0.2


class Lines:
    """The lines of a feed. The same seed makes the same ones."""

    def __init__(self, seed: str) -> None:
        self._seed = seed

    @functools.lru_cache(1 << 14)
    def __getitem__(self, number: int) -> bytes:
        noise = hashlib.sha256(f"{self._seed} {number}".encode()).hexdigest()
        return f"{number:08d} {noise}".ljust(LENGTH - 1, ".").encode() + b"\n"

    def sha256(self, first: int, end: int) -> str:
        found = hashlib.sha256()
        for number in range(first, end):
            found.update(self[number])
        return found.hexdigest()


class Web:
    """HTTP/1.1 over TLS, by hand: a request whose body may go on for as long as its response."""

    def __init__(self, cacert: str, port: int) -> None:
        self._tls, self._port = ssl.create_default_context(cafile=cacert), port

    @contextlib.asynccontextmanager
    async def request(self, method: str, path: str, *fields: str):
        opening = asyncio.open_connection(HOST, self._port, ssl=self._tls, server_hostname="localhost", limit=1 << 20)
        reader, writer = await asyncio.wait_for(opening, PATIENCE)
        try:
            head = [f"{method} {path} HTTP/1.1", f"Host: localhost:{self._port}", "Connection: close", *fields]
            writer.write("\r\n".join([*head, "", ""]).encode())
            yield reader, writer
        finally:
            writer.transport.abort()

    async def get(self, path: str, *fields: str) -> tuple[int, bytes]:
        """A status, and a body that is whole."""
        async with asyncio.timeout(PATIENCE), self.request("GET", path, *fields) as (reader, _):
            status = await self.status(reader)
            if status != 200:
                return status, b""
            return status, b"".join([piece async for piece in self.chunks(reader)])

    @staticmethod
    async def status(reader: asyncio.StreamReader) -> int:
        line = await reader.readline()
        if not line:
            raise ConnectionError("closed before the response")
        while (await reader.readline()).strip():
            pass
        return int(line.split()[1])

    @staticmethod
    async def chunks(reader: asyncio.StreamReader):
        """The body, whole or not: the last chunk is told by a raised error if it is missing."""
        while size := int(await reader.readline() or b"x", 16):
            yield (await reader.readexactly(size + 2))[:-2]


class Publication:
    """Publishes lines at a rate, through whatever happens: `restart` ends the process that publishes, as it were."""

    def __init__(self, web: Web, lines: Lines, key: str, token: str, feed: str = "/stream/chaos") -> None:
        self._web, self._lines, self._feed = web, lines, feed
        self._fields = [f"Idempotency-Key: {key}", f"Authorization: Bearer {token}"]
        self._current: asyncio.StreamWriter | None = None
        self.attempts, self.confirmed = 0, 0

    @property
    def runs(self) -> bool:
        return self._current is not None and not self._current.transport.is_closing()

    def restart(self) -> None:
        self._current.transport.abort()

    async def publish(self, first: int, end: int, rate: float) -> None:
        """Lines `first` to `end`. Done when the server has confirmed them all."""
        began = asyncio.get_running_loop().time()
        total = (end - first) * LENGTH
        while True:
            with contextlib.suppress(OSError, ValueError, TimeoutError, EOFError):
                self.confirmed = await self._ask()
                if self.confirmed == total:
                    return
                self.attempts += 1
                await self._attempt(first, end, rate, began)
            await asyncio.sleep(PAUSE)

    async def _ask(self) -> int:
        """How many bytes the server has under this key."""
        fields = [*self._fields, "Content-Length: 0"]
        async with asyncio.timeout(PATIENCE), self._web.request("POST", self._feed + "?chunk=lines", *fields) as (reader, _):
            if await self._web.status(reader) != 200:
                raise ConnectionError("refused")
            return json.loads(await reader.read())["bytes"]

    async def _attempt(self, first: int, end: int, rate: float, began: float) -> None:
        fields = [*self._fields, f"Upload-Offset: {self.confirmed}", "Transfer-Encoding: chunked"]
        async with self._web.request("POST", self._feed + "?chunk=lines", *fields) as (reader, writer):
            self._current = writer
            number, answered = first + self.confirmed // LENGTH, asyncio.ensure_future(self._web.status(reader))
            assert self.confirmed % LENGTH == 0, "the server has published part of a line"
            try:
                while number < end and not answered.done():
                    due = first + int((asyncio.get_running_loop().time() - began) * rate)
                    if number >= due:
                        await asyncio.sleep(0.02)
                        continue
                    piece = b"".join(self._lines[line] for line in range(number, min(due, end, number + 50)))
                    number = min(due, end, number + 50)
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    await asyncio.wait_for(writer.drain(), PATIENCE)
                writer.write(b"0\r\n\r\n")
                await asyncio.wait_for(answered, PATIENCE)
            finally:
                answered.cancel()
                self._current = None


class Reading:
    """A viewer's place: it takes each line once, in order, and notices anything else."""

    def __init__(self, lines: Lines, first: int, end: int) -> None:
        self._lines, self.first, self.next, self.end, self._rest = lines, first, first, end, b""
        self._sha = hashlib.sha256()
        self.kills = 0

    @property
    def done(self) -> bool:
        return self.next == self.end

    @property
    def begun(self) -> bool:
        return self.next > self.first

    def take(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= LENGTH:
            line, self._rest = self._rest[:LENGTH], self._rest[LENGTH:]
            expected = self._lines[self.next]
            assert line == expected, f"{type(self).__name__}: after line {self.next - 1} came {line!r}"
            self._sha.update(line)
            self.next += 1

    def lost(self) -> None:
        """A line that was not whole comes again."""
        self._rest = b""

    def sha256(self) -> str:
        return self._sha.hexdigest()


@dataclasses.dataclass
class Way:
    """How a viewer reaches the server, and by which token."""

    port: int
    cacert: str
    token: str
    # Whether it may be lost, and is resumed. One that does not must get all in one piece, once it has begun.
    resumes: bool = True


class Program(Reading):
    """`h3cast get`, over either transport: it resumes by itself, and is killed now and then."""

    def __init__(self, lines: Lines, first: int, end: int, epoch: str, way: Way, session: bool) -> None:
        super().__init__(lines, first, end)
        self._epoch, self._way, self._session = epoch, way, session
        self.child: asyncio.subprocess.Process | None = None

    async def read(self) -> None:
        while not self.done:
            # A line's number is that of its chunk.
            place = f"from={self._epoch}-{self.next - 1}&limit={self.end - self.next}"
            url = f"https://{HOST}:{self._way.port}/stream/chaos?{place}"
            command = [H3CAST, "get", url, "--no-progress", "--cacert", self._way.cacert]
            command += ["--resume"] * self._way.resumes + ["--webtransport"] * self._session
            pipe, env = asyncio.subprocess.PIPE, os.environ | {"H3CAST_TOKEN": self._way.token}
            self.child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=env)
            try:
                while data := await self.child.stdout.read(65536):
                    self.take(data)
                errors = (await self.child.stderr.read()).decode()
                code = await self.child.wait()
                if self._way.resumes:
                    assert code in (0, -signal.SIGKILL), f"{command}: {errors}"
                else:
                    assert self.done or not self.begun, f"{command} ended after line {self.next - 1}: {errors}"
                self.lost()
            finally:
                if self.child.returncode is None:
                    self.child.kill()
                    await self.child.wait()
                self.child = None

    @property
    def runs(self) -> bool:
        return self.child is not None and self.child.returncode is None

    def signal(self, number: signal.Signals) -> None:
        if self.runs:
            self.kills += number == signal.SIGKILL
            self.child.send_signal(number)


class EventSource(Reading):
    """Server-sent events over HTTP/1.1, resumed by `Last-Event-ID`."""

    def __init__(self, lines: Lines, first: int, end: int, epoch: str, way: Way) -> None:
        super().__init__(lines, first, end)
        self._epoch, self._way, self._web = epoch, way, Web(way.cacert, way.port)

    async def read(self) -> None:
        while not self.done:
            # The next attempt begins after the last whole event.
            with contextlib.suppress(OSError, ValueError, TimeoutError, EOFError):
                await self._attempt()
            lost = self.begun and not self.done and not self._way.resumes
            assert not lost, f"an EventSource was cut after line {self.next - 1}"
            await asyncio.sleep(PAUSE)

    async def _attempt(self) -> None:
        fields = ["Accept: text/event-stream", f"Authorization: Bearer {self._way.token}"]
        fields += [f"Last-Event-ID: {self._epoch}-{self.next - 1}"]
        async with self._web.request("GET", f"/stream/chaos?limit={self.end - self.next}", *fields) as (reader, _):
            if await asyncio.wait_for(self._web.status(reader), PATIENCE) != 200:
                raise ConnectionError("refused")
            pending = b""
            pieces = self._web.chunks(reader)
            while not self.done:
                # Heartbeats come every 15 s.
                pending += await asyncio.wait_for(anext(pieces), 20)
                *events, pending = pending.split(b"\n\n")
                for event in events:
                    self._event(event)

    def _event(self, event: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if line and not line.startswith(b":"))
        assert b"event" not in fields or fields[b"event"] == b"end", event
        if b"id" in fields and b"event" not in fields:
            assert fields[b"id"].decode() == f"{self._epoch}-{self.next}", event
            self.take(fields[b"data"] + b"\n")
