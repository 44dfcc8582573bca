"""Commands that run for one viewer each: --per-viewer."""

import asyncio
import contextlib
import os
import pathlib
import threading
import time
from collections import Counter

from answers import NO_TABLE, Answers1, Answers2, exchange
from confined import MIB
from peers import http2, request, tls
from quic import attackers
from scale import count

# Defaults, in all and of one client.
PROCESSES, PROCESSES_PER_CLIENT = 64, 16
CLIENTS = 8
FEED = "/stream/command"
FOREIGN = {
    "origin": ("origin", "https://evil.example"),
    "site": ("sec-fetch-site", "cross-site"),
}


class Children:
    """Counts a process's children, as /proc has them, until it is told to stop."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop, self.most = pid, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Children":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, self.count())

    def count(self) -> int:
        return sum(self._is_one(pathlib.Path("/proc", entry)) for entry in os.listdir("/proc") if entry.isdigit())

    def _is_one(self, process: pathlib.Path) -> bool:
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            # The server has one more, which ends commands if the server cannot.
            return parent == str(self._pid) and b"h3cast-watcher" not in (process / "cmdline").read_bytes()
        except OSError:
            return False


def ask(victim, client: int, each: int, field: tuple[str, str] | None = None) -> tuple[list, Counter]:
    """So many viewers of one client, the first of them on a connection of its own over HTTP/1.1, the others over
    HTTP/2. Gives the connections, which stay open, and the answers."""
    source = f"127.66.2.{client + 1}"
    fields = [field] if field else []
    sock, first = tls(victim.address, "http/1.1", source), Answers1()
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    exchange(sock, f"GET {FEED} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode(), first, lambda: bool(first.statuses), 10)
    other, others = http2(victim.address, source), Answers2()
    data = NO_TABLE + b"".join(request(stream, "GET", FEED, *fields) for stream in range(1, 2 * each - 1, 2))
    exchange(other, data, others, lambda: len(others.by_stream) == each - 1, 10)
    return [sock, other], first.statuses + others.statuses


async def ask3(victim, each: int, field: tuple[str, str] | None = None) -> Counter:
    """The same of one more client over HTTP/3, whose connection does not stay."""
    async with attackers(victim, 1) as (peer,):
        for _ in range(each):
            peer.ask("GET", FEED, *([field] if field else []), end=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while len(peer.statuses) < each:
                    await asyncio.sleep(0.01)
        return Counter(peer.statuses.values())


def test_commands_for_viewers(row):
    """450 viewers of a command, of nine clients; and before them as many that pages of other origins ask for."""
    each = min(96, count(50))

    def act(victim):
        told, socks = {}, []
        with Children(victim.process.pid) as children:
            for name, field in FOREIGN.items():
                statuses = Counter()
                for client in range(CLIENTS):
                    opened, answered = ask(victim, client, each, field)
                    socks += opened
                    statuses += answered
                told[name] = dict(statuses + asyncio.run(ask3(victim, each, field)))
            told["foreign_started"] = children.most
            statuses = Counter()
            for client in range(CLIENTS):
                opened, answered = ask(victim, client, each)
                socks += opened
                statuses += answered
            statuses += asyncio.run(ask3(victim, each))
            # All that have been let in are there now.
            told |= {"viewers": dict(statuses), "most": max(children.most, children.count())}
            for sock in socks:
                sock.close()
            end = time.monotonic() + 10
            while children.count() and time.monotonic() < end:
                time.sleep(0.05)
            return told | {"left": children.count()}

    told = row.run(
        act,
        "--per-viewer",
        sources=("command=exec:exec sleep 1000",),
        servers=("h3cast",),
        gap=2,
        connect=2,
        above=32 * MIB,
    )
    asked = (CLIENTS + 1) * each
    assert told["origin"] == told["site"] == {403: asked} and told["foreign_started"] == 0, told
    # Four clients take all places, and their own quota refuses the rest of theirs.
    assert told["viewers"] == {200: PROCESSES, 429: 4 * (each - PROCESSES_PER_CLIENT), 503: 5 * each}, told
    assert told["most"] == PROCESSES and told["left"] == 0, told
