"""Heads of requests that are larger than any need to be: CVE-2024-27316, CVE-2016-6581."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from answers import NO_TABLE, Answers1, Answers2, exchange
from confined import MIB
from peers import END_HEADERS, END_STREAM, HEADERS, fields, frame, http2, pour, text, tls
from quic import attacker
from scale import count, seconds

CONTINUATION = 9
# What no head of HTTP/1.1 comes near, in bytes.
LONG = 400 << 10
# What one HPACK bomb may cost, in seconds of CPU: much less than to unpack it.
CPU = 0.0001
# How many heads attack at once.
THREADS = 4


def source(number: int) -> str:
    return f"127.66.5.{number % 200 + 1}"


def test_large_heads(row):
    """HTTP/1.1: 400 KB in one field, in 20,000 fields, or in the target; and heads that end at 30 KiB, where they stay
    for as long as the attack lasts."""
    connections = count(120)
    host = b" HTTP/1.1\r\nHost: localhost\r\n"
    begun = b"GET /stream/live" + host
    heads = [
        begun + b"X: " + b"x" * LONG + b"\r\n\r\n",
        begun + b"".join(b"x%d: %d\r\n" % (number, number) for number in range(20_000)) + b"\r\n",
        b"GET /stream/live?" + b"x" * LONG + host + b"\r\n",
    ]

    def act(victim):
        lasting = time.monotonic() + seconds(3)
        waiting = [tls(victim.address, "http/1.1", source(number)) for number in range(connections)]
        for sock in waiting:
            sock.sendall(begun + b"X: " + b"x" * (30 << 10))

        def one(number: int) -> tuple[Counter, bool]:
            with tls(victim.address, "http/1.1", source(number)) as sock:
                answers = Answers1()
                # The answer may come in the middle of the head.
                exchange(sock, heads[number % len(heads)], answers, lambda: bool(answers.statuses), 10)
                return answers.statuses, answers.ended

        with ThreadPoolExecutor(THREADS) as threads:
            found = list(threads.map(one, range(connections)))
        time.sleep(max(0.0, lasting - time.monotonic()))
        for sock in waiting:
            sock.close()
        statuses = sum((statuses for statuses, _ in found), Counter())
        # Reset before the answer was read: what else was sent may do that (RFC 9112 §9.6).
        reset = sum(ended and not statuses for statuses, ended in found)
        return {"heads": connections, "reset": reset, **{f"status_{status}": n for status, n in statuses.items()}}

    told = row.run(act, together=True, gap=2, connect=2, above=connections * 64 * 1024 + 16 * MIB, cpu=2)
    assert told.get("status_431", 0) + told.get("status_414", 0) + told["reset"] == told["heads"], told
    assert told["reset"] < told["heads"] // 2, told


def test_large_heads_over_quic(row):
    """HTTP/3: 400 KB in one field, in 10,000 fields, or in the target. None may be answered as if it were a request."""
    connections, requests = count(8), 12
    heads = [
        ("/healthz", [("x", "x" * LONG)]),
        ("/healthz", [(f"x{number}", f"{number:030}") for number in range(10_000)]),
        ("/healthz?" + "x" * LONG, []),
    ]

    async def one(victim, number: int) -> Counter:
        peer = await attacker(victim, source(number))
        streams = [peer.ask("GET", path, *others, end=True) for path, others in heads * (requests // len(heads))]
        answered = lambda: len(peer.statuses.keys() | peer.reset) == requests or peer.ended.is_set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while not answered():
                    await asyncio.sleep(0.01)
        found = Counter(f"status_{status}" for status in peer.statuses.values())
        unanswered = [stream for stream in streams if stream not in peer.statuses]
        # A connection that ends takes all of its requests with it.
        found["reset"] = sum(stream in peer.reset or peer.ended.is_set() for stream in unanswered)
        found["ended"] = peer.ended.is_set()
        peer._transport.abort()
        return found

    async def attack(victim):
        end = time.monotonic() + seconds(2)
        found = Counter()
        for number in range(connections):
            found += await one(victim, number)
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        return {"heads": connections * requests, **found}

    told = row.run(lambda victim: asyncio.run(attack(victim)), together=True, gap=2, connect=2, above=32 * MIB, cpu=2)
    refused = sum(told.get(what, 0) for what in ("status_431", "status_414", "reset"))
    assert refused == told["heads"], told


def continued(filling: bytes):
    """A head that never ends, of frames that each have the same in them."""
    yield frame(HEADERS, END_STREAM, 1, fields("GET", "/stream/live"))
    yield from itertools.repeat(frame(CONTINUATION, 0, 1, filling) * 16)


def test_continuations(row):
    """HTTP/2: heads without an end, of full CONTINUATION frames and of empty ones. Each must end its connection."""
    filling = [b"\x00" + text("x") + text("x" * 4000), b"\x00" + text("x") + text(""), b""]
    connections, lasting = 2 * len(filling), seconds(2)

    def act(victim):
        def one(number: int) -> tuple[int, bool]:
            with http2(victim.address, source(number)) as sock:
                sent, reader = pour(sock, continued(filling[number % len(filling)]), lasting)
                return sent * 16, reader.ended or reader.goaway is not None

        with ThreadPoolExecutor(connections) as threads:
            end = time.monotonic() + lasting
            found = list(threads.map(one, range(connections)))
            time.sleep(max(0.0, end - time.monotonic()))
        return {"frames": sum(sent for sent, _ in found), "ended": sum(ended for _, ended in found)}

    told = row.run(act, gap=2, connect=2, above=32 * MIB, cpu=1)
    assert told["ended"] == connections, told


def test_hpack_bombs(row):
    """HTTP/2: fields of 4,000 bytes from the table, 16,000 of them in a head: 64 MB from 16 KB. Each is sent on new
    connections for as long as the attack lasts, and none may be answered as if it were a request."""
    streams, lasting = 50, seconds(2)
    whole = END_HEADERS | END_STREAM
    # The newest field of the table (RFC 7541 §2.3.3).
    bomb = fields("GET", "/healthz") + b"\xbe" * 16_000
    data = NO_TABLE + frame(HEADERS, whole, 1, fields("GET", "/healthz") + b"\x40" + text("x") + text("x" * 4000))
    data += b"".join(frame(HEADERS, whole, stream, bomb) for stream in range(3, 2 * streams + 1, 2))

    def act(victim):
        end = time.monotonic() + lasting

        def one(number: int) -> Counter:
            found = Counter()
            while time.monotonic() < end:
                answers = Answers2()
                with http2(victim.address, source(number)) as sock:
                    answered = lambda: len(answers.by_stream | answers.resets) == streams or answers.goaway is not None
                    exchange(sock, data, answers, answered, 20)
                bombs = {stream: status for stream, status in answers.by_stream.items() if stream > 1}
                found["bombs"] += streams - 1
                found["taken"] += Counter(bombs.values())[200]
                # A connection that ends takes all of its requests with it.
                over = answers.ended or answers.goaway is not None
                found["refused"] += streams - 1 if over else len(bombs) + len(answers.resets)
            return found

        with ThreadPoolExecutor(THREADS) as threads:
            return dict(sum(threads.map(one, range(THREADS)), Counter()))

    told = row.run(act, gap=2, connect=2, above=32 * MIB)
    assert told.get("taken", 0) == 0 and told["refused"] == told["bombs"], told
    assert told["cpu_seconds"] < CPU * told["bombs"], told
