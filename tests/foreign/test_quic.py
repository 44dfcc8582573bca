"""aioquic, a QUIC, HTTP/3 and WebTransport stack that shares no code with the server or a browser."""

import asyncio

import pytest
from quic import connected
from server import Server

LINES = ["the first", "ünï — 🌊", "", "the last"]


def run(test, server):
    async def main():
        async with connected(server) as client:
            await test(client)

    asyncio.run(main())


def test_get(server, demo):
    async def test(client):
        exchange = await client.request("GET", "/stream")
        assert exchange.status == 200
        assert exchange.headers["content-type"] == "text/plain; charset=utf-8"
        assert await exchange.inbox.pieces() == demo

    run(test, server)


def test_many_gets_at_once(server, demo):
    async def test(client):
        answers = await asyncio.gather(*(client.get("/stream") for _ in range(20)))
        assert answers == [(200, b"".join(demo))] * 20

    run(test, server)


def test_session(server, demo):
    async def test(client):
        session = await client.session("/stream", server.base)
        assert session.status == 200
        session_id, stream_id, inbox = await client.server_stream()
        assert session_id == session.stream_id
        assert stream_id % 4 == 3, "a unidirectional stream that the server opened"
        assert b"".join(await inbox.pieces()) == b"".join(demo)
        # The session outlives its stream: a whole request fits in before the client ends it.
        assert (await client.get("/info"))[0] == 200
        assert session.inbox.empty() and not session.inbox.ended
        client.finish(session)
        await session.inbox.pieces()
        assert client.opened.empty(), "one stream, no more"

    run(test, server)


def test_session_with_limit(server, demo):
    async def test(client):
        assert (await client.session("/stream?limit=3", server.base)).status == 200
        _, _, inbox = await client.server_stream()
        assert b"".join(await inbox.pieces()) == b"".join(demo[:3])

    run(test, server)


def test_gets_go_on_during_a_session(by_hand):
    async def test(client):
        session = await client.session("/stream", by_hand.base)
        assert session.status == 200
        await asyncio.to_thread(by_hand.line, r"^viewer joined$")
        viewer = await client.request("GET", "/stream")
        await asyncio.to_thread(by_hand.line, r"^viewer joined$")
        by_hand.write(LINES[0])
        _, _, inbox = await client.server_stream()
        chunk = f"{LINES[0]}\n".encode()
        assert await inbox.data() == chunk
        assert await viewer.inbox.data() == chunk
        assert (await client.get("/info"))[0] == 200
        for line in LINES[1:]:
            chunk = f"{line}\n".encode()
            by_hand.write(line)
            assert await inbox.data() == chunk
            assert await viewer.inbox.data() == chunk
            assert (await client.get("/nothing/here"))[0] == 404
        by_hand.end_feed()
        assert await inbox.data() is None
        assert await viewer.inbox.data() is None

    run(test, by_hand)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "http://localhost.example.com",
        "https://localhost.example.com:4433",
        "https://127.0.0.1.example.com",
        "null",
    ],
)
def test_a_session_from_a_foreign_origin_is_refused(server, origin):
    async def test(client):
        session = await client.session("/stream", origin)
        assert session.status == 403
        assert client.opened.empty()
        assert (await client.get("/info"))[0] == 200, "the connection goes on"

    run(test, server)


@pytest.mark.parametrize("origin", ["plain", "base", "http://127.0.0.1:3000", "http://[::1]:3000"])
def test_a_session_from_a_loopback_page_is_welcome(server, origin):
    async def test(client):
        session = await client.session("/stream?limit=1", getattr(server, origin, origin))
        assert session.status == 200

    run(test, server)


def test_allow_origin_opens_the_door_to_one_more(demo):
    with Server("--allow-origin", "https://example.com") as server:

        async def test(client):
            assert (await client.session("/stream", "https://example.org")).status == 403
            assert (await client.session("/stream", "https://example.com")).status == 200
            _, _, inbox = await client.server_stream()
            assert b"".join(await inbox.pieces()) == b"".join(demo)

        run(test, server)


def test_a_session_for_an_unknown_path_is_not_found(server):
    async def test(client):
        assert (await client.session("/nothing/here", server.base)).status == 404
        assert (await client.session("/stream/nosuchfeed", server.base)).status == 404
        assert client.opened.empty()
        assert (await client.get("/info"))[0] == 200

    run(test, server)


def test_a_cancelled_get_leaves_the_connection_well(server, demo):
    async def test(client):
        for _ in range(5):
            exchange = await client.request("GET", "/stream")
            assert await exchange.inbox.data() == demo[0]
            client.cancel(exchange)
        assert await client.get("/stream") == (200, b"".join(demo))

    run(test, server)


def test_a_viewer_that_leaves_is_seen_to_leave_though_no_chunk_is_due(by_hand):
    async def test(client):
        exchange = await client.request("GET", "/stream")
        await asyncio.to_thread(by_hand.line, r"^viewer joined$")
        client.cancel(exchange)
        await asyncio.to_thread(by_hand.line, r"^viewer left$")

        session = await client.session("/stream", by_hand.base)
        await asyncio.to_thread(by_hand.line, r"^viewer joined$")
        client.finish(session)
        await asyncio.to_thread(by_hand.line, r"^viewer left$")
        assert (await client.get("/info"))[0] == 200

    run(test, by_hand)
