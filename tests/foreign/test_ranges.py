"""A file's feed, read as a file: whole, in parts, and again after a cut (RFC 9110 §13 and §14)."""

import os

import pytest
from clients import CLIENTS
from server import Server

SIZE = 3_000_000


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "big.bin"
    path.write_bytes(os.urandom(SIZE))
    with Server(f"big=file:{path}", "demo") as running:
        yield running, path


@pytest.fixture(params=list(CLIENTS))
def client(request, served):
    return CLIENTS[request.param](served[0])


def test_whole(client, served):
    content = served[1].read_bytes()
    response = client.request("/stream/big")
    assert response.status == 200
    assert response.body == content
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-length"] == str(SIZE)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert client.request("/stream/big", "HEAD").headers["content-length"] == str(SIZE)


def test_what_is_missing(client, served):
    content = served[1].read_bytes()
    etag = client.request("/stream/big", "HEAD").headers["etag"]
    ranged = client.request("/stream/big", headers={"range": "bytes=2999000-", "if-range": etag})
    assert ranged.status == 206
    assert ranged.headers["content-range"] == f"bytes 2999000-{SIZE - 1}/{SIZE}"
    assert ranged.body == content[2999000:]
    middle = client.request("/stream/big", headers={"range": "bytes=5-9"})
    assert (middle.status, middle.body) == (206, content[5:10])
    behind = client.request("/stream/big", headers={"range": f"bytes={SIZE}-"})
    assert behind.status == 416
    assert behind.headers["content-range"] == f"bytes */{SIZE}"


def test_another_version_comes_whole(client):
    old = client.request("/stream/big", "HEAD").headers
    for version in ['"another"', f"W/{old['etag']}", "Sat, 01 Jan 2000 00:00:00 GMT"]:
        response = client.request("/stream/big", headers={"range": "bytes=5-9", "if-range": version})
        assert (response.status, len(response.body)) == (200, SIZE)
    same = client.request("/stream/big", headers={"range": "bytes=5-9", "if-range": old["last-modified"]})
    assert same.status == 206
    unchanged = client.request("/stream/big", headers={"if-none-match": old["etag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")


def test_what_is_no_range_is_as_if_it_were_not_there(client, served):
    content = served[1].read_bytes()
    for value in ["lines=1-2", "bytes=abc", "bytes=9-5", "bytes=-0", "bytes=0-0,-1", "bytes=+1-2", f"bytes=-{SIZE + 1}"]:
        response = client.request("/stream/big", headers={"range": value})
        assert (response.status, response.headers["content-length"]) == (200, str(SIZE)), value
    last = client.request("/stream/big", headers={"range": "bytes=-7"})
    assert (last.status, last.body) == (206, content[-7:])
    head = client.request("/stream/big", "HEAD", {"range": "bytes=5-9"})
    assert (head.status, head.headers["content-length"]) == (200, str(SIZE))
    unchanged = client.request("/stream/big", headers={"if-none-match": head.headers["etag"]})
    assert (unchanged.status, unchanged.headers.get("content-length")) == (304, None)
    behind = client.request("/stream/big", headers={"range": f"bytes={SIZE}-"})
    assert behind.headers["content-type"] == "application/problem+json"
    assert b"after the end" in behind.body
    other = client.request("/stream/big", headers={"if-match": '"another"'})
    assert (other.status, other.headers["content-type"]) == (412, "application/problem+json")


def test_other_ways_to_read_it_have_no_ranges(client):
    for path in ["/stream/big?limit=1", "/stream/big?format=frames", "/stream"]:
        response = client.request(path, headers={"range": "bytes=5-9"})
        assert response.status == 200
        assert response.headers["accept-ranges"] == "none"


def test_a_file_that_shrinks_does_not_look_whole(tmp_path):
    path = tmp_path / "shrinks"
    with open(path, "wb") as file:
        file.truncate(50_000_000)
    with Server(f"file:{path}") as running:
        for name in CLIENTS:
            pieces = CLIENTS[name](running).stream("/stream")
            next(pieces)
            os.truncate(path, 1000)
            with pytest.raises(Exception):
                for _ in pieces:
                    pass
            os.truncate(path, 50_000_000)


def test_a_file_that_grows_is_as_long_as_it_was(tmp_path):
    path = tmp_path / "grows"
    with open(path, "wb") as file:
        file.truncate(30_000_000)
    with Server(f"file:{path}") as running:
        for name in CLIENTS:
            size = path.stat().st_size
            pieces = CLIENTS[name](running).stream("/stream")
            got = len(next(pieces))
            with open(path, "ab") as file:
                file.write(bytes(1_000_000))
            assert got + sum(map(len, pieces)) == size, name


def test_a_file_whose_length_says_nothing():
    with Server("file:/proc/meminfo") as running:
        for name in CLIENTS:
            response = CLIENTS[name](running).request("/stream")
            assert response.status == 200
            assert b"MemTotal" in response.body
            assert response.headers["accept-ranges"] == "none"


def test_a_file_that_has_gone(tmp_path):
    path = tmp_path / "gone"
    path.write_bytes(b"here")
    with Server(f"file:{path}") as running:
        client = CLIENTS["http2"](running)
        assert client.request("/stream").body == b"here"
        path.unlink()
        response = client.request("/stream")
        assert response.status == 404
        assert response.headers["content-type"] == "application/problem+json"
