"""Clients of a large file in --static, and of Caddy's file_server."""

import re
import time
from collections import Counter

from answers import NO_TABLE, Answers1, Answers2, exchange
from confined import MIB
from peers import SETTINGS, WINDOW_UPDATE, frame, http2, request, tls
from scale import count, seconds
from victim import HOST

FILE = "/large.bin"
# More pieces than anyone wants of a file, and pieces that overlap.
PIECES = "bytes=" + ",".join(f"{first}-" for first in range(1500))
# Of each connection over HTTP/2.
STREAMS = 1
WINDOW = (1 << 30).to_bytes(4, "big")
# What a client may cost that reads nothing: in the kernel, and in the server.
TCP, MEMORY = 0.5 * MIB, 0.25 * MIB


def get(method: str = "GET", **fields: str) -> bytes:
    lines = [f"{method} {FILE} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def version(victim) -> str:
    """When the file was changed, as the server reports it."""
    sock, answers = tls(victim.address, "http/1.1", HOST), Answers1()
    exchange(sock, get("HEAD"), answers, lambda: b"\r\n\r\n" in answers.body, 10)
    sock.close()
    found = re.search(r"^last-modified: (.*?)\r$", answers.body.decode(), re.I | re.M)
    return found[1]


def test_large_files(row):
    """Clients that ask for 256 MiB, whole or in 1,500 pieces, and read nothing or 4 KiB a second; and thousands of
    requests for its head, or for what they have (304)."""
    clients, short = count(60), count(2000)

    def act(victim):
        since = version(victim)
        socks = []
        for number in range(clients):
            source = f"127.66.3.{number % 200 + 1}"
            match number % 3:
                case 0:
                    sock = tls(victim.address, "http/1.1", source, buffer=4096)
                    sock.sendall(get())
                case 1:
                    sock = tls(victim.address, "http/1.1", source, buffer=4096)
                    sock.sendall(get(range=PIECES))
                case _:
                    sock = http2(victim.address, source, buffer=4096)
                    sock.sendall(frame(SETTINGS, 0, 0, b"\x00\x04" + WINDOW) + frame(WINDOW_UPDATE, 0, 0, WINDOW))
                    sock.sendall(b"".join(request(stream, "GET", FILE) for stream in range(1, 2 * STREAMS, 2)))
            socks.append(sock)
        statuses, end = Counter(), time.monotonic() + seconds(3)
        for data in (get("HEAD"), get(if_modified_since=since)):
            sock, answers = tls(victim.address, "http/1.1", "127.66.3.250"), Answers1()
            exchange(sock, data * short, answers, lambda: answers.statuses.total() == short, 30)
            statuses += answers.statuses
            sock.close()
        while time.monotonic() < end:
            for sock in socks[::2]:
                sock.settimeout(0.01)
                try:
                    sock.recv(4096)
                except OSError:
                    pass
            time.sleep(1)
        for sock in socks:
            sock.close()
        return {"clients": clients, **{f"status_{status}": number for status, number in statuses.items()}}

    above = clients * MEMORY + 16 * MIB
    told = row.run(act, files=True, together=True, gap=2, connect=2, above=above, tcp=clients * TCP)
    assert told["status_200"] == told["status_304"] == short, told
