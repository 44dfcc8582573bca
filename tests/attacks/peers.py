"""Attackers over TCP: connections from addresses of their own, TLS, and HTTP/2 frame by frame."""

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable

# Not the viewers' address, so that what is refused to the one is not refused to the others.
ATTACKER = "127.66.0.1"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_HEADERS, END_STREAM = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def address(number: int) -> str:
    """One of 60,000 addresses, none of them the viewers'."""
    return f"127.{66 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"


def connect(address: tuple[str, int], source: str = ATTACKER, buffer: int | None = None) -> socket.socket:
    """A connection over TCP; `buffer` bytes are received at most before something is read."""
    sock = socket.socket()
    sock.settimeout(10)
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.bind((source, 0))
    sock.connect(address)
    return sock


def begin(address: tuple[str, int], source: str = ATTACKER) -> socket.socket:
    """A connection that is begun, and not waited for."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((source, 0))
    with contextlib.suppress(BlockingIOError):
        sock.connect(address)
    return sock


def tls(address: tuple[str, int], protocol: str, source: str = ATTACKER, buffer: int | None = None) -> ssl.SSLSocket:
    # Not the default one, which reads the certificates of all authorities.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    secured = context.wrap_socket(connect(address, source, buffer), server_hostname="localhost")
    assert secured.selected_alpn_protocol() == protocol
    return secured


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def http2(address: tuple[str, int], source: str = ATTACKER, buffer: int | None = None) -> ssl.SSLSocket:
    secured = tls(address, "h2", source, buffer)
    secured.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
    return secured


def integer(value: int, prefix: int, first: int = 0) -> bytes:
    """RFC 7541 §5.1, in a byte that begins with `first`."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    encoded, value = [first | most], value - most
    while value >= 128:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes([*encoded, value])


def text(value: str) -> bytes:
    return integer(len(value), 7) + value.encode()


def fields(method: str, path: str, others: Iterable[tuple[str, str]] = (), authority: str = "localhost") -> bytes:
    """A head in fields that need no table: RFC 7541 §6.2.2, after :method and :scheme of the static one."""
    block = (b"\x82" if method == "GET" else b"\x02" + text(method)) + b"\x87"
    block += b"\x01" + text(authority) + b"\x04" + text(path)
    return block + b"".join(b"\x00" + text(name) + text(value) for name, value in others)


def request(stream: int, method: str, path: str, *others: tuple[str, str], end: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, fields(method, path, others))


def get(stream: int, path: str, authority: str = "localhost") -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, fields("GET", path, authority=authority))


class Inbox:
    """What comes from a peer; each kind takes it in its own way."""

    ended = False

    def read(self, sock: ssl.SSLSocket | socket.socket) -> None:
        """Takes what is there, without waiting."""
        try:
            while data := sock.recv(65536):
                self._take(data)
            self.ended = True
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except OSError:
            self.ended = True

    def _take(self, data: bytes) -> None:
        raise NotImplementedError


class Reader(Inbox):
    """Finds the frames in what comes, and remembers the code of a GOAWAY."""

    def __init__(self) -> None:
        self._data = b""
        self.goaway: int | None = None

    def _take(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 9:
            end = 9 + int.from_bytes(self._data[:3])
            if len(self._data) < end:
                return
            kind, stream, payload = self._data[3], int.from_bytes(self._data[5:9]), self._data[9:end]
            if kind == GOAWAY:
                self.goaway = int.from_bytes(payload[4:8])
            self._data = self._data[end:]
            self.took(kind, stream, payload)

    def took(self, kind: int, stream: int, payload: bytes) -> None:
        """A frame that has come, for readers that want more of it."""


def pour(sock: ssl.SSLSocket, pieces: Iterable[bytes], seconds: float) -> tuple[int, Reader]:
    """Sends pieces as fast as they are taken, and reads what comes, until the time is over or the server ends it.
    Returns how many were sent."""
    reader, sent, end = Reader(), 0, time.monotonic() + seconds
    sock.setblocking(False)
    for piece in pieces:
        rest = memoryview(piece)
        while rest and not reader.ended and time.monotonic() < end:
            reader.read(sock)
            try:
                rest = rest[sock.send(rest) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                select.select([sock], [sock], [], 0.1)
            except OSError:
                # What the server said before it closed is still to be read.
                reader.read(sock)
                reader.ended = True
        if rest:
            break
        sent += 1
    # Its last words.
    deadline = time.monotonic() + 1
    while not reader.ended and reader.goaway is None and time.monotonic() < deadline:
        select.select([sock], [], [], 0.05)
        reader.read(sock)
    return sent, reader
