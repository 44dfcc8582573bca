"""Who may read and write: a file of tokens, a file of keys, and keys at a URL, each changed while the server runs."""

import base64
import json
import os
import pathlib
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from certificates import Authority
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# Longer than any test.
FOR_GOOD = 7200.0


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """Signs JSON web tokens (EdDSA)."""

    def __init__(self, name: str) -> None:
        self.name, self._key = name, Ed25519PrivateKey.generate()

    def jwk(self) -> dict:
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.name, "x": encoded(public)}

    def token(self, seconds: float = FOR_GOOD) -> str:
        """Reads every feed, for so long."""
        claims = {"sub": self.name, "exp": time.time() + seconds, "read": ["*"]}
        header = {"alg": "EdDSA", "kid": self.name}
        signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{encoded(self._key.sign(signed.encode()))}"


def jwks(keys: dict[str, Key]) -> bytes:
    return json.dumps({"keys": [key.jwk() for key in keys.values()]}).encode()


class Tokens:
    """Static tokens and keys in files. What stays is never touched, only what stands around it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._tokens, self._jwks = folder / "tokens", folder / "jwks.json"
        self._lines = {"publisher": "read=notes publish=chaos,notes name=publisher", "viewer": "read=* name=viewer"}
        self.key = Key("file-for-good")
        self._keys, self._changes = {self.key.name: self.key}, 0
        self.publisher, self.viewer = "the-publisher-s-token", "the-viewer-s-own-token"
        self._secrets = {"publisher": self.publisher, "viewer": self.viewer}
        self._write()
        self.flags = [f"--tokens={self._tokens}", f"--auth={self._jwks}"]

    def add(self, name: str, secret: str) -> None:
        self._lines[name], self._secrets[name] = f"read=* name={name}", secret
        self._write()

    def withdraw(self, name: str) -> None:
        del self._lines[name]
        self._write()

    def break_them(self) -> None:
        """Half of a line, and half of a JSON text."""
        replace(self._tokens, b"read=chaos")
        replace(self._jwks, b'{"keys": [')

    def add_key(self, key: Key) -> None:
        self._keys[key.name] = key
        self._write()

    def withdraw_key(self, key: Key) -> None:
        del self._keys[key.name]
        self._write()

    def _write(self) -> None:
        self._changes += 1
        lines = [f"{rights} {self._secrets[name]}" for name, rights in self._lines.items()]
        # In another order each time: a line is not its place.
        lines = lines[:: -1 if self._changes % 2 else 1]
        replace(self._tokens, "\n".join([f"# change {self._changes}", *lines, ""]).encode())
        replace(self._jwks, jwks(self._keys))


def replace(path: pathlib.Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}")
    new.write_bytes(content)
    new.chmod(0o600)
    os.replace(new, path)


class Served:
    """Keys at an https URL, as a login has them; `down` while it answers nothing but 503."""

    def __init__(self, folder: pathlib.Path, authority: Authority) -> None:
        self.key = Key("served-for-good")
        self.keys, self.down, self.asked = {self.key.name: self.key}, False, 0
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked += 1
                body = jwks(served.keys)
                self.send_response(503 if served.down else 200)
                self.send_header("content-type", "application/jwk-set+json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        folder.mkdir()
        authority.certify(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{self._server.server_address[1]}/jwks.json"
        self.flags = [f"--auth={url}", f"--auth-ca={folder}/ca.pem"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
