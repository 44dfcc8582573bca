"""Floods of HTTP/2 frames that cost the sender nothing: CVE-2019-9512, CVE-2019-9515, CVE-2023-44487."""

import itertools
import threading
import time

from confined import MIB
from peers import PING, RST_STREAM, SETTINGS, frame, get, http2, pour
from scale import seconds

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
