"""What handlers may answer, right and wrong, to libcurl over HTTP/3: one connection carries all of it."""

import io

import pycurl
import pytest
from clients import SECONDS, parse_headers
from server import Server

FORBIDDEN = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "named"]
STRIPPED = {*FORBIDDEN, "x-one", "x-two"}


class Connection:
    """One connection, for one request after the other."""

    def __init__(self, server: Server) -> None:
        self._base = server.base
        self._cacert = server.cacert
        self._curl = pycurl.Curl()

    def __enter__(self) -> "Connection":
        self.get("/")
        return self

    def __exit__(self, *_: object) -> None:
        self._curl.close()

    def get(self, path: str, upload: bytes | None = None, fields: tuple[str, ...] = ()) -> tuple[int, str, bytes]:
        """The status, all heads and the body. libcurl raises if the response did not end cleanly."""
        curl, dump, body = self._curl, io.BytesIO(), io.BytesIO()
        curl.reset()
        curl.setopt(pycurl.URL, self._base + path)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_3ONLY)
        curl.setopt(pycurl.CAINFO, self._cacert)
        curl.setopt(pycurl.TIMEOUT, SECONDS)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.HEADERFUNCTION, dump.write)
        curl.setopt(pycurl.WRITEFUNCTION, body.write)
        curl.setopt(pycurl.HTTPHEADER, list(fields))
        if upload is not None:
            curl.setopt(pycurl.UPLOAD, 1)
            curl.setopt(pycurl.CUSTOMREQUEST, "POST")
            curl.setopt(pycurl.INFILESIZE, len(upload))
            curl.setopt(pycurl.READDATA, io.BytesIO(upload))
        curl.perform()
        return curl.getinfo(pycurl.RESPONSE_CODE), dump.getvalue().decode(), body.getvalue()

    def assert_alive(self) -> None:
        """The next request is answered, on the same connection."""
        status, _, body = self.get("/")
        assert (status, body) == (200, b"hello\n")
        assert self._curl.getinfo(pycurl.NUM_CONNECTS) == 0


@pytest.fixture(scope="module")
def wrong():
    with Server(parity=True) as server:
        yield server


@pytest.fixture
def connection(wrong):
    with Connection(wrong) as connection:
        yield connection


def test_fields_that_speak_of_the_connection_do_not_end_it(connection):
    for name in FORBIDDEN:
        status, dump, body = connection.get(f"/forbidden/{name}")
        assert (status, body) == (200, b"a body")
        assert not STRIPPED & parse_headers(dump).keys(), dump
        connection.assert_alive()
        status, dump, body = connection.get(f"/trailers/{name}")
        assert (status, body) == (200, b"before the trailers")
        # libcurl hands trailers to the same callback.
        assert "x-sum: 1" in dump and not any(f"\n{field}:" in dump for field in STRIPPED), dump
        connection.assert_alive()


@pytest.mark.parametrize("path", ["/length/7/streamed", "/length/3/streamed", "/length/7/sized", "/failing"])
def test_a_body_of_another_length_is_an_error_of_one_request(connection, path):
    with pytest.raises(pycurl.error):
        connection.get(path)
    connection.assert_alive()


def test_early_hints_come_before_the_answer(connection):
    status, dump, body = connection.get("/hints")
    assert (status, body) == (200, b"after hints")
    early, last = dump.replace("\r\n", "\n").strip().split("\n\n")
    assert early.startswith("HTTP/3 103") and "link: </style.css>" in early and "keep-alive" not in early
    assert last.startswith("HTTP/3 200")
    connection.assert_alive()


def test_a_body_that_is_expected_is_asked_for(connection):
    status, dump, body = connection.get("/collected", b"12345", ("expect: 100-continue",))
    assert (status, body) == (200, b"5"), dump
    connection.assert_alive()
