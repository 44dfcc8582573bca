"""Floods of requests with tokens that are not valid."""

import base64
import hashlib
import hmac
import itertools
import json
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from answers import NO_TABLE, Answers1, Answers2, exchange
from confined import MIB
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from peers import http2, request, tls
from scale import count
from victim import H3cast

FEED = "/stream/live"
STREAMS = 96
CLIENTS = 8
# What a refusal may cost, in seconds of CPU.
CPU = 0.0003
# What may be logged of all of them.
LINES = 40


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(header: dict, claims: dict, secret: bytes = b"", signature: bytes | None = None) -> str:
    """Signed with HS256, if with no signature of another kind."""
    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    signature = hmac.digest(secret, text.encode(), hashlib.sha256) if signature is None else signature
    return f"{text}.{encoded(signature)}"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict:
    """What the server verifies tokens with, and bad tokens, all of which have the same word in them."""
    folder, mark = tmp_path_factory.mktemp("keys"), f"mark{secrets.token_hex(8)}"
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    format = serialization.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(serialization.Encoding.PEM, format)
    good, secret = secrets.token_urlsafe(32), secrets.token_bytes(32)
    contents = {"public.pem": public, "secret": secret, "tokens": f"read=* name=viewer {good}\n".encode()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    claims = {"exp": int(time.time()) + 3600, "read": ["*"], "publish": ["*"], "sub": mark}
    # The mark is in the text of a token, whatever its place in it is.
    bad = {
        "none": token({"alg": "none", "kid": mark}, claims, signature=b""),
        "wrong secret": token({"alg": "HS256", "kid": mark}, claims, secrets.token_bytes(32)),
        "public key as a secret": token({"alg": "HS256"}, claims, public),
        "RS256 with a secret's signature": token({"alg": "RS256"}, claims, secret),
        "RS256 with noise": token({"alg": "RS256", "kid": "x"}, claims, signature=secrets.token_bytes(256)),
        "expired": token({"alg": "HS256"}, claims | {"exp": 1}, secret),
        "without an end": token({"alg": "HS256"}, {"read": ["*"], "sub": mark}, secret),
        "long": token({"alg": "HS256"}, claims | {"read": [mark] * 280}, secrets.token_bytes(32)),
        "malformed": f"{mark}.{mark}.{mark}",
        "a static one": mark,
        # More than a head may have.
        "too long": mark + "x" * 16_384,
    }
    return {"folder": folder, "mark": mark, "good": good, "bad": bad}


def ask(text: str, way: int) -> tuple[str, list[tuple[str, str]]]:
    """A request with a token in one of the places for it."""
    if way == 0:
        return FEED, [("authorization", f"Bearer {text}")]
    if way == 1:
        return FEED, [("cookie", f"h3cast_token={text}")]
    return f"{FEED}?token={text}", []


def over1(victim, source: str, requests: list) -> Counter:
    """On one connection; those that no head may hold end theirs."""
    found, data, size = Counter(), b"", 0
    with tls(victim.address, "http/1.1", source) as sock:
        answers = Answers1()
        for path, fields in requests:
            lines = [f"GET {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in fields)]
            data, size = data + "\r\n".join([*lines, "", ""]).encode(), size + 1
        exchange(sock, data, answers, lambda: answers.statuses.total() == size, 60)
        found += answers.statuses
    return found


def over2(victim, source: str, requests: list) -> Counter:
    """STREAMS at a time."""
    found, streams, began = Counter(), itertools.count(1, 2), NO_TABLE
    with http2(victim.address, source) as sock:
        answers, asked = Answers2(), 0
        for batch in batches(requests):
            data = began + b"".join(request(next(streams), "GET", path, *fields) for path, fields in batch)
            asked, began = asked + len(batch), b""
            if not exchange(sock, data, answers, lambda: len(answers.by_stream) == asked, 60):
                break
        found += answers.statuses
    return found


def batches(requests: list):
    return (requests[first : first + STREAMS] for first in range(0, len(requests), STREAMS))


def secrets_in(log: str, keys: dict) -> int:
    """How often a token is in the log, or a part of one."""
    parts = {keys["mark"], encoded(keys["mark"].encode())[:16]}
    for text in [keys["good"], *keys["bad"].values()]:
        parts |= {text[-24:], text[len(text) // 2 :][:24]}
    return sum(log.count(part) for part in parts)


def servers_keys(keys: dict) -> list[str]:
    folder = keys["folder"]
    return [f"--auth={folder}/public.pem", f"--auth-secret={folder}/secret", f"--tokens={folder}/tokens"]


def test_no_token_is_logged(keys):
    """Whatever is logged: with all that there is to log."""
    with H3cast(*servers_keys(keys), "--log=trace") as server:
        for way in range(3):
            tokens = [text for name, text in keys["bad"].items() if name != "too long"]
            bad = [ask(text, way) for text in tokens]
            statuses = over1(server, "127.66.4.1", bad) + over2(server, "127.66.4.2", bad)
            assert statuses == {401: 2 * len(bad)}, statuses
            assert over1(server, "127.66.4.1", [ask(keys["bad"]["too long"], way)]) == {431: 1}
            # Its response does not end.
            assert over1(server, "127.66.4.1", [ask(keys["good"], way)]) == {200: 1}
            assert over2(server, "127.66.4.2", [ask(keys["good"], way)]) == {200: 1}
        log = server.process.log(1 << 24)
        assert log.count("\n") > 100 and "/stream/live" in log, log[-2000:]
        assert secrets_in(log, keys) == 0, log[-2000:]


def test_bad_tokens(row, keys):
    """Every kind of bad token, in each place for a token, over HTTP/1.1 and HTTP/2, from eight addresses."""
    each = count(1000)
    bad = [text for name, text in keys["bad"].items() if name != "too long"]
    kinds = [ask(text, way) for text in bad for way in range(3)]

    def flood(victim, client: int) -> Counter:
        requests = list(itertools.islice(itertools.cycle(kinds), each))
        return (over1, over2)[client % 2](victim, f"127.66.4.{client + 1}", requests)

    def act(victim):
        with ThreadPoolExecutor(CLIENTS) as threads:
            found = sum(threads.map(lambda client: flood(victim, client), range(CLIENTS)), Counter())
        long = sum(
            (over1(victim, "127.66.4.100", [ask(keys["bad"]["too long"], way)]) for way in range(3)), Counter()
        )
        log = victim.process.log(1 << 24)
        return {
            "refused": found[401],
            "answered": found.total(),
            "too_long": long[431],
            "log_lines": log.count("\n"),
            "tokens_in_log": secrets_in(log, keys),
        }

    told = row.run(
        act,
        *servers_keys(keys),
        servers=("h3cast",),
        viewer={"token": keys["good"]},
        gap=2,
        connect=2,
        above=32 * MIB,
        cpu=CPU * each * CLIENTS,
    )
    assert told["refused"] == told["answered"] == each * CLIENTS and told["too_long"] == 3, told
    assert told["log_lines"] <= LINES and told["tokens_in_log"] == 0, told
