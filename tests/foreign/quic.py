"""aioquic as a client of both transports on one connection, with every wait bounded."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset
from server import Server

SECONDS = 20


class Inbox:
    """What has come on one stream and has not been looked at."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue = asyncio.Queue()
        self.ended = False

    def put(self, item: object) -> None:
        self._queue.put_nowait(item)

    def empty(self) -> bool:
        return self._queue.empty()

    async def take(self) -> object:
        item = await asyncio.wait_for(self._queue.get(), SECONDS)
        if isinstance(item, Exception):
            raise item
        return item

    async def data(self) -> bytes | None:
        """The next bytes, or None at a clean end."""
        while not self.ended:
            data, self.ended = await self.take()
            if data:
                return data
        return None

    async def pieces(self) -> list[bytes]:
        pieces = []
        while (piece := await self.data()) is not None:
            pieces.append(piece)
        return pieces


@dataclasses.dataclass
class Exchange:
    """A request whose response has begun."""

    stream_id: int
    headers: dict[str, str]
    inbox: Inbox

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.authority = ""
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self._inboxes: dict[int, Inbox] = {}
        # (session id, stream id, inbox) of each stream that the server has opened in a session.
        self.opened: asyncio.Queue = asyncio.Queue()
        self.settings = asyncio.Event()

    def _inbox(self, stream_id: int) -> Inbox:
        return self._inboxes.setdefault(stream_id, Inbox())

    def quic_event_received(self, event: QuicEvent) -> None:
        for happened in self.http.handle_event(event):
            if isinstance(happened, HeadersReceived):
                self._inbox(happened.stream_id).put((happened.headers, happened.stream_ended))
            elif isinstance(happened, DataReceived):
                self._inbox(happened.stream_id).put((happened.data, happened.stream_ended))
            elif isinstance(happened, WebTransportStreamDataReceived):
                known = happened.stream_id in self._inboxes
                inbox = self._inbox(happened.stream_id)
                inbox.put((happened.data, happened.stream_ended))
                if not known:
                    self.opened.put_nowait((happened.session_id, happened.stream_id, inbox))
        if self.http.received_settings is not None:
            self.settings.set()
        if isinstance(event, StreamReset):
            self._inbox(event.stream_id).put(ConnectionError(f"stream reset with {event.error_code:#x}"))
        elif isinstance(event, ConnectionTerminated):
            for inbox in self._inboxes.values():
                inbox.put(ConnectionError(f"connection closed: {event}"))

    async def request(self, method: str, path: str, *fields: tuple[str, str], end: bool = True) -> Exchange:
        """Sends a request and waits for the headers of its response."""
        stream_id = self._quic.get_next_available_stream_id()
        inbox = self._inbox(stream_id)
        pseudo = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        if method == "CONNECT":
            pseudo.insert(1, (":protocol", "webtransport"))
        headers = [(name.encode(), value.encode()) for name, value in [*pseudo, *fields]]
        self.http.send_headers(stream_id, headers, end_stream=end)
        self.transmit()
        received, inbox.ended = await inbox.take()
        return Exchange(stream_id, {name.decode(): value.decode() for name, value in received}, inbox)

    async def get(self, path: str) -> tuple[int, bytes]:
        exchange = await self.request("GET", path)
        return exchange.status, b"".join(await exchange.inbox.pieces())

    async def session(self, path: str, origin: str | None) -> Exchange:
        """Asks for a WebTransport session as a browser does."""
        await asyncio.wait_for(self.settings.wait(), SECONDS)
        fields = [("sec-webtransport-http3-draft02", "1")]
        if origin is not None:
            fields.append(("origin", origin))
        return await self.request("CONNECT", path, *fields, end=False)

    async def server_stream(self) -> tuple[int, int, Inbox]:
        """The next stream that the server opens in a session."""
        return await asyncio.wait_for(self.opened.get(), SECONDS)

    def finish(self, exchange: Exchange) -> None:
        self._quic.send_stream_data(exchange.stream_id, b"", end_stream=True)
        self.transmit()

    def cancel(self, exchange: Exchange) -> None:
        """No longer wants the response."""
        self._quic.stop_stream(exchange.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        self.transmit()


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, is_client=True, max_datagram_frame_size=65536, cafile=server.cacert
    )
    async with asyncio.timeout(45):
        async with connect(
            "localhost", server.port, configuration=configuration, create_protocol=Client
        ) as client:
            client.authority = f"localhost:{server.port}"
            yield client
