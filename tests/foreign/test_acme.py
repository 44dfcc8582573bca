"""Certificates from a certificate authority that speaks ACME: Pebble, on this machine."""

import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import pycurl
import pytest
from cryptography import x509
from pebble import Pebble
from server import H3CAST, TARGET, free_port

NAMES = ["cast.example.org", "www.example.org"]


class Issued:
    """A server whose certificate an authority issues."""

    def __init__(self, pebble: Pebble, certs: pathlib.Path, tls: int, *arguments: str) -> None:
        self.tls, self.pebble = tls, pebble
        self.log = tempfile.NamedTemporaryFile("w+")
        command = [H3CAST, "serve", "demo", "--count", "0", "--interval", "20ms"]
        command += ["--listen", f"127.0.0.1:{tls}", "--http", "off", "--certs", str(certs)]
        command += ["--acme", ",".join(NAMES), "--acme-directory", pebble.directory, "--acme-ca", str(pebble.ca)]
        self.child = subprocess.Popen(
            command + list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            env=os.environ | {"XDG_RUNTIME_DIR": str(TARGET / "run")},
        )

    def text(self) -> str:
        return pathlib.Path(self.log.name).read_text()

    def logged(self, pattern: str, times: int = 1, seconds: float = 120) -> str:
        """Waits until that many lines of the log match."""
        end = time.monotonic() + seconds
        while len(re.findall(pattern, log := self.text())) < times:
            assert time.monotonic() < end, f"not {times} times {pattern!r} in {seconds} s\n{log}"
            assert self.child.poll() is None, f"the server has ended\n{log}"
            time.sleep(0.02)
        return log

    def served(self, times: int = 1) -> str:
        return self.logged(r"the certificate was renewed", times)

    def certificate(self, cafile: pathlib.Path | None, protocols: list[str] = ["http/1.1"]) -> x509.Certificate:
        """The one that a client gets, which must trust it if there is a file of CA certificates."""
        context = ssl.create_default_context(cafile=cafile)
        if cafile is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(protocols)
        with socket.create_connection(("127.0.0.1", self.tls), timeout=15) as raw:
            with context.wrap_socket(raw, server_hostname=NAMES[0]) as secured:
                return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True))

    def fetched(self, version: int, cafile: pathlib.Path, path: str) -> bytes:
        """With curl, which trusts that CA alone."""
        curl, chunks = pycurl.Curl(), []
        curl.setopt(pycurl.URL, f"https://{NAMES[1]}:{self.tls}{path}")
        curl.setopt(pycurl.RESOLVE, [f"{NAMES[1]}:{self.tls}:127.0.0.1"])
        curl.setopt(pycurl.CAINFO, str(cafile))
        curl.setopt(pycurl.HTTP_VERSION, version)
        curl.setopt(pycurl.TIMEOUT, 90)
        curl.setopt(pycurl.WRITEFUNCTION, chunks.append)
        curl.perform()
        assert curl.getinfo(pycurl.RESPONSE_CODE) == 200
        curl.close()
        return b"".join(chunks)

    def stop(self) -> str:
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(timeout=20) == 0, self.text()
        return self.text()

    def __enter__(self) -> "Issued":
        return self

    def __exit__(self, kind, *_: object) -> None:
        if kind is None and self.child.poll() is None:
            self.stop()
        elif self.child.poll() is None:
            self.child.kill()
            self.child.wait(timeout=15)


@pytest.fixture
def ports() -> tuple[int, int]:
    """Where names are validated: TLS, and plain HTTP."""
    return free_port(), free_port()


@pytest.fixture
def pebble(tmp_path, ports):
    with Pebble(tmp_path, *ports) as running:
        yield running


def files(certs: pathlib.Path) -> dict[str, int]:
    """Each file, and who may do what with it."""
    return {path.name: path.stat().st_mode & 0o777 for path in certs.rglob("*") if path.is_file()}


def stored(certs: pathlib.Path) -> pathlib.Path:
    """The file of the certificate and its key."""
    (file,) = certs.rglob(f"{NAMES[0]}-*.pem")
    return file


