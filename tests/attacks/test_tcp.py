"""Connections over TCP that say nothing, or little."""

import contextlib
import time

from confined import MIB
from peers import begin, tls
from scale import count, seconds


def test_silent_connects(row):
    """More connections from one address than the server takes in all; none says a word."""

    def act(victim):
        silent = [begin(victim.address) for _ in range(count(5000))]
        time.sleep(seconds(4))
        for sock in silent:
            sock.close()
        return {"connections": len(silent)}

    row.run(act, gap=2, connect=2, above=64 * MIB)


def test_slow_heads(row):
    """HTTP/1.1 over TLS: a byte of a head every second, until the server has enough of it."""

    def act(victim):
        slow = [tls(victim.address, "http/1.1") for _ in range(count(50))]
        head, end, closed = b"GET /stream/live HTTP/1.1\r\nHost: localhost\r\nX: ", time.monotonic() + 13, set()
        for byte in head + b"x" * 64:
            if time.monotonic() > end or len(closed) == len(slow):
                break
            for sock in slow:
                if sock not in closed:
                    try:
                        sock.send(bytes([byte]))
                    except OSError:
                        closed.add(sock)
            time.sleep(1)
        for sock in slow:
            with contextlib.suppress(OSError):
                sock.close()
        return {"connections": len(slow), "closed_by_server": len(closed)}

    told = row.run(act, together=True, gap=2, connect=2, above=32 * MIB)
    assert told["closed_by_server"] == told["connections"], "a head may take 10 s"
