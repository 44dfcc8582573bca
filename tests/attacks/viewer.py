"""Legitimate viewers beside an attack, in a process of their own: over HTTP/3 and over TLS on TCP.

Two read the live feed; two open a new connection and ask for /healthz, again and again; with PUBLISH two more
publish there on new connections, each time under a new Idempotency-Key. The longest waits of each are printed as
JSON when standard input ends.

python viewer.py PORT CACERT [--publish PUBLISH] [--token TOKEN]
"""

import argparse
import asyncio
import contextlib
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import time
import uuid

HOST = "127.0.0.1"
# A wait is given up after this time, in seconds, and counts as so long.
PATIENCE = 15.0
PAUSE = 0.2


class Wait:
    """The longest time between two `done`, the one that has not ended included."""

    def __init__(self) -> None:
        self.longest, self.count, self.failures, self.since = 0.0, 0, 0, None

    def begin(self) -> None:
        # A wait that failed goes on with the next attempt.
        self.since = self.since or time.monotonic()

    def done(self, again: bool) -> None:
        now = time.monotonic()
        if self.since is not None:
            self.longest = max(self.longest, now - self.since)
        self.count += 1
        self.since = now if again else None

    def report(self) -> dict:
        if self.since is not None:
            self.longest = max(self.longest, time.monotonic() - self.since)
        return {"longest": round(self.longest, 3), "count": self.count, "failures": self.failures}


# aioquic is slow to import, and whoever starts this process does not need it.
def http3():
    from aioquic.asyncio import QuicConnectionProtocol, connect
    from aioquic.h3.connection import H3_ALPN, H3Connection
    from aioquic.h3.events import DataReceived, HeadersReceived
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ConnectionTerminated, StreamReset

    class Client(QuicConnectionProtocol):
        """Asks for one thing, and puts what comes into a queue: a status, then bytes, then None."""

        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            self.http = H3Connection(self._quic)
            self.came: asyncio.Queue = asyncio.Queue()

        def quic_event_received(self, event) -> None:
            for happened in self.http.handle_event(event):
                if isinstance(happened, HeadersReceived):
                    self.came.put_nowait(int(dict(happened.headers)[b":status"]))
                elif isinstance(happened, DataReceived) and happened.data:
                    self.came.put_nowait(happened.data)
                if isinstance(happened, HeadersReceived | DataReceived) and happened.stream_ended:
                    self.came.put_nowait(None)
            if isinstance(event, StreamReset | ConnectionTerminated):
                self.came.put_nowait(None)

        def ask(self, path: str, body: bytes) -> None:
            fields = [(":method", "POST" if body else "GET"), (":scheme", "https"), (":authority", f"localhost:{PORT}")]
            fields += [(":path", path), *extra(body)]
            stream = self._quic.get_next_available_stream_id()
            encoded = [(name.encode(), value.encode()) for name, value in fields]
            self.http.send_headers(stream, encoded, end_stream=not body)
            if body:
                self.http.send_data(stream, body, end_stream=True)
            self.transmit()

    async def ask(path: str, body: bytes = b""):
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN, is_client=True, cafile=CACERT, server_name="localhost", idle_timeout=PATIENCE
        )
        async with connect(HOST, PORT, configuration=configuration, create_protocol=Client) as client:
            client.ask(path, body)
            status = await client.came.get()
            if status != 200:
                raise ConnectionError(f"status {status}")
            yield b""
            while data := await client.came.get():
                yield data

    return ask


def tls():
    context = ssl.create_default_context(cafile=CACERT)
    context.set_alpn_protocols(["http/1.1"])

    async def ask(path: str, body: bytes = b""):
        reader, writer = await asyncio.open_connection(HOST, PORT, ssl=context, server_hostname="localhost")
        try:
            fields = [("host", f"localhost:{PORT}"), *extra(body)]
            head = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
            writer.write("\r\n".join([*head, "", ""]).encode() + body)
            status = await reader.readline()
            if b" 200 " not in status:
                raise ConnectionError(f"status {status}")
            yield b""
            while data := await reader.read(65536):
                yield data
        finally:
            writer.transport.abort()

    return ask


