"""What every HTTP client gets, whatever the version: one router stands behind all of them."""

import contextlib
import json
import threading

import pytest
from clients import CLIENTS


@pytest.fixture(params=list(CLIENTS))
def client(request, server):
    return CLIENTS[request.param](server)


def assert_problem(response, status: int) -> None:
    """RFC 9457."""
    assert response.status == status
    assert response.headers["content-type"].startswith("application/problem+json")
    problem = json.loads(response.body)
    assert problem["status"] == status
    assert problem["title"] and problem["detail"] and problem["type"]


def test_stream_is_exact_and_ends_cleanly(client, demo):
    response = client.request("/stream")
    assert response.status == 200
    assert response.version == client.version
    assert response.body == b"".join(demo)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "content-length" not in response.headers


@pytest.mark.parametrize("name", list(CLIENTS))
def test_each_chunk_comes_before_the_next_is_made(name, by_hand):
    with contextlib.closing(CLIENTS[name](by_hand).stream("/stream")) as pieces:
        lines = ["the first", "ünï — 🌊", "", "x" * 5000, "the last"]
        # The request leaves with the first `next`, so another thread waits for it and makes chunk 0.
        first = threading.Thread(target=lambda: by_hand.line(r"^viewer joined$") and by_hand.write(lines[0]))
        first.start()
        for seq, line in enumerate(lines):
            if seq > 0:
                by_hand.write(line)
            expected = f"{line}\n".encode()
            got = b""
            while len(got) < len(expected):
                got += next(pieces)
            assert got == expected
        first.join(20)
        by_hand.end_feed()
        assert list(pieces) == []


def test_head(client):
    response = client.request("/stream", "HEAD")
    assert response.status == 200
    assert response.body == b""
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"


def test_options(client):
    response = client.request("/stream", "OPTIONS")
    assert response.status in (200, 204)
    assert response.body == b""
    allowed = {method.strip() for method in response.headers["allow"].split(",")}
    assert {"GET", "HEAD", "OPTIONS"} <= allowed


def test_preflight_from_the_plain_page(client, server):
    headers = {"origin": server.plain, "access-control-request-method": "GET"}
    response = client.request("/stream", "OPTIONS", headers)
    assert response.status in (200, 204)
    assert response.headers["access-control-allow-origin"] in (server.plain, "*")
    assert "GET" in response.headers["access-control-allow-methods"]


@pytest.mark.parametrize("path", ["/nothing/here", "/stream/nosuchfeed", "/../Cargo.toml", "/%2e%2e/Cargo.toml"])
def test_unknown_path(client, path):
    assert_problem(client.request(path), 404)


@pytest.mark.parametrize("path", ["/stream", "/info"])
def test_wrong_method(client, path):
    response = client.request(path, "DELETE")
    assert_problem(response, 405)
    assert "GET" in response.headers["allow"]


def test_a_range_of_a_stream_is_the_whole_stream(client, demo):
    response = client.request("/stream", headers={"range": "bytes=0-3"})
    assert response.status == 200
    assert "content-range" not in response.headers
    assert response.body == b"".join(demo)


def test_limit(client, demo):
    assert client.request("/stream?limit=3").body == b"".join(demo[:3])
    assert_problem(client.request("/stream?limit=many"), 400)


def test_info_tells_what_the_page_must_know(client, server):
    response = client.request("/info")
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    info = json.loads(response.body)
    identity = server.identity()
    url = f"{server.base}/stream"
    settings = ["rate", "size", "burst", "count"]
    assert info["feeds"] == [{"name": "default", "url": url, "kind": "on-demand", "settings": settings}]
    assert info["webtransport"]["url"] == url
    hashes = [entry["value"] for entry in info["webtransport"]["certificateHashes"]]
    assert identity["sha256_base64"] in hashes
    assert info["http3"] == {"url": f"{server.base}/"}
    assert identity["spki_sha256_base64"] in info["chrome"]
    assert f"--origin-to-force-quic-on=localhost:{server.port}" in info["chrome"]


@pytest.mark.parametrize("path", ["/", "/fetch.html", "/webtransport.html"])
def test_page(client, server, path):
    response = client.request(path)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = {rule.split()[0]: rule.split()[1:] for rule in response.headers["content-security-policy"].split(";")}
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == ["'self'"]
    assert f"https://localhost:{server.port}" in policy["connect-src"]
    again = client.request(path, headers={"if-none-match": response.headers["etag"]})
    assert again.status == 304
    assert again.body == b""


@pytest.mark.parametrize("name", ["http2", "http1.1"])
def test_tls_over_tcp_offers_http3(server, name):
    for path in ("/", "/stream", "/nothing/here"):
        assert f'h3=":{server.port}"' in CLIENTS[name](server).request(path).headers["alt-svc"]


def test_a_client_that_leaves_early_disturbs_nobody(client, demo):
    for _ in range(3):
        with contextlib.closing(client.stream("/stream")) as pieces:
            # Later chunks may have come with it: the server does not wait for a slow reader.
            assert next(pieces).startswith(demo[0])
    assert client.request("/stream").body == b"".join(demo)


@pytest.mark.parametrize("name", list(CLIENTS))
def test_a_client_that_leaves_is_seen_to_leave_though_no_chunk_is_due(name, by_hand):
    with contextlib.closing(CLIENTS[name](by_hand).stream("/stream")) as pieces:
        first = threading.Thread(target=lambda: by_hand.line(r"^viewer joined$") and by_hand.write("the only one"))
        first.start()
        assert next(pieces) == b"the only one\n"
        first.join(20)
    by_hand.line(r"^viewer left$")
