"""Floods of QUIC Initials, as anyone may send who can spoof addresses."""

import json
import os
import subprocess

from confined import MIB
from scale import count, seconds
from victim import TARGET

FLOOD = os.environ.get("H3CAST_FLOOD", str(TARGET / "release/h3cast-flood"))


def flood(victim, mode: str, *options: object) -> dict:
    command = [FLOOD, mode, f"{victim.address[0]}:{victim.port}", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_initials(row):
    """Each begins another connection: a whole ClientHello, from 1,000 addresses."""

    def act(victim):
        lasting = seconds(4)
        told = flood(victim, "initials", "--rate", 10_000, "--seconds", lasting, "--sources", 1000)
        assert told["sent"] >= 10_000 * lasting * 0.9, told
        return told

    row.run(act, gap=2, connect=2, above=64 * MIB)


def test_initials_of_60_bytes(row):
    """Connections begun, then kept by datagrams that are too small to be from a client (RFC 9000 §14.1)."""

    def act(victim):
        # Longer than a handshake may take, and than QUIC then remembers the connection (RFC 9000 §10.2).
        options = ["--connections", count(500), "--every", 1, "--seconds", 16, "--sources", 500]
        told = flood(victim, "keepalive", *options)
        if victim.name == "h3cast":
            told |= {"half_open": victim.metric("h3cast_half_open")}
        return told

    told = row.run(act, together=True, gap=2, connect=2, above=64 * MIB)
    # The viewers themselves may be about to get in.
    assert told["half_open"] <= 2, told
