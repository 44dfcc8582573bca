"""The WebTransport API on the wire, as aioquic sees it: examples/webtransport.rs is the server."""

import asyncio
import itertools
import json
import urllib.parse

import pytest
from server import Server
from webtransport import (
    BUFFERED_STREAM_REJECTED,
    CLOSE,
    DRAIN,
    SESSION_GONE,
    capsule,
    close_capsule,
    connected,
    http3_code,
)

# Around the gaps in HTTP/3's numbering, and the ends.
CODES = [0, 1, 29, 30, 31, 255, 65_536, 4_294_967_295]
MEBIBYTE = bytes((at * 31 + (at >> 8) * 7) % 251 for at in range(1 << 20))
IDS = itertools.count()


@pytest.fixture(scope="module")
def server():
    with Server(webtransport=True) as running:
        yield running


@pytest.fixture
def run(server):
    """Runs a test with a connection of its own."""

    def run(test):
        async def main():
            async with connected(server) as client:
                await test(client)

        asyncio.run(main())

    return run


async def report(client, report_id):
    status, body = await client.get(f"/last?id={report_id}")
    assert status == 200
    return json.loads(body)


def test_accepted(run):
    async def test(client):
        session = await client.session("/headers", ("sec-webtransport-http3-draft02", "1"))
        assert session.status == 200
        assert session.headers["x-greeting"] == "hello"
        assert session.headers["sec-webtransport-http3-draft"] == "draft02"
        assert "wt-protocol" not in session.headers
        # Draft 02 is not asked for by all.
        assert (await client.session("/headers")).status == 200

    run(test)


@pytest.mark.parametrize("status", [300, 401, 403, 404, 429, 500, 503])
def test_rejected(run, status):
    async def test(client):
        session = await client.session(f"/reject?status={status}")
        assert session.status == status
        assert await session.connect.whole() == b""
        # There is no such session, nor will there be.
        assert await client.open(session.id, unidirectional=True).stopped() == SESSION_GONE
        assert (await client.session("/echo")).status == 200, "the connection goes on"

    run(test)


def test_subprotocols(run):
    async def test(client):
        async def chosen(*offered):
            session = await client.session("/protocols", *(("wt-available-protocols", line) for line in offered))
            assert session.status == 200
            return session.headers.get("wt-protocol")

        assert await chosen('"chat-v3", "chat-v1", "chat-v2"') == '"chat-v1"'
        assert await chosen('"chat-v3"', '"chat-v2";q=1 , "chat-v1"') == '"chat-v2"'
        assert await chosen('"chat-v3"') is None
        assert await chosen() is None
        # What cannot be parsed is ignored as a whole.
        assert await chosen('"chat-v1", chat-v2') is None
        assert await chosen('"chat-v1') is None

    run(test)


def test_streams_of_the_client(run):
    async def test(client):
        session = await client.session("/echo")
        both = session.open()
        both.send(MEBIBYTE, end=True)
        assert await both.whole() == MEBIBYTE
        session.open(unidirectional=True).send(MEBIBYTE, end=True)
        back = await client.server_stream()
        assert (back.id % 4, back.session_id) == (3, session.id)
        assert await back.whole() == MEBIBYTE

    run(test)


def test_streams_and_datagrams_of_the_server(run):
    async def test(client):
        session = await client.session("/push")
        opened = {stream.id % 4: stream for stream in [await client.server_stream(), await client.server_stream()]}
        assert {stream.session_id for stream in opened.values()} == {session.id}
        assert await opened[3].whole() == b"a stream of the server's"
        assert await opened[1].whole() == b"one for both"
        opened[1].send(b"back as a datagram", end=True)
        assert await client.datagram() == (session.id, b"back as a datagram")

    run(test)


def test_datagrams(run):
    async def test(client):
        await client.session("/headers")
        session = await client.session("/echo")
        assert session.id == 4, "whose datagrams are those of quarter stream 1"
        for size in [0, 1, 1000]:
            session.send_datagram(MEBIBYTE[:size])
            assert await client.datagram() == (session.id, MEBIBYTE[:size])

    run(test)


