"""Clients that take what publishers need: Idempotency-Keys, and places for publications."""

import asyncio
import contextlib
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

from answers import NO_TABLE, Answers1, Answers2, exchange
from confined import MIB
from peers import DATA, END_STREAM, frame, http2, request, tls
from quic import attackers
from scale import count, scale
from victim import HOST

# Defaults, in all and of one client.
KEYS, PUBLICATIONS_PER_CLIENT = 65_536, 256
CLIENTS = 16
# The most streams of a connection.
STREAMS = 96


def source(client: int) -> str:
    return f"127.66.1.{client + 1}"


def post(path: str, key: str, body: bytes) -> bytes:
    fields = f"Host: localhost\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{fields}".encode() + body


def publish(victim, path: str, key: str, body: bytes) -> dict:
    """What the viewers' own address has published under a key."""
    with tls(victim.address, "http/1.1", HOST) as sock:
        answers = Answers1()
        assert exchange(sock, post(path, key, body), answers, lambda: answers.body.endswith(b"}"), 10), answers.statuses
        return json.loads(answers.body.rpartition(b"\r\n\r\n")[2])


def test_idempotency_keys(row):
    """Fresh keys, more than the server remembers in all and of each client, half of them for many feeds."""
    each = count(KEYS // CLIENTS + 300)

    def flood(victim, client: int) -> Answers1:
        feeds = itertools.cycle(["one"] if client % 2 else [f"many.{number}" for number in range(8)])
        data = b"".join(post(f"/stream/{next(feeds)}", f"{client}-{number}", b"x") for number in range(each))
        with tls(victim.address, "http/1.1", source(client)) as sock:
            answers = Answers1()
            exchange(sock, data, answers, lambda: answers.statuses.total() == each, 60)
            return answers

    def act(victim):
        assert publish(victim, "/stream/one", "mine", b"hello")["bytes"] == 5
        with ThreadPoolExecutor(CLIENTS) as threads:
            answers = list(threads.map(lambda client: flood(victim, client), range(CLIENTS)))
        published = sum(answer.statuses[200] for answer in answers)
        # Nobody else's keys are forgotten.
        mine = publish(victim, "/stream/one", "mine", b"")["bytes"]
        return {"published": published, "mine": mine, "keys": int(victim.metric("h3cast_idempotency_keys"))}

    told = row.run(
        act,
        sources=("one=publish", "many.*=publish"),
        servers=("h3cast",),
        viewer={"publish": "/stream/one"},
        gap=2,
        connect=2,
        publish=2,
        above=64 * MIB,
    )
    assert told["published"] == each * CLIENTS > KEYS, told
    assert told["keys"] <= KEYS and told["mine"] == 5, told


def test_silent_bodies(row):
    """Publications that never bring a byte, over each version of HTTP. One that has may stay silent for longer."""
    clients, plain, connections = 4, 64, count(10)
    wait = 3

    def patience(victim) -> int:
        # Caddy has no such time.
        return 30 if victim.name == "h3cast" else wait + 1

    def over1(victim, client: int) -> list[int]:
        """What each is answered."""
        socks = []
        for _ in range(plain):
            sock = tls(victim.address, "http/1.1", source(client))
            sock.sendall(b"POST /stream/one HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
            socks.append(sock)
        statuses, end = [], time.monotonic() + patience(victim)
        for sock in socks:
            answers = Answers1()
            exchange(sock, b"", answers, lambda: bool(answers.statuses), end - time.monotonic())
            statuses += answers.statuses.elements()
            sock.close()
        return statuses

    def over2(victim, client: int) -> list[int]:
        data = NO_TABLE + b"".join(
            request(stream, "POST", "/stream/one", end=False) for stream in range(1, 2 * STREAMS, 2)
        )
        readers = []
        for _ in range(connections):
            reader, sock = Answers2(), http2(victim.address, source(client))
            sock.sendall(data)
            readers.append((sock, reader))
        end = time.monotonic() + patience(victim)
        for sock, reader in readers:
            exchange(sock, b"", reader, lambda: len(reader.by_stream) == STREAMS, end - time.monotonic())
            sock.close()
        return [status for _, reader in readers for status in reader.by_stream.values()]

    async def over3(victim) -> list[int]:
        async with attackers(victim, 2) as peers:
            for peer in peers:
                for _ in range(STREAMS):
                    peer.ask("POST", "/stream/one", end=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience(victim)):
                    while sum(len(peer.statuses) for peer in peers) < 2 * STREAMS:
                        await asyncio.sleep(0.05)
            return [status for peer in peers for status in peer.statuses.values()]

    def act(victim):
        # Its first byte has come, its last one comes when the others have been ended.
        resting, answers = http2(victim.address, source(200)), Answers2()
        resting.sendall(NO_TABLE + request(1, "POST", "/stream/one", end=False) + frame(DATA, 0, 1, b"x"))
        began = time.monotonic()
        with ThreadPoolExecutor(2 * clients + 1) as threads:
            jobs = [threads.submit(over, victim, client) for client in range(clients) for over in (over1, over2)]
            jobs.append(threads.submit(asyncio.run, over3(victim)))
            statuses = [status for job in jobs for status in job.result()]
        time.sleep(max(0.0, began + wait + 1 - time.monotonic()))
        exchange(resting, frame(DATA, END_STREAM, 1, b"y"), answers, lambda: 1 in answers.by_stream, 10)
        resting.close()
        known = {f"status_{status}": statuses.count(status) for status in sorted(set(statuses))}
        return {"asked": clients * (plain + connections * STREAMS) + 2 * STREAMS, "rested": answers.by_stream.get(1), **known}

    told = row.run(
        act,
        f"--publish-wait={wait}s",
        sources=("one=publish",),
        together=True,
        viewer={"publish": "/stream/one"},
        gap=2,
        connect=2,
        publish=2,
        above=(48 + 16 * scale()) * MIB,
    )
    assert told["status_408"] + told["status_429"] == told["asked"] > 4000, told
    assert told["status_408"] >= clients * PUBLICATIONS_PER_CLIENT and told["rested"] == 200, told