def extra(body: bytes) -> list[tuple[str, str]]:
    """The fields of a request beside those that every one has."""
    fields = [("authorization", f"Bearer {TOKEN}")] if TOKEN else []
    if body:
        fields += [("content-length", str(len(body))), ("idempotency-key", uuid.uuid4().hex)]
    return fields


async def follow(ask, gaps: Wait) -> None:
    """Reads the live feed for ever; a connection that ends is made again, and the wait goes on meanwhile."""
    while True:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(None) as patience, contextlib.aclosing(ask("/stream/live")) as pieces:
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                async for piece in pieces:
                    if piece:
                        gaps.done(again=True)
                    patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        gaps.failures += 1
        gaps.begin()
        await asyncio.sleep(PAUSE)


async def visit(ask, waits: Wait, path: str = "/healthz", body: bytes = b"") -> None:
    while True:
        waits.begin()
        try:
            async with asyncio.timeout(PATIENCE), contextlib.aclosing(ask(path, body)) as pieces:
                async for _ in pieces:
                    # What it takes to close is not waited for by anyone.
                    waits.done(again=False)
                    break
        except Exception as error:
            waits.failures += 1
            print(f"a visit failed: {error!r}", file=sys.stderr)
        await asyncio.sleep(PAUSE)


async def main() -> None:
    waits: dict[str, Wait] = {}
    jobs = []
    for name, ask in (("h3", http3()), ("tcp", tls())):
        wait = {what: waits.setdefault(f"{what}_{name}", Wait()) for what in ("gap", "connect")}
        jobs += [follow(ask, wait["gap"]), visit(ask, wait["connect"])]
        if PUBLISH:
            jobs.append(visit(ask, waits.setdefault(f"publish_{name}", Wait()), PUBLISH, b"hello\n"))
    tasks = [asyncio.create_task(job) for job in jobs]
    deadline = time.monotonic() + 20
    while not all(wait.count for wait in waits.values()):
        assert time.monotonic() < deadline, {name: wait.report() for name, wait in waits.items()}
        await asyncio.sleep(0.01)
    # What it took to begin is not the attack's doing.
    for wait in waits.values():
        wait.longest, wait.count, wait.failures = 0.0, 0, 0
    print("reading", flush=True)
    # When nobody wants the result any more, standard input ends.
    loop = asyncio.get_running_loop()
    ended = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
    await ended.read()
    print(json.dumps({name: wait.report() for name, wait in waits.items()}), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=2)


class Viewer:
    """`with Viewer(victim) as viewer: attack()`; then `viewer.waits`."""

    def __init__(self, victim, publish: str | None = None, token: str | None = None) -> None:
        """`publish` is the path of a feed; `token` goes with each request."""
        self._errors = tempfile.TemporaryFile("w+")
        options = [word for pair in (("--publish", publish), ("--token", token)) if pair[1] for word in pair]
        self._child = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).resolve()), str(victim.port), victim.cacert, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.waits: dict[str, dict] = {}

    def __enter__(self) -> "Viewer":
        line = self._child.stdout.readline()
        if line != "reading\n":
            self._child.kill()
            self._child.wait(15)
            raise AssertionError(f"no viewer got in before the attack: {self._log()}")
        return self

    def __exit__(self, kind, *_: object) -> None:
        try:
            out, _ = self._child.communicate(timeout=10)
            if kind is None:
                assert out, self._log()
                self.waits = json.loads(out)
        finally:
            self._child.kill()
            self._child.wait(15)

    def _log(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-4096:]

    def longest(self, what: str) -> float:
        """The longest wait over either transport: `gap`, `connect` or `publish`, in seconds; 0 if there was none."""
        return max((wait["longest"] for name, wait in self.waits.items() if name.startswith(what)), default=0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("cacert")
    parser.add_argument("--publish")
    parser.add_argument("--token")
    given = parser.parse_args()
    PORT, CACERT, PUBLISH, TOKEN = given.port, given.cacert, given.publish, given.token
    asyncio.run(main())