def test_a_certificate_that_clients_trust(pebble, ports, tmp_path):
    certs = tmp_path / "certs"
    with Issued(pebble, certs, ports[0]) as server:
        log = server.served()
        root = pebble.root()
        names = server.certificate(root).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.DNSName) == NAMES
        for version in (pycurl.CURL_HTTP_VERSION_1_1, pycurl.CURL_HTTP_VERSION_2_0, pycurl.CURL_HTTP_VERSION_3ONLY):
            assert server.fetched(version, root, "/healthz") == b"ok\n"
        # A client that only knows the protocol of challenges too is as any other.
        server.certificate(root, ["acme-tls/1", "http/1.1"])
        # Nothing answers challenges that nobody has been told of.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.certificate(None, ["acme-tls/1"])
        assert "panicked" not in log
        server.stop()
    assert files(certs) == {".lock": 0o644, "account.json": 0o600, stored(certs).name: 0o600}

    # It is there at the next start, at which nobody is asked for another.
    issued = pebble.issued()
    assert issued == 1
    with Issued(pebble, certs, ports[0]) as server:
        server.logged("access", 0)
        for _ in range(500):
            with contextlib.suppress(OSError):
                server.certificate(root)
                break
            time.sleep(0.02)
        server.certificate(root)
    assert pebble.issued() == issued


def test_over_plain_http(pebble, ports, tmp_path):
    redirect = ["--redirect", f"127.0.0.1:{ports[1]}", "--acme-challenge", "http-01"]
    # Not where the authority would look for TLS.
    with Issued(pebble, tmp_path / "certs", free_port(), *redirect) as server:
        server.served()
        server.certificate(pebble.root())
        for path, host, expected in [
            ("/stream?from=start", NAMES[0], (308, f"https://{NAMES[0]}:{server.tls}/stream?from=start")),
            ("/", f"{NAMES[0]}:80", (308, f"https://{NAMES[0]}:{server.tls}/")),
            ("/.well-known/acme-challenge/unknown", "localhost", (404, None)),
            ("*", NAMES[0], (308, f"https://{NAMES[0]}:{server.tls}/")),
        ]:
            connection = http.client.HTTPConnection("127.0.0.1", ports[1], timeout=15)
            connection.request("OPTIONS" if path == "*" else "GET", path, headers={"Host": host})
            response = connection.getresponse()
            response.read()
            assert (response.status, response.headers.get("Location")) == expected, path
            connection.close()
        # Without a name, not to one of this machine; and no head that is longer than any other listener takes.
        for head, expected in [
            ("GET / HTTP/1.0\r\n\r\n", b" 400 "),
            (f"GET / HTTP/1.1\r\nHost: {NAMES[0]}\r\nX: {'x' * 20000}\r\n\r\n", b" 431 "),
        ]:
            with socket.create_connection(("127.0.0.1", ports[1]), timeout=15) as raw:
                raw.sendall(head.encode())
                assert expected in raw.recv(4096).split(b"\r\n")[0]


def test_renewed_while_viewers_stay(tmp_path, ports):
    # Renewed after 24 s: a machine that has much to do, and a try that fails and is made again after 5 s, have 12 s.
    chunks = 1500
    with Pebble(tmp_path, *ports, seconds=36) as pebble:
        with Issued(pebble, tmp_path / "certs", ports[0]) as server:
            server.served()
            root = pebble.root()
            first = server.certificate(root)
            wanted = hashlib.sha256(b"".join(b"data chunk #%d\n" % seq for seq in range(chunks))).hexdigest()
            seen, failures, done = {}, [], threading.Event()

            def view(version: int) -> None:
                body = server.fetched(version, root, f"/stream?limit={chunks}")
                seen[version] = hashlib.sha256(body).hexdigest()

            def connect() -> None:
                while not done.is_set():
                    try:
                        server.certificate(root)
                    except (ssl.SSLError, OSError) as error:
                        failures.append(error)
                    time.sleep(0.05)

            versions = (pycurl.CURL_HTTP_VERSION_1_1, pycurl.CURL_HTTP_VERSION_2_0, pycurl.CURL_HTTP_VERSION_3ONLY)
            viewers = [threading.Thread(target=view, args=[version], daemon=True) for version in versions]
            newcomers = threading.Thread(target=connect, daemon=True)
            for thread in (*viewers, newcomers):
                thread.start()
            server.served(times=2)
            assert server.certificate(root).serial_number != first.serial_number
            for thread in viewers:
                thread.join(timeout=90)
            done.set()
            newcomers.join(timeout=15)
            # Each viewer has everything, and no client was ever shown a certificate that it could not trust.
            assert seen == dict.fromkeys(versions, wanted)
            assert failures == []
            # The account is the same one.
            assert server.text().count("registered with") == 1


