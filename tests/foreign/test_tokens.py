"""Tokens as PyJWT makes them, shown by curl over every version of HTTP, and in no log."""

import http.server
import json
import os
import pathlib
import threading
import time

import jwt
import pytest
from clients import CLIENTS
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from server import Server

SECRET = "a secret of more than thirty-two bytes"
KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": SECRET,
}


def jwk(name: str) -> dict:
    made = json.loads(jwt.get_algorithm_by_name(name).to_jwk(KEYS[name].public_key()))
    made.pop("key_ops", None)
    return made | {"kid": name, "use": "sig"}


def token(name: str, **claims: object) -> str:
    claims = {"exp": int(time.time()) + 600, "aud": "casts", "sub": "alice", "read": ["default"]} | claims
    return jwt.encode(claims, KEYS[name], name, headers={"kid": name})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder: pathlib.Path = tmp_path_factory.mktemp("keys")
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk(name) for name in KEYS if name != "HS256"]}))
    (folder / "secret").write_text(SECRET + "\n")
    os.chmod(folder / "secret", 0o600)
    with Server(
        "--auth", str(folder / "jwks.json"), "--auth-secret", str(folder / "secret"), "--auth-audience", "casts",
        "--log", "trace", "--interval", "1ms",
    ) as running:  # fmt: skip
        yield running


def test_every_algorithm_by_every_way_and_nothing_is_logged(guarded, demo):
    shown = []
    for client in (make(guarded) for make in CLIENTS.values()):
        assert client.request("/stream").status == 401
        for name in KEYS:
            made = token(name)
            shown.append(made)
            for path, headers in [
                ("/stream", {"Authorization": f"Bearer {made}"}),
                ("/stream", {"Cookie": f"h3cast_token={made}"}),
                (f"/stream?token={made}", {}),
            ]:
                response = client.request(path, headers=headers)
                assert response.status == 200, (client.version, name, headers, response.body)
                assert response.body == b"".join(demo)
        late = token("ES256", exp=int(time.time()) - 60)
        shown.append(late)
        for path, headers in [("/stream", {"Authorization": f"Bearer {late}"}), (f"/stream?token={late}", {})]:
            response = client.request(path, headers=headers)
            assert response.status == 401 and b"expired" in response.body
            assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            assert late.encode() not in response.body
        # What a status page has, for one who may see all of it.
        everything = token("EdDSA", read=["*"])
        shown.append(everything)
        for path in ["/info", "/feeds", "/metrics"]:
            response = client.request(path, headers={"Authorization": f"Bearer {everything}"})
            assert response.status == 200
            assert not any(one.encode() in response.body for one in shown)
    guarded._stderr.seek(0)
    log = guarded._stderr.read()
    assert "TRACE" in log
    for one in shown:
        # No part of it that would be of use, in text, in bytes, or in numbers.
        signature = one.rsplit(".", 1)[1]
        for part in (one, signature, signature[:20], signature[-20:], ", ".join(str(byte) for byte in signature[:12].encode())):
            assert part not in log


def test_keys_from_a_url_are_asked_for_when_they_change(demo):
    served = {"keys": [jwk("ES256")]}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(served).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as keys:
        threading.Thread(target=keys.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{keys.server_port}/jwks.json"
        with Server("--auth", url, "--auth-audience", "casts", "--interval", "1ms") as server:
            client = CLIENTS["http2"](server)
            get = lambda name: client.request("/stream", headers={"Authorization": f"Bearer {token(name)}"})  # noqa: E731
            assert get("ES256").body == b"".join(demo)
            assert asked == ["/jwks.json"]
            served["keys"].append(jwk("RS256"))
            # It is left alone for 10 s; then the first token of the new key has it asked.
            deadline = time.monotonic() + 20
            while (status := get("RS256").status) != 200 and time.monotonic() < deadline:
                assert status == 401
                time.sleep(0.5)
            assert status == 200 and len(asked) == 2
        keys.shutdown()