def test_what_comes_before_its_session_is_kept_for_it(run):
    async def test(client):
        session_id = client.quic.get_next_available_stream_id()
        early = client.open(session_id, unidirectional=True)
        early.send(b"an early stream", end=True)
        client.send_datagram(session_id, b"an early datagram")
        # Keeps that number for the session. The server has had the above once it answers a later request.
        client.quic.send_stream_data(session_id, b"")
        status, _ = await client.get("/hashes")
        assert status == 200
        client.ask(session_id, "CONNECT", "/echo")
        both = client.open(session_id)
        both.send(b"and one that comes with it", end=True)
        session = await client.answer(session_id)
        assert session.status == 200
        assert await both.whole() == b"and one that comes with it"
        assert await (await client.server_stream()).whole() == b"an early stream"
        assert await client.datagram() == (session_id, b"an early datagram")

    run(test)


def test_a_stream_whose_session_never_comes_is_refused(run):
    async def test(client):
        stream = client.open(400, unidirectional=True)
        stream.send(b"for nobody")
        both = client.open(400)
        # After 5 s.
        assert await stream.stopped() == BUFFERED_STREAM_REJECTED
        assert (await both.stopped(), await both.broken()) == (BUFFERED_STREAM_REJECTED, BUFFERED_STREAM_REJECTED)

    run(test)


@pytest.mark.parametrize("code", [0, 7, 4_294_967_295])
@pytest.mark.parametrize("reason", ["", "ünï — 🌊", "漢" * 400])
def test_the_server_closes(run, code, reason):
    async def test(client):
        session = await client.session(f"/close?code={code}&reason={urllib.parse.quote(reason)}")
        [(kind, value)] = await session.capsules()
        assert kind == CLOSE
        assert int.from_bytes(value[:4], "big") == code
        # 1,024 bytes hold 341 of those of three bytes.
        assert value[4:].decode() == reason[:341]
        client.quic.send_stream_data(session.id, b"", end_stream=True)
        client.transmit()

    run(test)


@pytest.mark.parametrize(
    ("code", "reason"), [(0, ""), (7, "bye"), (4_294_967_295, "ünï — 🌊"), (1, "x" * 1024)], ids=lambda it: str(it)[:8]
)
def test_the_client_closes(run, code, reason):
    async def test(client):
        report_id = next(IDS)
        session = await client.session(f"/closed?id={report_id}")
        await session.close(code, reason)
        assert await report(client, report_id) == {"code": code, "reason": reason, "byPeer": True}

    run(test)


def test_the_client_ends_its_stream_or_breaks_it_off(run):
    async def test(client):
        report_id = next(IDS)
        session = await client.session(f"/closed?id={report_id}")
        client.quic.send_stream_data(session.id, b"", end_stream=True)
        client.transmit()
        assert await session.capsules() == []
        assert await report(client, report_id) == {"code": 0, "reason": "", "byPeer": True}

        report_id = next(IDS)
        session = await client.session(f"/closed?id={report_id}")
        session.connect.reset(0x10C)
        assert "0x10c" in (await report(client, report_id))["lost"]
        assert await session.connect.broken() == 0x10C

    run(test)


def test_capsules_of_unknown_types_are_skipped(run):
    async def test(client):
        report_id = next(IDS)
        session = await client.session(f"/closed?id={report_id}")
        sent = capsule(0x29 * 5 + 0x17, b"?" * 5000) + capsule((1 << 62) - 1) + capsule(0x1F * 77 + 0x21, b"!")
        sent += close_capsule(7, "after all those")
        for at in range(0, len(sent), 777):
            session.send_capsules(sent[at : at + 777], end=at + 777 >= len(sent))
        assert await session.capsules() == []
        assert await report(client, report_id) == {"code": 7, "reason": "after all those", "byPeer": True}

    run(test)


def test_drain_both_ways(run):
    async def test(client):
        session = await client.session("/drain")
        session.send_capsules(capsule(DRAIN))
        for text in [b"everything", b"goes on"]:
            stream = session.open()
            stream.send(text, end=True)
            assert await stream.whole() == text
        assert await session.connect.read(len(capsule(DRAIN))) == capsule(DRAIN)
        await session.close()

    run(test)


@pytest.mark.parametrize("code", CODES)
def test_the_server_resets_and_stops(run, code):
    async def test(client):
        session = await client.session(f"/reset?code={code}")
        stream = session.open()
        stream.send(b"reset")
        assert await stream.read(5) == b"reset"
        stream.send(b"go", end=True)
        assert await stream.broken() == http3_code(code)

        stream = session.open()
        stream.send(b"reset-uni")
        uni = await client.server_stream()
        assert await uni.read(9) == b"reset-uni"
        stream.send(b"go", end=True)
        assert await uni.broken() == http3_code(code)

        stream = session.open()
        stream.send(b"stop")
        assert await stream.stopped() == http3_code(code)
        assert await stream.whole() == b"stop", "the other half ends well"

        stream = session.open()
        stream.send(b"stop-uni", end=True)
        uni = session.open(unidirectional=True)
        assert await uni.stopped() == http3_code(code)

    run(test)


