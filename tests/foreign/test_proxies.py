"""Real proxies in front of the server: nginx and Caddy with the configurations of docs/load-balancing."""

import contextlib
import http.client
import json
import pathlib
import queue
import re
import socket
import ssl
import subprocess
import sys
import threading
import time

import pycurl
import pytest
from certificates import self_signed
from server import ROOT, Server, free_port

CONFIGURATIONS = ROOT / "docs/load-balancing"
CADDY = pathlib.Path(sys.executable).parent / "caddy"
NAME = "cast.example"
# Not trusted, as the proxies at 127.0.0.1 are.
CLIENT = "127.0.0.2"
TRUST = ["--trust-proxy", "127.0.0.1,::1"]
SECRET = "a-secret-of-some-length"
TOKEN = {"Authorization": f"Bearer {SECRET}"}


class Behind:
    """A server behind a proxy."""

    def __init__(self, server: Server, port: int) -> None:
        self.server, self.port = server, port
        self.authority = f"{NAME}:{port}"

    def connect(self, timeout: float = 20) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout)
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=timeout, source_address=(CLIENT, 0))
        connection.sock = context.wrap_socket(raw, server_hostname=NAME)
        return connection

    def send(
        self, method: str, path: str, headers: dict = {}, body=None, timeout: float = 20
    ) -> http.client.HTTPResponse:
        connection = self.connect(timeout)
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(method, path, body, {"Host": self.authority} | headers, encode_chunked=chunked)
        response = connection.getresponse()
        # It closes with its response.
        response.connection = connection
        return response


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate for the name, and its key."""
    folder = tmp_path_factory.mktemp("pair")
    self_signed(NAME, folder / "cert.pem", folder / "key.pem")
    return folder


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, f"the configuration has no {old!r}"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def nginx(configuration: str, folder: pathlib.Path, pair: pathlib.Path, at: dict[str, str], port: int):
    text = (CONFIGURATIONS / configuration).read_text()
    text = replaced(text, ("listen 443", f"listen 127.0.0.1:{port}"), *at.items())
    text = text.replace("/etc/ssl/cast.example", str(pair))
    paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in paths)
    # The one of the configuration, or none.
    log = "" if "access_log" in text else "access_log off;"
    text = text.replace("/var/log/nginx", str(folder)).replace("http {", f"http {{ {log} {temporary}")
    # Also for root, who would have workers of another user.
    (folder / "nginx.conf").write_text(f"daemon off; worker_processes 1; pid {folder}/pid;\n{text}")
    with running(["/usr/sbin/nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")], folder, port):
        yield


@contextlib.contextmanager
def caddy(configuration: str, folder: pathlib.Path, pair: pathlib.Path, at: dict[str, str], port: int):
    text = (CONFIGURATIONS / configuration).read_text()
    site = f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {pair}/cert.pem {pair}/key.pem"
    text = replaced(text, (f"\n{NAME} {{", f"\n{site}"), *at.items())
    text = "{\n\tadmin off\n\tauto_https disable_redirects\n\tpersist_config off\n\tgrace_period 1s\n}\n" + text
    (folder / "Caddyfile").write_text(text)
    command = [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with running(command, folder, port):
        yield


@contextlib.contextmanager
def running(command: list[str], folder: pathlib.Path, port: int):
    """Runs a proxy from when it listens; every failure shows what it wrote."""
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with open(folder / "log", "w+") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=home)
        try:
            end = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                said = (folder / "log").read_text()
                assert child.poll() is None and time.monotonic() < end, f"{command} does not listen\n{said}"
                time.sleep(0.02)
            yield
        finally:
            child.terminate()
            child.wait(timeout=15)


@contextlib.contextmanager
def behind(kind: str, pair: pathlib.Path, folder: pathlib.Path, *arguments: str, trust: bool = True, changes=()):
    """The program behind a proxy of that kind, as its configuration says that it is to be started."""
    flags = {
        "nginx-http.conf": [],
        "nginx-proxy-protocol.conf": ["--proxy-protocol", "tls"],
        "Caddyfile": [],
        "Caddyfile.proxy-protocol": ["--proxy-protocol", "http"],
    }[kind]
    port = free_port()
    if "--proxy-protocol" in flags:
        # It says nothing of HTTPS, and the server's certificate here is for localhost.
        flags += ["--allow-origin", f"https://{NAME}:{port}"]
    with Server(*(TRUST + flags if trust else []), "--log", "debug", *arguments) as server:
        edge = {"10.0.0.11:4433": f"127.0.0.1:{server.port}"}
        at = edge if kind == "nginx-proxy-protocol.conf" else {"127.0.0.1:8080": f"127.0.0.1:{server.http_port}"}
        at |= dict(changes)
        proxy = caddy if kind.startswith("Caddy") else nginx
        with proxy(kind, folder, pair, at, port):
            yield Behind(server, port)


KINDS = ["nginx-http.conf", "nginx-proxy-protocol.conf", "Caddyfile", "Caddyfile.proxy-protocol"]


@pytest.fixture(params=KINDS)
def proxied(request, pair, tmp_path):
    # Responses then have the id of their request.
    log = ["--access-log", str(tmp_path / "access.log")]
    with behind(request.param, pair, tmp_path, "-", "chat=publish", "--publish-token", SECRET, *log) as running:
        running.kind = request.param
        yield running


def test_chunks_addresses_and_origins_through_a_proxy(proxied):
    # Chunks arrive at once, however a viewer reads: the next one is made when the last one has come.
    raw = proxied.send("GET", "/stream?from=start")
    events = proxied.send("GET", "/stream?from=start", {"Accept": "text/event-stream"})
    assert (raw.status, events.status) == (200, 200), raw.read()
    for number in range(3):
        proxied.server.write(f"line {number}")
        assert raw.readline() == b"line %d\n" % number
        while not (line := events.readline()).startswith(b"data: line"):
            assert line, "the events ended"
        assert line == b"data: line %d\n" % number

    # So do pieces of a publication, long before it ends.
    viewer = proxied.send("GET", "/stream/chat?from=now")
    seen = threading.Event()

    def pieces():
        yield b"first"
        assert seen.wait(20)
        yield b"second"

    answer = []
    publishing = threading.Thread(
        target=lambda: answer.append(proxied.send("POST", "/stream/chat", TOKEN, pieces())), daemon=True
    )
    publishing.start()
    assert viewer.read(5) == b"first"
    seen.set()
    publishing.join(20)
    assert json.load(answer[0])["chunks"] == 2
    assert viewer.read(6) == b"second"

    # Pages of the name that clients use may publish, and no others.
    own = {"Origin": f"https://{proxied.authority}"}
    assert proxied.send("POST", "/stream/chat", TOKEN | own, b"third").status == 200
    assert proxied.send("POST", "/stream/chat", TOKEN | {"Origin": "https://evil.example"}, b"no").status == 403

    # A client cannot invent its address.
    spoofed = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    assert proxied.send("GET", "/healthz?spoofed", spoofed).status == 200
    log = proxied.server.logged('path="/healthz"')
    assert "6.6.6.6" not in log
    assert re.search(f'path="/healthz" client={re.escape(CLIENT)}:', log), log

    # Nor the id of its request.
    ids = [proxied.send("GET", "/healthz", {"X-Request-Id": "mine"}).getheader("X-Request-Id") for _ in range(2)]
    assert all(ids) and "mine" not in ids and ids[0] != ids[1], ids

    info = json.load(proxied.send("GET", "/info"))
    if proxied.kind in ("nginx-http.conf", "Caddyfile"):
        assert {feed["url"].partition("/stream")[0] for feed in info["feeds"]} == {f"https://{proxied.authority}"}
        # What a browser finds there is the proxy's own HTTP/3, without WebTransport.
        assert "webtransport" not in info


@pytest.mark.parametrize("kind", ["Caddyfile", "nginx-http.conf"])
def test_a_proxy_that_is_not_trusted(kind, pair, tmp_path):
    with behind(kind, pair, tmp_path, trust=False) as proxied:
        response = proxied.send("GET", "/healthz", {"X-Forwarded-For": "6.6.6.6"})
        # nginx names localhost, and is a client of this machine then.
        assert response.status == {"Caddyfile": 421, "nginx-http.conf": 200}[kind]
        if kind == "Caddyfile":
            assert "the server must trust it (`trust-proxy`" in json.load(response)["detail"]
        else:
            proxied.server.logged('path="/healthz" client=127[.]0[.]0[.]1:')


class Transfer:
    """A request of libcurl's over HTTP/2 or HTTP/3, from the client's address, that runs in a thread."""

    VERSIONS = {"2": pycurl.CURL_HTTP_VERSION_2_0, "3": pycurl.CURL_HTTP_VERSION_3ONLY}

    def __init__(self, proxied: Behind, version: str, path: str, *fields: str, uploads: bool = False) -> None:
        self.body, self._received = b"", queue.Queue()
        # What is to be sent; empty for the end.
        self.pieces: queue.Queue[bytes] = queue.Queue()
        self._left, self._paused = threading.Event(), False
        self._curl = curl = pycurl.Curl()
        curl.setopt(pycurl.URL, f"https://{proxied.authority}{path}")
        curl.setopt(pycurl.RESOLVE, [f"{proxied.authority}:127.0.0.1"])
        curl.setopt(pycurl.INTERFACE, f"host!{CLIENT}")
        curl.setopt(pycurl.HTTP_VERSION, self.VERSIONS[version])
        curl.setopt(pycurl.SSL_VERIFYPEER, 0)
        curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.TIMEOUT, 40)
        curl.setopt(pycurl.HTTPHEADER, list(fields))
        curl.setopt(pycurl.WRITEFUNCTION, lambda piece: self._received.put(bytes(piece)))
        curl.setopt(pycurl.NOPROGRESS, 0)
        curl.setopt(pycurl.XFERINFOFUNCTION, self._progress)
        if uploads:
            curl.setopt(pycurl.UPLOAD, 1)
            curl.setopt(pycurl.CUSTOMREQUEST, "POST")
            curl.setopt(pycurl.READFUNCTION, self._read)
        self.ended: queue.Queue[tuple[str, int]] = queue.Queue()
        self._version = version
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _read(self, _size: int) -> bytes | int:
        try:
            return self.pieces.get_nowait()
        except queue.Empty:
            self._paused = True
            return pycurl.READFUNC_PAUSE

    def _progress(self, *_: int) -> int:
        if self._paused and not self.pieces.empty():
            self._paused = False
            self._curl.pause(pycurl.PAUSE_CONT)
        return int(self._left.is_set())

    def _run(self) -> None:
        error = ""
        try:
            self._curl.perform()
        except pycurl.error as raised:
            error = str(raised)
        version = self._curl.getinfo(pycurl.INFO_HTTP_VERSION)
        wanted = {"2": pycurl.CURL_HTTP_VERSION_2_0, "3": pycurl.CURL_HTTP_VERSION_3}[self._version]
        if not error and version != wanted:
            error = f"it came over {version}"
        self.ended.put((error, self._curl.getinfo(pycurl.RESPONSE_CODE)))
        self._received.put(None)

    def until(self, end: bytes) -> bytes:
        """Waits until the body ends so."""
        while True:
            piece = self._received.get(timeout=20)
            assert piece is not None, f"{self.ended.get()} {self.body}"
            self.body += piece
            if self.body.endswith(end):
                return self.body

    def leave(self) -> None:
        self._left.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize(
    "kind, version",
    [(kind, "2") for kind in KINDS] + [("Caddyfile", "3"), ("Caddyfile.proxy-protocol", "3")],
)
def test_clients_of_http2_and_http3_through_a_proxy(kind, version, pair, tmp_path):
    with behind(kind, pair, tmp_path, "-", "chat=publish", "--publish-token", SECRET) as proxied:
        # Not until its head is there: over HTTP/2, nginx 1.22 sends that with the first bytes of the body.
        viewer = Transfer(proxied, version, "/stream?from=start")
        log = proxied.server.logged('path="/stream" client=')
        assert re.search(f'path="/stream" client={re.escape(CLIENT)}:', log), log
        for number in range(3):
            # The next one is made when the last one has come.
            proxied.server.write(f"line {number}")
            viewer.until(b"line %d\n" % number)
        reader = Transfer(proxied, version, "/stream/chat?from=start")
        publisher = Transfer(proxied, version, "/stream/chat", f"Authorization: Bearer {SECRET}", uploads=True)
        for piece in [b"first", b"second"]:
            publisher.pieces.put(piece)
            reader.until(piece)
        publisher.pieces.put(b"")
        assert publisher.ended.get(timeout=20) == ("", 200), publisher.body
        for transfer in [viewer, reader]:
            transfer.leave()


def test_a_feed_asks_nginx_not_to_buffer(pair, tmp_path):
    """By X-Accel-Buffering alone: with nginx's default, a chunk would wait for its buffer."""
    default = [("proxy_buffering off;", "proxy_buffering on;")]
    ignored = [("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;")]
    for changes, at_once in [(default, True), (ignored, False)]:
        with behind("nginx-http.conf", pair, tmp_path, "-", changes=changes) as proxied:
            proxied.server.write("line")
            try:
                viewer = proxied.send("GET", "/stream?from=start", timeout=20 if at_once else 1)
                assert viewer.readline() == b"line\n"
                assert at_once, "nginx buffers nothing, so that this shows nothing"
            except TimeoutError:
                assert not at_once
