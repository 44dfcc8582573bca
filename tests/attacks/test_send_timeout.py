"""Viewers that take nothing of what there is for them, over every way, and what they find when they return."""

import asyncio
import contextlib
import http.client
import re
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confined import MIB
from fast import Publisher
from peers import ACK, DATA, PING, RST_STREAM, WINDOW_UPDATE, Reader, address, frame, http2, request, tls
from quic import Attacker, attacker
from scale import count, scale
from victim import HOST

# In tests/soak, what the server does by default.
TIMEOUT = 3.0 if scale() == 1 else 60.0
# It looks every sixth of that; and a machine may be busy.
LATE = TIMEOUT / 6 + 2
FEED = "/stream/lines"
BULK = "/stream/bulk"
LINE = 200
# More than any viewer that reads nothing is sent.
LINES = 20_000


def line(number: int) -> bytes:
    return f"{number:08d} ".encode().ljust(LINE - 1, b".") + b"\n"


def some_lines(number: int) -> bytes | None:
    """A hundred at a time."""
    return b"".join(map(line, range(number * 100, number * 100 + 100))) if number < LINES // 100 else None


class Events:
    """Server-sent events in what came: each line once, in order, and where to resume."""

    def __init__(self, after: str | None = None) -> None:
        self.last, self.count, self._rest = after, 0, b""

    def take(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            fields = dict(field.split(b": ", 1) for field in event.split(b"\n") if b": " in field)
            assert fields.get(b"event", b"end") == b"end", f"after {self.last} came {event!r}"
            if b"event" in fields or b"id" not in fields:
                continue
            number = int(self.last.split("-")[1]) + 1 if self.last else 0
            assert fields[b"data"].startswith(b"%08d" % number), f"after {self.last} came {event!r}"
            self.last, self.count = fields[b"id"].decode(), self.count + 1


class Cut:
    """What a viewer had when it was cut, and after how many seconds that was."""

    def __init__(self, way: str, body: bytes, after: float) -> None:
        self.way, self.body, self.after = way, body, after


def over_http1(victim, source: str, path: str) -> Cut:
    sock = tls(victim.address, "http/1.1", source, buffer=4096)
    began = time.monotonic()
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    # An end shows without anything being read.
    poll = select.poll()
    poll.register(sock, 0)
    cut = poll.poll((TIMEOUT + LATE + 1) * 1000)
    after, data = time.monotonic() - began, b""
    with contextlib.suppress(OSError):
        while cut and (piece := sock.recv(65536)):
            data += piece
    sock.close()
    head, _, chunks = data.partition(b"\r\n\r\n")
    body = b""
    while (found := re.match(rb"([0-9a-f]+)\r\n", chunks, re.I)) and (size := int(found[1], 16)):
        body += chunks[found.end() : found.end() + size]
        chunks = chunks[found.end() + size + 2 :]
    assert not chunks.startswith(b"0\r\n"), "a response that was cut looks whole"
    return Cut("http1", body, after)


class Data(Reader):
    """The body of a stream. Pings are answered: the client is there."""

    def __init__(self, sock) -> None:
        super().__init__()
        self.sock, self.body, self.reset = sock, b"", False
        sock.setblocking(False)

    def take(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.poll(seconds * 1000)
        self.read(self.sock)

    def took(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == PING:
            with contextlib.suppress(OSError):
                self.sock.send(frame(PING, ACK, 0, payload))
        self.body += payload if kind == DATA else b""
        self.reset |= kind == RST_STREAM


def over_http2(victim, source: str, path: str) -> Cut:
    """The connection is read, and its stream gets no credit beyond the first 64 KiB."""
    sock = http2(victim.address, source)
    began = time.monotonic()
    sock.sendall(request(1, "GET", path) + frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
    reader = Data(sock)
    while not reader.ended and not reader.reset and time.monotonic() < began + TIMEOUT + LATE + 1:
        reader.take(0.1)
    sock.close()
    return Cut("http2", reader.body, time.monotonic() - began)


class Viewer(Attacker):
    """Reads one stream, of a request or of a session, and gives no credit beyond its first."""

    sessions = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.body, self.done = b"", asyncio.Event()

    def quic_event_received(self, event) -> None:
        from aioquic.h3.events import DataReceived, WebTransportStreamDataReceived
        from aioquic.quic.events import ConnectionTerminated, StreamReset

        if isinstance(event, StreamReset | ConnectionTerminated):
            self.done.set()
        for happened in self.http.handle_event(event):
            # What comes on the stream of a session itself is about the session.
            session = isinstance(happened, DataReceived) and self.session
            if isinstance(happened, DataReceived | WebTransportStreamDataReceived) and not session:
                self.body += happened.data
                assert not happened.stream_ended, "a response that was cut looks whole"
            elif session:
                self.done.set()

    session = False

    def view(self, path: str, session: bool) -> None:
        self.session = session
        method = [(b":method", b"CONNECT"), (b":protocol", b"webtransport")] if session else [(b":method", b"GET")]
        fields = [*method, (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path.encode())]
        self.http.send_headers(self.quic.get_next_available_stream_id(), fields, end_stream=not session)
        self.transmit()


def over_quic(victim, source: str, path: str, session: bool) -> Cut:
    async def view() -> Cut:
        windows = {"max_data": 1 << 20, "max_stream_data": 1 << 16}
        viewer = await attacker(victim, source, windows=windows, kind=Viewer)
        viewer.stop_reading()
        began = time.monotonic()
        viewer.view(path, session)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT + LATE + 1):
                # A sign of life, as browsers give it.
                while not viewer.done.is_set():
                    viewer.ping()
                    await asyncio.sleep(0.1)
        viewer.close()
        return Cut("session" if session else "http3", viewer.body, time.monotonic() - began)

    return asyncio.run(view())


class Idle:
    """Viewers of a feed in which nothing happens, one over each way. Each must get what comes in the end."""

    def __init__(self, victim) -> None:
        self._victim = victim

    def __enter__(self) -> "Idle":
        self.over1 = http.client.HTTPConnection(HOST, self._victim.http_port, timeout=120)
        self.over1.request("GET", "/stream/quiet?limit=1")
        self.over2 = http2(self._victim.address, address(9000))
        self.over2.sendall(request(1, "GET", "/stream/quiet?limit=1"))
        self._reader, self._over = Data(self.over2), False
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.over3 = [self._run(self._over3(session)) for session in (False, True)]
        end = time.monotonic() + 15
        while self._victim.metric('h3cast_feed_viewers{feed="quiet"}') < 4:
            assert time.monotonic() < end, "idle viewers do not get in"
            time.sleep(0.05)
        return self

    def _read(self) -> None:
        while not self._over and not self._reader.ended:
            self._reader.take(0.1)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _over3(self, session: bool) -> Viewer:
        viewer = await attacker(self._victim, address(9001), kind=Idler)
        viewer.view("/stream/quiet?limit=1", session)
        return viewer

    def get(self) -> None:
        """What comes in the end."""
        with Publisher(self._victim, 1000, "/stream/quiet", lambda number: b"at last" if number == 0 else None) as publisher:
            publisher.wait(10)
        assert self.over1.getresponse().read() == b"at last"
        end = time.monotonic() + 5
        while self._reader.body != b"at last":
            assert time.monotonic() < end and not self._reader.ended, self._reader.body
            time.sleep(0.05)
        for viewer in self.over3:
            while viewer.body != b"at last":
                assert time.monotonic() < end and not viewer.done.is_set(), viewer.body
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._over = True
        self._pump.join(5)
        self.over1.close()
        self.over2.close()


class Idler(Viewer):
    """Takes the end as well."""

    def quic_event_received(self, event) -> None:
        with contextlib.suppress(AssertionError):
            super().quic_event_received(event)


def read(victim, events: Events, until: int, place: str, seconds: float) -> Events:
    """What comes from a place on, until there are so many. Heartbeats come all the same."""
    end = time.monotonic() + seconds
    connection = http.client.HTTPConnection(HOST, victim.http_port, timeout=20)
    connection.request("GET", f"{FEED}?{place}&limit={until}", headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    while events.count < until and time.monotonic() < end and (data := response.read1(65536)):
        events.take(data)
    connection.close()
    assert events.count == until, f"{events.count} of {until} lines {place}"
    return events


def resumed(victim, last: str) -> Events:
    """All that is there after a cursor."""
    return read(victim, Events(last), LINES - 1 - int(last.split("-")[1]), f"from={last}", 30)


@pytest.mark.timeout(4 * TIMEOUT + 120)
def test_viewers_that_take_nothing(row):
    """With `--lag block`: publishers wait for them until they are cut."""
    each = count(2)

    def attack(victim, path: str, threads: ThreadPoolExecutor) -> list:
        ways = [
            (over_http1, ()),
            (over_http2, ()),
            (over_quic, (False,)),
            (over_quic, (True,)),
        ]
        # Caddy has no sessions.
        ways = ways if victim.name == "h3cast" else ways[:3]
        return [
            threads.submit(way, victim, address(number * len(ways) + place), path, *options)
            for number in range(each)
            for place, (way, options) in enumerate(ways)
        ]

    def act(victim):
        with ThreadPoolExecutor(4 * each + 1) as threads:
            if victim.name != "h3cast":
                found = [cut.result() for cut in attack(victim, BULK, threads)]
                return {"cut": sum(cut.after < TIMEOUT + LATE for cut in found)}
            with Idle(victim) as idle:
                running = attack(victim, FEED + "?format=sse", threads)
                end = time.monotonic() + 15
                while victim.metric('h3cast_feed_viewers{feed="lines"}') < len(running):
                    assert time.monotonic() < end, "viewers do not get in"
                    time.sleep(0.05)
                began = time.monotonic()
                with Publisher(victim, 8 * MIB, FEED + "?chunk=lines", some_lines) as publisher:
                    # Who reads loses nothing either, though all publish for the slowest.
                    reader = threads.submit(read, victim, Events(), LINES, "from=start", TIMEOUT + 40)
                    found = [cut.result() for cut in running]
                    returned = [events_of(cut) for cut in found]
                    again = [threads.submit(resumed, victim, events.last) for events in returned]
                    publisher.wait(TIMEOUT + 30)
                    took = time.monotonic() - began
                    assert [events.result().count + been.count for events, been in zip(again, returned)] == [LINES] * len(again)
                    assert reader.result().count == LINES
                assert not publisher.wrong, publisher.wrong
                idle.get()
            late = {way: round(max(cut.after for cut in found if cut.way == way), 1) for way in ("http1", "http2", "http3", "session")}
            counted = victim.metric('h3cast_refused_total{reason="send_timeout"}')
            told = {"viewers": len(found), "counted": int(counted), "cut_after": late, "published_in": round(took, 1)}
            assert all(TIMEOUT <= cut.after <= TIMEOUT + LATE for cut in found), told
            assert counted == len(found), told
            return told

    arguments = ["--lag=block", "--history=16M", *(["--send-timeout=3s"] if TIMEOUT == 3 else [])]
    sources = ("lines=publish", "quiet=publish")
    row.run(act, *arguments, bulk=True, sources=sources, gap=2, connect=2, above=64 * MIB)


def events_of(cut: Cut) -> Events:
    events = Events()
    events.take(cut.body)
    assert events.last, f"{cut.way}: got nothing, cut after {cut.after:.1f} s"
    return events
