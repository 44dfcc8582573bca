"""More clients than there may be open files."""

import contextlib
import os
import time

from confined import MIB
from peers import address, begin, tls
from scale import count, seconds

DESCRIPTORS = 512
# What stays for commands, files and certificates, when connections from outside have the rest.
RESERVE = 32


def descriptors(victim) -> int:
    return len(os.listdir(f"/proc/{victim.process.pid}/fd"))


def test_more_clients_than_descriptors(row):
    """Half are silent, half have completed their handshakes and read the feed, each from an address of its own."""

    def act(victim):
        clients, end = [], time.monotonic() + seconds(4)
        for number in range(count(1000)):
            # Where connections wait instead of being refused, the next ones would do so too.
            if time.monotonic() > end:
                break
            with contextlib.suppress(OSError):
                if number % 2:
                    clients.append(begin(victim.address, address(number)))
                else:
                    sock = tls(victim.address, "http/1.1", address(number))
                    sock.sendall(b"GET /stream/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    clients.append(sock)
        most = descriptors(victim)
        while time.monotonic() < end:
            most = max(most, descriptors(victim))
            time.sleep(0.1)
        told = {"clients": count(1000), "most": most}
        if victim.name == "h3cast":
            told |= {"refused": int(victim.metric('h3cast_refused_total{reason="descriptors"}'))}
        for sock in clients:
            sock.close()
        # Others have left: one more over TCP gets in.
        began = time.monotonic()
        while True:
            assert time.monotonic() < began + 10 or victim.name != "h3cast", "nobody gets in after the attack"
            try:
                sock = tls(victim.address, "http/1.1", address(count(1000)))
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if b" 200 " in sock.recv(4096) or victim.name != "h3cast":
                    break
            except OSError:
                if victim.name != "h3cast":
                    break
                time.sleep(0.05)
        sock.close()
        return told | {"after": round(time.monotonic() - began, 2)}

    # Over TCP none gets in while there is no descriptor; over QUIC, none is needed.
    bounds = {"gap": 2, "connect_h3": 2, "above": 64 * MIB}
    told = row.run(act, confined={"descriptors": DESCRIPTORS}, together=True, **bounds)
    assert told["most"] <= DESCRIPTORS - RESERVE // 2 and told["refused"] > 0 and told["after"] <= 2, told
