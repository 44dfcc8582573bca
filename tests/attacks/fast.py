"""A feed that is published as fast as is asked for, and viewers of it that keep up."""

import contextlib
import http.client
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable

from victim import H3CAST, HOST

# Each piece begins with its number, and becomes one chunk.
PIECE = 16 << 10
FEED = "/stream/fast"


def numbered(number: int) -> bytes:
    return struct.pack(">Q", number) + bytes(PIECE - 8)


class Publisher:
    """`with Publisher(victim, bytes_a_second) as publisher: …` publishes in the background, over plain HTTP, as long as
    there are pieces: `piece(number)` makes one, or is None at the end."""

    def __init__(self, victim, rate: float, path: str = FEED, piece: Callable[[int], bytes | None] = numbered) -> None:
        self._port, self._rate, self._path, self._piece = victim.http_port, rate, path, piece
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self.pieces, self.sent, self.wrong = 0, 0, ""

    def _body(self):
        began = time.monotonic()
        while not self._over.is_set():
            if self.sent > (time.monotonic() - began) * self._rate:
                time.sleep(0.005)
                continue
            if (piece := self._piece(self.pieces)) is None:
                return
            yield piece
            self.pieces, self.sent = self.pieces + 1, self.sent + len(piece)

    def _publish(self) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=90)
        try:
            headers = {"Transfer-Encoding": "chunked"}
            connection.request("POST", self._path, self._body(), encode_chunked=True, headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self.wrong = f"{answer.status} {answer.read()!r}"
        except OSError as error:
            self.wrong = repr(error)
        finally:
            connection.close()

    def wait(self, seconds: float) -> None:
        """Until everything is published."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.pieces} pieces are published in {seconds} s"

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(90)


@contextlib.contextmanager
def followers(victim):
    """One over each way, all of them there before the first piece."""
    with contextlib.ExitStack() as stack:
        end = time.monotonic() + 15
        all_of_them = [stack.enter_context(Follower(victim, way)) for way in Follower.WAYS]
        while victim.metric('h3cast_feed_viewers{feed="fast"}') < len(all_of_them):
            assert time.monotonic() < end, "followers do not get in"
            time.sleep(0.05)
        yield all_of_them


class Follower:
    """Reads the feed from its first piece on: how long it waited at the most, and what it missed. Over HTTP/3 or a
    session by `h3cast get`, or over TLS on TCP."""

    WAYS = ("tcp", "http3", "session")

    def __init__(self, victim, way: str) -> None:
        self.way, self.pieces, self.longest, self.wrong = way, 0, 0.0, ""
        self._over = threading.Event()
        self._stack = contextlib.ExitStack()
        if way == "tcp":
            context = ssl.create_default_context(cafile=victim.cacert)
            connection = http.client.HTTPSConnection("localhost", victim.port, timeout=30, context=context)
            connection.request("GET", FEED)
            # Its thread still reads.
            self._stack.callback(connection.sock.shutdown, socket.SHUT_RDWR)
            self._read = connection.getresponse().read
        else:
            url = f"https://{HOST}:{victim.port}{FEED}"
            command = [H3CAST, "get", url, "--no-progress", "--cacert", victim.cacert]
            command += ["--webtransport"] * (way == "session")
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._stack.enter_context(tempfile.TemporaryFile()))
            self._stack.callback(child.wait, 15)
            self._stack.callback(child.kill)
            self._read = child.stdout.read
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        last, expected = time.monotonic(), 0
        try:
            while len(piece := self._read(PIECE)) == PIECE:
                (number,) = struct.unpack(">Q", piece[:8])
                if number != expected:
                    self.wrong = self.wrong or f"{self.way}: piece {number} came for {expected}"
                expected, now = number + 1, time.monotonic()
                if self.pieces:
                    self.longest = max(self.longest, now - last)
                last, self.pieces = now, self.pieces + 1
            error = "the end"
        except (OSError, http.client.HTTPException, ValueError) as failed:
            error = repr(failed)
        if not self._over.is_set():
            self.wrong = self.wrong or f"{self.way}: {error} after {self.pieces} pieces"

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._stack.close()
        self._thread.join(15)
