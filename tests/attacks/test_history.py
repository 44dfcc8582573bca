"""Histories of lines so short that what is kept beside them is more than they are."""

import contextlib
import subprocess
import threading
import time

from confined import MIB
from fast import FEED, Publisher
from peers import address, tls
from scale import count, scale
from victim import H3CAST, HOST

HISTORY = (8 if scale() == 1 else 32) * MIB
# What buffers of viewers and the allocator's pages that are not whole take, however large the history is.
BUFFERS = 8 * MIB
# What one costs is more than twice that: much of the history is replaced.
LINES = HISTORY // 80
BATCH = 1000


def lines(number: int) -> bytes | None:
    first = number * BATCH
    return b"".join(b"%015d\n" % line for line in range(first, first + BATCH)) if first < LINES else None


def discard(sock) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


def test_a_history_of_short_lines(row):
    """Viewers in each format over each way, some of them from the start and slow, so that all of it is encoded."""

    def act(victim):
        with contextlib.ExitStack() as stack:
            for form in ("raw", "sse", "frames"):
                for place in ("now", "start"):
                    query = f"?format={form}&from={place}"
                    for session in ([], ["--webtransport"]):
                        command = [H3CAST, "get", f"https://{HOST}:{victim.port}{FEED}{query}", "--no-progress"]
                        command += ["--cacert", victim.cacert, *session]
                        null = subprocess.DEVNULL
                        child = subprocess.Popen(command, stdout=null, stderr=null)
                        stack.callback(child.wait, 15)
                        stack.callback(child.kill)
                    sock = tls(victim.address, "http/1.1", address(7))
                    stack.callback(sock.close)
                    sock.sendall(f"GET {FEED}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                    threading.Thread(target=discard, args=[sock], daemon=True).start()
            end = time.monotonic() + 20
            while victim.metric('h3cast_feed_viewers{feed="fast"}') < 18:
                assert time.monotonic() < end, "viewers do not get in"
                time.sleep(0.05)
            victim.begin_again()
            with Publisher(victim, 4 * MIB, FEED + "?chunk=lines", lines) as publisher:
                publisher.wait(60)
            kept = victim.metric('h3cast_feed_kept_bytes{feed="fast"}')
            assert not publisher.wrong, publisher.wrong
            assert HISTORY * 0.9 <= kept <= HISTORY * 1.125, kept
            return {"lines": LINES, "kept_mib": round(kept / MIB, 1), "history_mib": HISTORY // MIB}

    arguments = [f"--history={HISTORY}"]
    above = HISTORY * 3 // 2 + (BUFFERS if scale() == 1 else 0)
    row.run(act, *arguments, sources=("fast=publish",), servers=("h3cast",), gap=2, connect=2, above=above)
