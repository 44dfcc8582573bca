"""Floods of HTTP/2 frames that cost the sender nothing: CVE-2019-9512, CVE-2019-9515, CVE-2023-44487."""

import contextlib
import http.client
import itertools
import threading
import time

from confined import MIB
from peers import PING, PREFACE, RST_STREAM, SETTINGS, address, frame, get, http2, pour, tls
from scale import seconds
from victim import HOST

CONNECTIONS = 4
ENHANCE_YOUR_CALM = 0xB
BATCH = 100
# What all of it may take, in seconds of CPU. Frames that a connection still takes lie in the kernel.
CPU = 0.5


def flood(victim, batches, lasting: float) -> dict:
    """`batches()` makes what each connection sends, BATCH frames at a time."""
    done, end = [], time.monotonic() + lasting

    def one() -> None:
        sock = http2(victim.address)
        sent, reader = pour(sock, batches(), lasting)
        done.append((sent * BATCH, reader.ended or reader.goaway is not None, reader.goaway))
        sock.close()

    threads = [threading.Thread(target=one) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == CONNECTIONS
    # Viewers are watched for as long as the attack would have lasted.
    time.sleep(max(0.0, end - time.monotonic()))
    codes = sorted({f"{code:#x}" for _, _, code in done if code is not None})
    return {"frames": sum(sent for sent, _, _ in done), "ended": sum(ended for _, ended, _ in done), "goaway": codes}


def pings():
    return itertools.repeat(frame(PING, 0, 0, b"attacked") * BATCH)


def settings():
    # SETTINGS_MAX_CONCURRENT_STREAMS, which changes nothing for a server.
    return itertools.repeat(frame(SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x64") * BATCH)


def resets():
    cancel = (8).to_bytes(4, "big")
    for first in range(1, 1 << 31, 2 * BATCH):
        streams = range(first, first + 2 * BATCH, 2)
        yield b"".join(get(stream, "/stream/live") + frame(RST_STREAM, 0, stream, cancel) for stream in streams)


def attack(row, batches) -> None:
    lasting = seconds(2)
    told = row.run(lambda victim: flood(victim, batches, lasting), gap=2, connect=2, above=32 * MIB, cpu=CPU)
    assert told["ended"] == CONNECTIONS and told["goaway"] == [hex(ENHANCE_YOUR_CALM)], told


def test_http2_pings(row):
    attack(row, pings)


def test_http2_settings(row):
    attack(row, settings)


def test_rapid_reset(row):
    attack(row, resets)


def create_feeds(victim, clients: int, each: int) -> None:
    """Feeds with long names, created by as many clients."""
    for client in range(clients):
        with contextlib.closing(
            http.client.HTTPConnection(HOST, victim.http_port, timeout=15, source_address=(address(client), 0))
        ) as connection:
            for number in range(each):
                connection.request("POST", f"/stream/room.{client:03}-{number:03}-{'x' * 80}", body=b"x")
                answer = connection.getresponse()
                assert answer.status == 200, (answer.status, answer.read())
                answer.read()


def test_answers_that_are_not_read(row):
    """Answers as long as there are feeds, of which not a byte is read."""
    lasting = seconds(3)

    def act(victim) -> dict:
        create_feeds(victim, 8, 60)
        # SETTINGS_INITIAL_WINDOW_SIZE: not a byte may be sent.
        preface = PREFACE + frame(SETTINGS, 0, 0, b"\x00\x04" + bytes(4))
        paths = itertools.cycle(["/metrics", "/feeds", "/info"])
        refused, socks = 0, []
        for client in range(12):
            try:
                sock = tls(victim.address, "h2", address(100 + client))
                sock.sendall(preface + b"".join(get(stream, next(paths)) for stream in range(1, 200, 2)))
                socks.append(sock)
            except OSError:
                # By then there is no memory for it.
                refused += 1
        end = time.monotonic() + lasting
        while time.monotonic() < end:
            # Whoever looks after it sees what happens.
            charged = victim.metric("h3cast_memory_charged_bytes")
            time.sleep(0.2)
        for sock in socks:
            sock.close()
        return {"refused": refused, "charged_mib": round(charged / MIB, 1)}

    arguments = [f"--memory={96 * MIB}", "--history=room.*=16K"]
    # Caddy has no feeds that clients create.
    row.run(act, *arguments, sources=("room.*=publish",), servers=("h3cast",), gap=2, above=80 * MIB)
