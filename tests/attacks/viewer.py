"""Legitimate viewers beside an attack, in a process of their own: over HTTP/3 and over TLS on TCP.

Two read the live feed; two open a new connection and ask for /healthz, again and again. The longest waits of
each are printed as JSON when standard input ends.

python viewer.py PORT CACERT
"""

import asyncio
import contextlib
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import time

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

        def get(self, path: str) -> None:
            names = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", f"localhost:{PORT}".encode())]
            stream = self._quic.get_next_available_stream_id()
            self.http.send_headers(stream, [*names, (b":path", path.encode())], end_stream=True)
            self.transmit()

    async def get(path: str):
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN, is_client=True, cafile=CACERT, server_name="localhost", idle_timeout=PATIENCE
        )
        async with connect(HOST, PORT, configuration=configuration, create_protocol=Client) as client:
            client.get(path)
            status = await client.came.get()
            if status != 200:
                raise ConnectionError(f"status {status}")
            yield b""
            while data := await client.came.get():
                yield data

    return get


def tls():
    context = ssl.create_default_context(cafile=CACERT)
    context.set_alpn_protocols(["http/1.1"])

    async def get(path: str):
        reader, writer = await asyncio.open_connection(HOST, PORT, ssl=context, server_hostname="localhost")
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\n\r\n".encode())
            status = await reader.readline()
            if b" 200 " not in status:
                raise ConnectionError(f"status {status}")
            yield b""
            while data := await reader.read(65536):
                yield data
        finally:
            writer.transport.abort()

    return get


async def follow(get, gaps: Wait) -> None:
    """Reads the live feed for ever; a connection that ends is made again, and the wait goes on meanwhile."""
    while True:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(None) as patience, contextlib.aclosing(get("/stream/live")) as pieces:
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                async for piece in pieces:
                    if piece:
                        gaps.done(again=True)
                    patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        gaps.failures += 1
        gaps.begin()
        await asyncio.sleep(PAUSE)


async def visit(get, waits: Wait) -> None:
    while True:
        waits.begin()
        try:
            async with asyncio.timeout(PATIENCE), contextlib.aclosing(get("/healthz")) as pieces:
                async for _ in pieces:
                    # What it takes to close is not waited for by anyone.
                    waits.done(again=False)
                    break
        except Exception as error:
            waits.failures += 1
            print(f"a visit failed: {error!r}", file=sys.stderr)
        await asyncio.sleep(PAUSE)


async def main() -> None:
    waits = {name: Wait() for name in ("gap_h3", "gap_tcp", "connect_h3", "connect_tcp")}
    over3, overtcp = http3(), tls()
    jobs = [
        follow(over3, waits["gap_h3"]),
        follow(overtcp, waits["gap_tcp"]),
        visit(over3, waits["connect_h3"]),
        visit(overtcp, waits["connect_tcp"]),
    ]
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

    def __init__(self, victim) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._child = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).resolve()), str(victim.port), victim.cacert],
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
        """The longest wait over either transport: `gap` or `connect`, in seconds."""
        return max(wait["longest"] for name, wait in self.waits.items() if name.startswith(what))


if __name__ == "__main__":
    PORT, CACERT = int(sys.argv[1]), sys.argv[2]
    asyncio.run(main())
