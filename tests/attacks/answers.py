"""What attackers are answered: how often each status, over HTTP/1.1 and HTTP/2."""

import collections
import re
import select
import ssl
import time
from collections.abc import Callable

from peers import HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, Inbox, Reader, frame

# Without a table of the server's, each of its heads can be read by itself (RFC 7541 §4.2). The connection's window
# has room for all that is answered.
NO_TABLE = frame(SETTINGS, 0, 0, b"\x00\x01\x00\x00\x00\x00") + frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4))


class Answers1(Inbox):
    """Over HTTP/1.1. No body may have a status line in it."""

    LINE = re.compile(rb"HTTP/1\.1 (\d{3})")

    def __init__(self) -> None:
        self.statuses: collections.Counter[int] = collections.Counter()
        self.body = b""

    def _take(self, data: bytes) -> None:
        data = self.body[-11:] + data
        self.statuses.update(int(status) for status in self.LINE.findall(data))
        # The last of it, without a status line that has been counted.
        self.body = self.LINE.sub(b"", data)[-4096:]


class Answers2(Reader):
    """Over HTTP/2, from a client that has sent NO_TABLE."""

    # The static table's (RFC 7541 appendix A).
    INDEXED = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}

    def __init__(self) -> None:
        super().__init__()
        self.by_stream: dict[int, int] = {}
        self.resets: dict[int, int] = {}

    @property
    def statuses(self) -> collections.Counter[int]:
        return collections.Counter(self.by_stream.values())

    def took(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS and stream not in self.by_stream:
            self.by_stream[stream] = self._status(payload)
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload)

    def _status(self, block: bytes) -> int:
        # A change of the table's size comes first (RFC 7541 §6.3).
        while block[0] & 0xE0 == 0x20:
            block = block[1:]
        if block[0] in self.INDEXED:
            return self.INDEXED[block[0]]
        # Each of the names from 8 to 14 is :status.
        assert 8 <= block[0] & 0x0F <= 14, f"not a status: {block[:8].hex()}"
        length, coded = block[1] & 0x7F, block[2:]
        return int(coded[:length]) if block[1] < 128 else digits(coded[:length])


def digits(coded: bytes) -> int:
    """Three digits in the code of RFC 7541 appendix B: those up to 2 have five bits, the others six."""
    bits, number = f"{int.from_bytes(coded):0{8 * len(coded)}b}", ""
    while len(number) < 3:
        size = 5 if bits.startswith("000") else 6
        value, bits = int(bits[:size], 2), bits[size:]
        number += str(value if size == 5 else value - 0b011001 + 3)
    return int(number)


def exchange(sock: ssl.SSLSocket, data: bytes, answers, done: Callable[[], bool], seconds: float) -> bool:
    """Sends all of it, as fast as it is taken, and reads until `done` or the server ends it. Whether it is done."""
    rest, end = memoryview(data), time.monotonic() + seconds
    sock.setblocking(False)
    while not done() and not answers.ended and time.monotonic() < end:
        answers.read(sock)
        try:
            if rest:
                rest = rest[sock.send(rest[:65536]) :]
                continue
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError:
            # What the server said before it closed is still to be read.
            answers.read(sock)
            answers.ended = True
        if not done() and not answers.ended:
            select.select([sock], [sock] if rest else [], [], 0.1)
    answers.read(sock)
    return done()