@pytest.mark.parametrize("code", CODES)
def test_the_client_resets_and_stops(run, code):
    async def test(client):
        for word, told in [(b"abort", "reset"), (b"cancel", "stopped"), (b"cancel-uni", "stopped")]:
            report_id = next(IDS)
            session = await client.session(f"/reset?id={report_id}")
            stream = session.open()
            stream.send(word)
            assert await stream.read(len(word)) == word
            match word:
                case b"abort":
                    stream.reset(http3_code(code))
                case b"cancel":
                    stream.stop(http3_code(code))
                case b"cancel-uni":
                    (await client.server_stream()).stop(http3_code(code))
            assert await report(client, report_id) == {told: code}

    run(test)


def test_streams_that_are_broken_off_at_once(run):
    """What is reset before its first packet leaves is a RESET_STREAM alone, with no word of its session."""

    async def test(client):
        report_id = next(IDS)
        session = await client.session(f"/broken?id={report_id}")
        told = {"uni": [], "bi": []}
        for number in range(1, 6):
            for _ in range(20):
                for unidirectional in (True, False):
                    stream_id = client.http.create_webtransport_stream(session.id, unidirectional)
                    client.quic.reset_stream(stream_id, http3_code(7 if unidirectional else 8))
            client.transmit()
            deadline = asyncio.get_running_loop().time() + 3
            while len(told["uni"]) + len(told["bi"]) < 40 * number and asyncio.get_running_loop().time() < deadline:
                told = await report(client, report_id)
                await asyncio.sleep(0.02)
        assert (told["uni"].count(7), told["bi"].count(8)) == (100, 100)
        await session.close()

    run(test)


@pytest.mark.parametrize("status", [201, 202, 204, 299])
def test_any_status_of_success_opens_a_session(run, status):
    async def test(client):
        session = await client.session(f"/status/{status}")
        assert session.status == status
        stream = session.open()
        stream.send(b"open", end=True)
        assert await stream.whole() == b"open"

    run(test)


def test_the_server_closes_the_connection(run):
    async def test(client):
        session = await client.session("/lost")
        session.send_datagram(b"now")
        with pytest.raises(ConnectionError, match="error_code=256.*on purpose"):
            await session.connect.whole()

    run(test)


def test_a_code_that_is_no_application_s(run):
    async def test(client):
        report_id = next(IDS)
        session = await client.session(f"/reset?id={report_id}")
        stream = session.open()
        stream.send(b"cancel")
        assert await stream.read(6) == b"cancel"
        # The first that the numbering leaves out.
        stream.stop(http3_code(30) - 1)
        assert f"{http3_code(30) - 1:#x}" in (await report(client, report_id))["error"]

    run(test)


def test_the_streams_of_a_session_end_with_it(run):
    async def test(client):
        session, other = await client.session("/echo"), await client.session("/echo")
        streams = [session.open() for _ in range(10)]
        beside = other.open()
        for stream in [*streams, beside]:
            stream.send(b"here")
            assert await stream.read(4) == b"here"
        await session.close()
        for stream in streams:
            assert (await stream.stopped(), await stream.broken()) == (SESSION_GONE, SESSION_GONE)
        # So do those that come when it has ended.
        late = session.open()
        assert (await late.stopped(), await late.broken()) == (SESSION_GONE, SESSION_GONE)
        assert await session.open(unidirectional=True).stopped() == SESSION_GONE
        session.send_datagram(b"for nobody")
        beside.send(b", still", end=True)
        assert await beside.whole() == b", still"
        other.send_datagram(b"the only one")
        assert await client.datagram() == (other.id, b"the only one")

    run(test)


def test_sessions_and_requests_on_one_connection(run):
    async def test(client):
        sessions = [await client.session("/echo") for _ in range(16)]
        assert (await client.session("/echo")).status == 429
        for number, session in enumerate(sessions):
            stream = session.open()
            stream.send(b"session %d" % number, end=True)
            status, body = await client.get("/hashes")
            assert (status, len(json.loads(body))) == (200, 1)
            assert await stream.whole() == b"session %d" % number
        await sessions[3].close()
        assert (await client.session("/echo")).status == 200

    run(test)