def test_an_authority_that_is_not_there_yet(tmp_path, ports):
    pebble = Pebble(tmp_path, *ports)
    with Issued(pebble, tmp_path / "certs", ports[0]) as server:
        server.logged(r"no certificate for .* cannot connect to localhost")
        # Until there is one, clients that do not mind whose it is are served.
        stand_in = server.certificate(None)
        assert stand_in.issuer == stand_in.subject
        failures = re.compile(rb"^h3cast_acme_failures (\d+)$", re.MULTILINE)
        text = server.fetched(pycurl.CURL_HTTP_VERSION_1_1, stored(tmp_path / "certs"), "/metrics")
        assert int(failures.search(text)[1]) >= 1
        with pebble:
            server.served()
            server.certificate(pebble.root())
            server.logged("has issued a certificate")
            text = server.fetched(pycurl.CURL_HTTP_VERSION_1_1, pebble.root(), "/metrics")
            assert int(failures.search(text)[1]) == 0


def test_an_authority_that_has_forgotten_the_account(tmp_path, ports):
    certs = tmp_path / "certs"
    with Pebble(tmp_path, *ports) as pebble:
        with Issued(pebble, certs, ports[0]) as server:
            server.served()
    stored(certs).unlink()
    with pebble:
        with Issued(pebble, certs, ports[0]) as server:
            server.served()
            assert server.text().count("registered with") == 1
    # What was there is not lost.
    assert "account.json.old" in files(certs)


def test_a_name_that_does_not_lead_here(pebble, tmp_path):
    # Nothing listens where the authority looks.
    with Issued(pebble, tmp_path / "certs", free_port()) as server:
        # It may refuse nonces before that.
        log = server.logged(r"no certificate for .* port 443 must lead to this server's TLS port, over TCP again_in=60s")
        assert NAMES[0] in log
        assert pebble.issued() == 0


def test_two_servers_of_one_folder(pebble, ports, tmp_path):
    certs = tmp_path / "certs"
    with Issued(pebble, certs, ports[0]) as one, Issued(pebble, certs, free_port()) as other:
        for server in (one, other):
            server.served()
        assert one.certificate(pebble.root()) == other.certificate(pebble.root())
        logs = one.text() + other.text()
    assert pebble.issued() == 1, logs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--acme", "localhost"], "not a public DNS name"),
        (["--acme", "192.0.2.1"], "it is an address"),
        (["--acme", "*.example.org"], "a wildcard needs a record in the DNS"),
        (["--acme", "a_b.example.org"], "not a valid host name"),
        (["--acme", ""], "not a valid host name"),
        (["--acme-ca", "/dev/null"], "has no effect without --acme"),
        (["--acme", "example.org", "--acme-directory", "http://ca.example/dir"], "write the https URL"),
        (["--acme", "example.org", "--acme-contact", "nobody"], "write an e-mail address"),
        (["--acme", "example.org", "--acme-challenge", "http-01"], "--redirect 0.0.0.0:80"),
        (["--acme", "example.org", "--cert", "a", "--key", "b"], "cannot be used with"),
    ],
)
def test_what_cannot_be_had_is_told_at_once(arguments, expected, tmp_path):
    command = [H3CAST, "serve", "demo", "--listen", "127.0.0.1:0", "--http", "off", "--certs", str(tmp_path)]
    ended = subprocess.run(command + arguments, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2, ended.stderr
    assert expected in ended.stderr, ended.stderr
    assert list(tmp_path.iterdir()) == []
