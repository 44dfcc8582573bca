"""A WebTransport client on aioquic that shows every frame, code and capsule as it came."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset
from server import Server

SECONDS = 20

CLOSE, DRAIN = 0x2843, 0x78AE
SESSION_GONE, BUFFERED_STREAM_REJECTED = 0x170D7B68, 0x3994BD84


def http3_code(code: int) -> int:
    """The HTTP/3 code of an application's, as draft-ietf-webtrans-http3 maps it."""
    return 0x52E4A40FA8DB + code + code // 0x1E


def capsule(kind: int, value: bytes = b"") -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(value)) + value


def close_capsule(code: int, reason: str = "") -> bytes:
    return capsule(CLOSE, code.to_bytes(4, "big") + reason.encode())


def capsules(data: bytes) -> list[tuple[int, bytes]]:
    buffer, found = Buffer(data=data), []
    while not buffer.eof():
        kind = buffer.pull_uint_var()
        found.append((kind, buffer.pull_bytes(buffer.pull_uint_var())))
    return found


@dataclasses.dataclass(frozen=True)
class Reset:
    code: int


class Stream:
    """What has come on one stream: bytes, then None or a Reset. What it was stopped with is beside it."""

    def __init__(self, client: "Peer", stream_id: int, session_id: int | None = None) -> None:
        self.client, self.id, self.session_id = client, stream_id, session_id
        self.headers: asyncio.Queue = asyncio.Queue()
        self.came: asyncio.Queue = asyncio.Queue()
        self.stops: asyncio.Queue = asyncio.Queue()

    def send(self, data: bytes, end: bool = False) -> None:
        self.client.quic.send_stream_data(self.id, data, end)
        self.client.transmit()

    def reset(self, code: int) -> None:
        self.client.quic.reset_stream(self.id, code)
        self.client.transmit()

    def stop(self, code: int) -> None:
        self.client.quic.stop_stream(self.id, code)
        self.client.transmit()

    async def take(self, queue: asyncio.Queue | None = None):
        item = await asyncio.wait_for((self.came if queue is None else queue).get(), SECONDS)
        if isinstance(item, ConnectionError):
            raise item
        return item

    async def stopped(self) -> int:
        return await self.take(self.stops)

    async def read(self, size: int) -> bytes:
        """At least so many bytes."""
        data = b""
        while len(data) < size:
            data += await self.take()
        return data

    async def whole(self) -> bytes:
        data = b""
        while (piece := await self.take()) is not None:
            assert not isinstance(piece, Reset), f"{piece} after {data[:100]}"
            data += piece
        return data

    async def broken(self) -> int:
        """The code of a reset, past what came before it."""
        while isinstance(item := await self.take(), bytes):
            pass
        assert isinstance(item, Reset), "it ended well"
        return item.code


