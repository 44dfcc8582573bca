"""Viewers that ask for a feed and take nothing of it."""

import asyncio
import time

from confined import MIB
from peers import frame, get, http2, tls
from quic import attackers
from scale import count, seconds

BULK = "/stream/bulk"
WINDOW_UPDATE, SETTINGS = 8, 4
# What one such viewer may cost: in the kernel over TCP, and in the server over QUIC.
TCP, QUIC = 0.5 * MIB, 1.25 * MIB


def test_viewers_that_do_not_read(row):
    """TCP: half over HTTP/1.1, half over HTTP/2 with windows that never close."""
    viewers = count(20)

    def act(victim):
        socks = []
        for i in range(viewers):
            if i % 2:
                sock = http2(victim.address, buffer=4096)
                window = (1 << 30).to_bytes(4, "big")
                sock.sendall(frame(SETTINGS, 0, 0, b"\x00\x04" + window) + frame(WINDOW_UPDATE, 0, 0, window))
                sock.sendall(get(1, BULK))
            else:
                sock = tls(victim.address, "http/1.1", buffer=4096)
                sock.sendall(f"GET {BULK} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            socks.append(sock)
        time.sleep(seconds(5))
        for sock in socks:
            sock.close()
        return {"viewers": viewers}

    row.run(act, bulk=True, together=True, gap=2, connect=2, above=viewers * MIB + 32 * MIB, tcp=viewers * TCP)


def test_viewers_that_never_acknowledge(row):
    """QUIC: their PINGs keep the connection, and nothing that they receive is acknowledged."""
    viewers = count(20)

    async def attack(victim):
        async with attackers(victim, viewers) as peers:
            for peer in peers:
                peer.get(BULK)
                await asyncio.wait_for(peer.data.wait(), 10)
                peer.stop_acknowledging()
            end = time.monotonic() + seconds(5)
            while time.monotonic() < end:
                for peer in peers:
                    peer.ping()
                await asyncio.sleep(0.5)
            ended = sum(peer.ended.is_set() for peer in peers)
            return {"viewers": viewers, "ended": ended}

    above = viewers * QUIC + 16 * MIB
    row.run(lambda victim: asyncio.run(attack(victim)), bulk=True, together=True, gap=2, connect=2, above=above)
