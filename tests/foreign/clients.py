"""Foreign HTTP clients behind one face: libcurl over HTTP/3, stock curl over HTTP/2 and HTTP/1.1."""

import dataclasses
import io
import os
import queue
import select
import subprocess
import threading
import time
from collections.abc import Iterator

import pycurl
from server import Server

SECONDS = 20


@dataclasses.dataclass
class Response:
    status: int
    version: str
    headers: dict[str, str]
    body: bytes
    # When each piece of the body came, in seconds, and the piece.
    pieces: list[tuple[float, bytes]] = dataclasses.field(default_factory=list)


def parse_headers(text: str) -> dict[str, str]:
    """The fields of the last response in a header dump."""
    last = text.replace("\r\n", "\n").strip().split("\n\n")[-1]
    fields = (line.split(":", 1) for line in last.split("\n")[1:])
    return {name.strip().lower(): value.strip() for name, value in fields}


class LibCurl:
    """libcurl with ngtcp2 and nghttp3, told to use HTTP/3 and nothing else."""

    version = "3"

    def __init__(self, server: Server) -> None:
        self.base = server.base
        self._cacert = server.cacert

    def _handle(self, path: str, method: str, headers: dict[str, str]) -> tuple[pycurl.Curl, io.BytesIO]:
        dump = io.BytesIO()
        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, self.base + path)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_3ONLY)
        curl.setopt(pycurl.CAINFO, self._cacert)
        curl.setopt(pycurl.TIMEOUT, SECONDS)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
        curl.setopt(pycurl.HEADERFUNCTION, dump.write)
        if method == "HEAD":
            curl.setopt(pycurl.NOBODY, 1)
        elif method != "GET":
            curl.setopt(pycurl.CUSTOMREQUEST, method)
        return curl, dump

    def request(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Response:
        """One request to its end. libcurl raises if the response did not end cleanly."""
        curl, dump = self._handle(path, method, headers or {})
        pieces: list[tuple[float, bytes]] = []
        curl.setopt(pycurl.WRITEFUNCTION, lambda piece: pieces.append((time.monotonic(), bytes(piece))))
        try:
            curl.perform()
            assert curl.getinfo(pycurl.INFO_HTTP_VERSION) == pycurl.CURL_HTTP_VERSION_3
            status = curl.getinfo(pycurl.RESPONSE_CODE)
        finally:
            curl.close()
        body = b"".join(piece for _, piece in pieces)
        return Response(status, "3", parse_headers(dump.getvalue().decode()), body, pieces)

    def stream(self, path: str) -> Iterator[bytes]:
        """The pieces of the body as they come; closing the iterator aborts the transfer."""
        pieces: queue.Queue[bytes | None | Exception] = queue.Queue()
        aborted = threading.Event()
        curl, _ = self._handle(path, "GET", {})
        curl.setopt(pycurl.WRITEFUNCTION, lambda piece: pieces.put(bytes(piece)))
        curl.setopt(pycurl.NOPROGRESS, 0)
        curl.setopt(pycurl.XFERINFOFUNCTION, lambda *_: int(aborted.is_set()))

        def run() -> None:
            try:
                curl.perform()
                pieces.put(None)
            except pycurl.error as error:
                pieces.put(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            while (piece := pieces.get(timeout=SECONDS)) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            aborted.set()
            thread.join(SECONDS)
            assert not thread.is_alive()
            curl.close()


class StockCurl:
    """The system's own curl, over TCP."""

    def __init__(self, server: Server, version: str, tls: bool = True) -> None:
        self.version = version
        self.base = server.base if tls else server.plain
        self._options = ["--silent", "--show-error", "--max-time", str(SECONDS), "--path-as-is"]
        self._options += ["--cacert", server.cacert, "--http2" if version == "2" else "--http1.1"]

    def request(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Response:
        method_options = ["--head", "--output", "/dev/null"] if method == "HEAD" else ["--request", method]
        fields = [word for name, value in (headers or {}).items() for word in ("--header", f"{name}: {value}")]
        how = "%{stderr}\n%{http_version} %{http_code}"
        done = subprocess.run(
            ["curl", *self._options, *method_options, *fields]
            + ["--dump-header", "/dev/stderr", "--write-out", how, self.base + path],
            capture_output=True,
            timeout=SECONDS + 5,
        )
        printed = done.stderr.decode()
        assert done.returncode == 0, f"curl ended with {done.returncode}: {printed}"
        dump, _, last = printed.rpartition("\n")
        version, status = last.split()
        assert version == self.version
        return Response(int(status), version, parse_headers(dump), done.stdout)

    def stream(self, path: str) -> Iterator[bytes]:
        command = ["curl", *self._options, "--no-buffer", self.base + path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            try:
                while True:
                    ready, _, _ = select.select([child.stdout], [], [], SECONDS)
                    assert ready, f"nothing came in {SECONDS} s"
                    piece = os.read(child.stdout.fileno(), 65536)
                    if not piece:
                        break
                    yield piece
                code = child.wait(SECONDS)
                assert code == 0, f"curl ended with {code}: {child.stderr.read().decode()}"
            finally:
                child.kill()


CLIENTS = {
    "http3": LibCurl,
    "http2": lambda server: StockCurl(server, "2"),
    "http1.1": lambda server: StockCurl(server, "1.1"),
    "plain-http1.1": lambda server: StockCurl(server, "1.1", tls=False),
}