@dataclasses.dataclass
class Session:
    client: "Peer"
    connect: Stream
    headers: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.headers[":status"])

    @property
    def id(self) -> int:
        return self.connect.id

    def open(self, unidirectional: bool = False) -> Stream:
        return self.client.open(self.id, unidirectional)

    def send_datagram(self, data: bytes) -> None:
        self.client.send_datagram(self.id, data)

    def send_capsules(self, data: bytes, end: bool = False) -> None:
        """As one DATA frame."""
        self.client.http.send_data(self.id, data, end)
        self.client.transmit()

    async def capsules(self) -> list[tuple[int, bytes]]:
        """All that the server sent on the session's own stream, once it has ended."""
        return capsules(await self.connect.whole())

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Closes, and waits for the server to end its side."""
        self.send_capsules(close_capsule(code, reason), end=True)
        await self.connect.whole()


class Peer(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.authority = ""
        self.quic = self._quic
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.settings = asyncio.Event()
        self.opened: asyncio.Queue = asyncio.Queue()
        self.datagrams: asyncio.Queue = asyncio.Queue()
        self._streams: dict[int, Stream] = {}
        # The session streams that this side has opened.
        self._own: set[int] = set()

    def stream(self, stream_id: int) -> Stream:
        return self._streams.setdefault(stream_id, Stream(self, stream_id))

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.stream_id in self._own:
            # aioquic takes what comes back on these for frames.
            stream = self.stream(event.stream_id)
            if event.data:
                stream.came.put_nowait(event.data)
            if event.end_stream:
                stream.came.put_nowait(None)
            return
        for happened in self.http.handle_event(event):
            if isinstance(happened, DatagramReceived):
                self.datagrams.put_nowait((happened.stream_id, happened.data))
                continue
            new = happened.stream_id not in self._streams
            stream = self.stream(happened.stream_id)
            if isinstance(happened, HeadersReceived):
                stream.headers.put_nowait({name.decode(): value.decode() for name, value in happened.headers})
            elif isinstance(happened, DataReceived | WebTransportStreamDataReceived) and happened.data:
                stream.came.put_nowait(happened.data)
            if getattr(happened, "stream_ended", False):
                stream.came.put_nowait(None)
            if new and isinstance(happened, WebTransportStreamDataReceived):
                stream.session_id = happened.session_id
                self.opened.put_nowait(stream)
        if self.http.received_settings is not None:
            self.settings.set()
        if isinstance(event, StreamReset):
            self.stream(event.stream_id).came.put_nowait(Reset(event.error_code))
        elif isinstance(event, StopSendingReceived):
            self.stream(event.stream_id).stops.put_nowait(event.error_code)
        elif isinstance(event, ConnectionTerminated):
            for stream in self._streams.values():
                for queue in (stream.headers, stream.came, stream.stops):
                    queue.put_nowait(ConnectionError(f"connection closed: {event}"))

    def ask(self, stream_id: int, method: str, path: str, *fields: tuple[str, str]) -> None:
        """Sends the head of a request."""
        pseudo = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        if method == "CONNECT":
            pseudo.insert(1, (":protocol", "webtransport"))
        headers = [(name.encode(), value.encode()) for name, value in [*pseudo, *fields]]
        self.http.send_headers(stream_id, headers, end_stream=method != "CONNECT")
        self.transmit()

    async def answer(self, stream_id: int) -> Session:
        stream = self.stream(stream_id)
        return Session(self, stream, await stream.take(stream.headers))

    async def session(self, path: str, *fields: tuple[str, str]) -> Session:
        stream_id = self.quic.get_next_available_stream_id()
        self.ask(stream_id, "CONNECT", path, *fields)
        return await self.answer(stream_id)

    async def get(self, path: str) -> tuple[int, bytes]:
        stream_id = self.quic.get_next_available_stream_id()
        self.ask(stream_id, "GET", path)
        response = await self.answer(stream_id)
        return response.status, await response.connect.whole()

    def open(self, session_id: int, unidirectional: bool = False) -> Stream:
        """A stream of a session, whether there is such a session or not."""
        stream = self.stream(self.http.create_webtransport_stream(session_id, unidirectional))
        stream.session_id = session_id
        self._own.add(stream.id)
        self.transmit()
        return stream

    def send_datagram(self, session_id: int, data: bytes) -> None:
        self.http.send_datagram(session_id, data)
        self.transmit()

    async def server_stream(self) -> Stream:
        """The next stream that the server opens."""
        return await asyncio.wait_for(self.opened.get(), SECONDS)

    async def datagram(self) -> tuple[int, bytes]:
        return await asyncio.wait_for(self.datagrams.get(), SECONDS)


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Peer]:
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, is_client=True, max_datagram_frame_size=65536, cafile=server.cacert
    )
    async with asyncio.timeout(45):
        async with connect("localhost", server.port, configuration=configuration, create_protocol=Peer) as peer:
            peer.authority = f"localhost:{server.port}"
            await peer.settings.wait()
            yield peer
