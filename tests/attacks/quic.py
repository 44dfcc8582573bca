"""Attackers over QUIC that complete the handshake: aioquic, with what it says to the server taken out."""

import asyncio
import contextlib
import ssl

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset
from peers import ATTACKER, integer, text

# No bound of the attacker's keeps the server from sending.
WINDOWS = {"max_data": 1 << 30, "max_stream_data": 1 << 30}


class Attacker(QuicConnectionProtocol):
    sessions = False

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.quic = self._quic
        self.http = H3Connection(self._quic, enable_webtransport=self.sessions)
        self.data = asyncio.Event()
        self.ended = asyncio.Event()
        # What each stream has been answered.
        self.statuses: dict[int, int] = {}
        # Those that were reset, or that it was asked to stop sending, instead.
        self.reset: set[int] = set()
        # The error code of the server's CONNECTION_CLOSE.
        self.code: int | None = None

    def quic_event_received(self, event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.code = event.error_code
            self.ended.set()
        if isinstance(event, StreamReset | StopSendingReceived):
            self.reset.add(event.stream_id)
        for happened in self.http.handle_event(event):
            if isinstance(happened, DataReceived):
                self.data.set()
            elif isinstance(happened, HeadersReceived):
                self.statuses[happened.stream_id] = int(dict(happened.headers)[b":status"])

    def get(self, path: str) -> None:
        self.ask("GET", path, end=True)

    def ask(self, method: str, path: str, *others: tuple[str, str], end: bool) -> int:
        """A request, which ends with its head or is to have a body. Returns its stream."""
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *others]
        stream = self.quic.get_next_available_stream_id()
        # In fields that need no table (RFC 9204 §4.5.6), and as long as one likes: aioquic's own are bounded.
        block = b"\0\0" + b"".join(integer(len(name), 3, 0x20) + name.encode() + text(value) for name, value in fields)
        self.quic.send_stream_data(stream, b"\x01" + encode_uint_var(len(block)) + block, end_stream=end)
        self.transmit()
        return stream

    def stop_acknowledging(self) -> None:
        def write_nothing(builder, space, now) -> None:
            space.ack_at = None

        self.quic._write_ack_frame = write_nothing

    def stop_reading(self) -> None:
        """Acknowledges what comes, and gives no more credit: what a viewer does whose program reads nothing."""
        self.quic._write_stream_limits = lambda *args, **kwargs: None
        self.quic._write_connection_limits = lambda *args, **kwargs: None

    def ping(self) -> None:
        self.quic.send_ping(0)
        self.transmit()


async def attacker(
    victim, source: str = ATTACKER, alpn: list[str] = H3_ALPN, windows: dict = WINDOWS, kind: type = Attacker
) -> Attacker:
    """A connection whose handshake is complete. aioquic's own `connect` cannot choose an address."""
    configuration = QuicConfiguration(
        alpn_protocols=alpn,
        is_client=True,
        verify_mode=ssl.CERT_NONE,
        server_name="localhost",
        max_datagram_frame_size=65536,
        **windows,
    )
    quic = QuicConnection(configuration=configuration)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(lambda: kind(quic), local_addr=(source, 0))
    protocol.connect(victim.address)
    await asyncio.wait_for(protocol.wait_connected(), 10)
    return protocol


@contextlib.asynccontextmanager
async def attackers(victim, count: int, source: str = ATTACKER):
    """So many connections from one address. In the end they vanish: the server gets no CONNECTION_CLOSE."""
    peers = []
    try:
        for _ in range(count):
            peers.append(await attacker(victim, source))
        yield peers
    finally:
        for peer in peers:
            peer._transport.abort()
