"""More viewers that take nothing than there is memory for."""

import asyncio
import contextlib
import http.client
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from confined import MIB, can_be_a_cgroup
from fast import FEED, Follower, Publisher
from fast import followers as followers_of
from peers import address, tls
from quic import attackers
from scale import count, seconds
from victim import HOST

LIMIT = 256 * MIB
# `--memory`: the usual share, or what such viewers take without what the kernel holds for them, which only a cgroup
# counts.
MEMORY = LIMIT * 3 // 4 if can_be_a_cgroup() else 96 * MIB
# What is published in a second.
RATE = 4 * MIB
# For how long no new viewer may get in, in seconds: laggards are cut for it after 5.
OUT = 8


class Watch:
    """What the server says of its memory, and whether a new viewer gets in, five times a second."""

    def __init__(self, victim) -> None:
        self._victim, self._over = victim, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.pressure = self.admitted = self.refused = 0
        self.memory = 0.0
        # The longest time in which no new viewer got in.
        self.longest, self._since = 0.0, None
        self.wrong = ""

    def _look(self) -> None:
        while not self._over.wait(0.2):
            status = new_viewer(self._victim)
            now = time.monotonic()
            if status == 200:
                self.admitted, self._since = self.admitted + 1, None
            elif status == 503:
                self.refused += 1
                self._since = self._since or now
                self.longest = max(self.longest, now - self._since)
            else:
                self.wrong = f"a new viewer was answered with {status}"
            self.pressure = max(self.pressure, int(self._victim.metric("h3cast_memory_pressure")))
            self.memory = max(self.memory, self._victim.metric("h3cast_memory_bytes"))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(15)


def new_viewer(victim) -> int | str:
    """What a new viewer is answered, over plain HTTP."""
    connection = http.client.HTTPConnection(HOST, victim.http_port, timeout=15)
    try:
        connection.request("GET", "/stream/live?limit=0")
        answer = connection.getresponse()
        if answer.status == 503:
            # By the app, or, when there is not even memory for its connection, by the place that is kept for status.
            text = answer.read()
            assert answer.headers["retry-after"] == "5" and (b"short of memory" in text or b"no room" in text)
            # Connections that are refused and stay would take what others are refused for.
            assert answer.will_close
        return answer.status
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()


def over_tcp(victim, path: str, viewers: int, lasting: float) -> int:
    """Half read nothing, the others a byte a second; those that are refused try again. How many connections it took."""
    socks, tried, end = [], 0, time.monotonic() + lasting
    while time.monotonic() < end and len(socks) < viewers:
        tried += 1
        with contextlib.suppress(OSError):
            sock = tls(victim.address, "http/1.1", address(tried), buffer=4096)
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            sock.setblocking(False)
            socks.append(sock)
        if tried % 100 == 0:
            sip(socks)
    while time.monotonic() < end:
        time.sleep(1)
        sip(socks)
    for sock in socks:
        sock.close()
    return tried


def sip(socks: list) -> None:
    for sock in socks[::2]:
        with contextlib.suppress(OSError):
            os.read(sock.fileno(), 1)


async def over_quic(victim, path: str, viewers: int, lasting: float) -> None:
    end = time.monotonic() + lasting
    async with contextlib.AsyncExitStack() as stack:
        peers = []
        for number in range(viewers):
            if time.monotonic() > end:
                break
            with contextlib.suppress(OSError, TimeoutError):
                [peer] = await stack.enter_async_context(attackers(victim, 1, address(number)))
                peers.append(peer)
                peer.get(path)
                await asyncio.wait_for(peer.data.wait(), 2)
                peer.stop_acknowledging()
        while time.monotonic() < end:
            for peer in peers:
                peer.ping()
            await asyncio.sleep(0.5)


def test_more_laggards_than_memory(row):
    """Over TCP and QUIC, each from an address of its own. The feed's own viewers that keep up miss nothing."""
    tcp, quic, lasting = count(1000), count(60), seconds(10)

    def attack(victim, path: str) -> dict:
        with ThreadPoolExecutor() as threads:
            over = threads.submit(over_tcp, victim, path, tcp, lasting)
            asyncio.run(over_quic(victim, path, quic, lasting))
            return {"tried": over.result()}

    def act(victim):
        if victim.name != "h3cast":
            return attack(victim, "/stream/bulk")
        with contextlib.ExitStack() as stack:
            followers = stack.enter_context(followers_of(victim))
            publisher = stack.enter_context(Publisher(victim, RATE))
            watch = stack.enter_context(Watch(victim))
            told = attack(victim, FEED + "?from=start")
            began = time.monotonic()
            while new_viewer(victim) != 200 or victim.metric("h3cast_memory_pressure"):
                assert time.monotonic() < began + OUT, "new viewers stay out after the attack"
                time.sleep(0.1)
        for who in [publisher, watch, *followers]:
            assert not who.wrong, who.wrong
            told |= {f"gap_{who.way}": round(who.longest, 2)} if isinstance(who, Follower) else {}
        told |= {"out_for": round(watch.longest, 1), "refused": watch.refused, "admitted": watch.admitted}
        told |= {"counted": int(victim.metric('h3cast_refused_total{reason="memory"}'))}
        told |= {"cut": int(victim.metric("h3cast_viewers_cut_total"))}
        told |= {"killed": victim.confined.killed()}
        assert watch.refused and watch.memory <= MEMORY, vars(watch)
        # Laggards give way above 95 %, or once new viewers have been refused for 5 s (within what is seen of that).
        assert watch.pressure == 2 or watch.longest > 4, vars(watch)
        assert told["counted"] >= watch.refused and told["cut"] > 0, told
        assert all(follower.pieces > 0.95 * publisher.pieces for follower in followers)
        assert max(follower.longest for follower in followers) <= 2 and watch.longest <= OUT, told
        return told

    arguments = [f"--history={MEMORY // 6}", f"--memory={MEMORY}"]
    row.run(act, *arguments, bulk=True, sources=("fast=publish",), confined={"limit": LIMIT}, gap=2, connect=2)
