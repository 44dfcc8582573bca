"""Publishing with clients that share no code with the server: curl over each HTTP, aioquic over both transports."""

import asyncio
import contextlib
import io
import json
import subprocess
import threading

import pycurl
import pytest
import webtransport
from clients import CLIENTS, SECONDS
from server import Server

TOKEN = "s3cret-token"


@pytest.fixture(scope="module")
def server():
    with Server("log=publish", "demo", "--publish-limit", "64K") as running:
        yield running


@pytest.fixture(scope="module")
def guarded():
    with Server("log=publish", "--publish-token", TOKEN) as running:
        yield running


def curl(server: Server, path: str, *options: str, body: bytes = b"", tls: bool = True) -> tuple[int, dict]:
    command = ["curl", "-sS", "--max-time", str(SECONDS), "--cacert", server.cacert, "-w", "\n%{http_code}", *options]
    done = subprocess.run(
        [*command, (server.base if tls else server.plain) + path], input=body, capture_output=True, timeout=SECONDS + 5
    )
    assert done.returncode == 0, done.stderr.decode()
    answer, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(answer) if answer else {}


def post(server: Server, body: bytes, *options: str, path: str = "/stream/log") -> tuple[int, dict]:
    return curl(server, path, "--data-binary", "@-", *options, body=body)


def epoch(cursor: str) -> str:
    return cursor.split("-")[0]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_uploads_what_it_reads_as_it_reads_it(server, version):
    viewer = CLIENTS["http3"](server).stream("/stream/log?limit=3")
    with contextlib.closing(viewer) as pieces, subprocess.Popen(
        ["curl", "-sS", version, "--cacert", server.cacert, "-T", "-", f"{server.base}/stream/log"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as uploading:
        def begin() -> None:
            # The request leaves with the first `next`, and what is written before it came is not for it.
            while feed(server)["viewers"] == 0:
                pass
            uploading.stdin.write(b"one\n")
            uploading.stdin.flush()

        threading.Thread(target=begin, daemon=True).start()
        assert next(pieces) == b"one\n"
        for line in [b"two\n", "drei ☕ ohne Ende".encode()]:
            # The body goes on: what came of it is here before the rest is made.
            uploading.stdin.write(line)
            uploading.stdin.flush()
            assert next(pieces) == line
        uploading.stdin.close()
        answer = json.loads(uploading.stdout.read())
        assert uploading.wait(SECONDS) == 0
    assert answer["feed"] == "log"
    assert (answer["chunks"], answer["bytes"]) == (3, 8 + len("drei ☕ ohne Ende".encode()))
    first_seq, last_seq = (int(answer[which].split("-")[1]) for which in ("first", "last"))
    assert last_seq == first_seq + 2
    assert epoch(answer["first"]) == epoch(answer["last"])


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
def test_text_that_curl_uploads_in_pieces_stays_text(server, version):
    """`curl -T -` of Japanese, cut inside its characters, read as server-sent events."""
    viewer = CLIENTS["http1.1"](server).stream("/stream/log?format=sse&limit=4")
    with contextlib.closing(viewer) as pieces, subprocess.Popen(
        ["curl", "-sS", version, "--cacert", server.cacert, "-T", "-", f"{server.base}/stream/log"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as uploading:
        seen = ""

        def write(piece: bytes) -> None:
            uploading.stdin.write(piece)
            uploading.stdin.flush()

        def begin() -> None:
            while feed(server)["viewers"] == 0:
                pass
            write("始".encode() + b"\xe6\x97")

        threading.Thread(target=begin, daemon=True).start()
        steps = [("始", b"\xa5\xe6"), ("日", b"\x9c\xac\xe8"), ("本", b"\xaa\x9e"), ("語", b"")]
        for chunk, following in steps:
            while f"data: {chunk}\n\n" not in seen:
                seen += next(pieces).decode()
            write(following)
        uploading.stdin.close()
        answer = json.loads(uploading.stdout.read())
        assert uploading.wait(SECONDS) == 0
    assert "\ufffd" not in seen
    assert (answer["chunks"], answer["bytes"]) == (4, len("始日本語".encode()))


def feed(server: Server, name: str = "log") -> dict:
    _, answer = curl(server, "/feeds")
    return next(feed for feed in answer["feeds"] if feed["name"] == name)


def test_libcurl_uploads_over_http3(server):
    body = bytes(range(256)) * 200
    answer, source = io.BytesIO(), io.BytesIO(body)
    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, f"{server.base}/stream/log")
    handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_3ONLY)
    handle.setopt(pycurl.CAINFO, server.cacert)
    handle.setopt(pycurl.TIMEOUT, SECONDS)
    handle.setopt(pycurl.UPLOAD, 1)
    handle.setopt(pycurl.READFUNCTION, source.read)
    handle.setopt(pycurl.WRITEFUNCTION, answer.write)
    handle.perform()
    assert handle.getinfo(pycurl.RESPONSE_CODE) == 200
    handle.close()
    written = json.loads(answer.getvalue())
    assert written["bytes"] == len(body)
    before = f"{epoch(written['first'])}-{int(written['first'].split('-')[1]) - 1}"
    read = CLIENTS["http3"](server).request(f"/stream/log?from={before}&limit={written['chunks']}")
    assert read.body == body


def test_lines_are_chunks_if_wanted(server):
    _, written = post(server, b"a\nbb\nccc", path="/stream/log?chunk=lines")
    assert (written["chunks"], written["bytes"]) == (3, 8)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_repeated_publication_is_not_doubled(server, method):
    key = ("-X", method, "-H", f"Idempotency-Key: retried-{method}")
    before = feed(server)["chunks"]
    status, first = post(server, b"abcdef", *key)
    assert (status, first["bytes"], first["chunks"]) == (200, 6, 1)
    assert post(server, b"abcdef", *key) == (200, first)
    # What is longer goes on behind what there is; an empty body asks how much that is.
    status, longer = post(server, b"abcdefgh", *key)
    assert (longer["bytes"], longer["chunks"], longer["first"]) == (8, 2, first["first"])
    assert post(server, b"", *key) == (200, longer)
    status, offset = post(server, b"ghij", *key, "-H", "Upload-Offset: 6")
    assert (status, offset["bytes"]) == (200, 10)
    assert feed(server)["chunks"] == before + 3
    status, problem = post(server, b"x", *key, "-H", "Upload-Offset: 60")
    assert status == 409
    assert "10 bytes were published" in problem["detail"]


def test_refusals(server, guarded):
    assert post(server, b"x", path="/stream/none")[0] == 404
    assert post(server, b"x", path="/stream")[0] == 403
    assert post(server, b"x", path="/stream/log?chunk=words")[0] == 400
    assert post(server, b"x", "-H", "Upload-Offset: 1")[0] == 400
    for bad in ["Upload-Offset: 18446744073709551614", "Upload-Offset: 1000000000000000", "Upload-Offset: +1"]:
        assert post(server, b"x", "-H", "Idempotency-Key: far", "-H", bad)[0] == 400, bad
    assert post(server, b"x", "-H", "Idempotency-Key: a\tb")[0] == 400
    assert post(server, b"x", "-H", "Idempotency-Key;")[0] == 400
    assert post(server, b"x", "-H", f"Idempotency-Key: {'x' * 201}")[0] == 400
    assert post(server, b"x", "-H", "Origin: https://evil.example")[0] == 403
    before = feed(server)["bytes"]
    status, problem = post(server, bytes(64 * 1024 + 1))
    assert status == 413 and "65536" in problem["detail"]
    assert feed(server)["bytes"] == before, "nothing of a body whose length was known"
    # A body whose length is not known is published as far as it may be.
    status, problem = curl(server, "/stream/log", "-T", "-", "--http1.1", body=bytes(64 * 1024 + 1))
    assert status == 413
    assert feed(server)["bytes"] <= before + 64 * 1024

    status, problem = post(guarded, b"x")
    assert status == 401 and "Bearer" in problem["detail"]
    assert post(guarded, b"x", "-H", "Authorization: Bearer wrong")[0] == 401
    assert post(guarded, b"x", "-H", f"Authorization: Basic {TOKEN}")[0] == 401
    assert post(guarded, b"x", "-H", f"Authorization: Bearer {TOKEN}")[0] == 200
    assert post(guarded, b"x", "-H", f"authorization: bearer {TOKEN}")[0] == 200
    assert feed(guarded)["chunks"] == 2


def test_401_says_how_to_authenticate(guarded):
    for name in CLIENTS:
        response = CLIENTS[name](guarded).request("/stream/log", "POST")
        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"


def test_each_piece_of_an_http3_body_is_a_chunk_at_once(server):
    async def main():
        async with webtransport.connected(server) as viewer, webtransport.connected(server) as publisher:
            stream_id = viewer.quic.get_next_available_stream_id()
            viewer.ask(stream_id, "GET", "/stream/log")
            reading = await viewer.answer(stream_id)
            assert reading.status == 200

            stream_id = publisher.quic.get_next_available_stream_id()
            fields = [(b":method", b"POST"), (b":scheme", b"https")]
            fields += [(b":authority", publisher.authority.encode()), (b":path", b"/stream/log")]
            publisher.http.send_headers(stream_id, fields)
            for piece in [b"one", b"two", b"x" * 5000]:
                publisher.http.send_data(stream_id, piece, False)
                publisher.transmit()
                assert await reading.connect.read(len(piece)) == piece
            publisher.http.send_data(stream_id, b"", True)
            publisher.transmit()
            answer = await publisher.answer(stream_id)
            assert answer.status == 200
            assert json.loads(await answer.connect.whole())["bytes"] == 5006

    asyncio.run(main())


def test_streams_of_a_session_are_publications(server, guarded):
    async def main(server, query, allowed):
        async with webtransport.connected(server) as peer:
            session = await peer.session(f"/stream/log{query}")
            assert session.status == 200
            both, one_way = session.open(), session.open(unidirectional=True)
            if not allowed:
                both.send(b"x", end=True)
                problem = json.loads(await both.whole())
                assert problem["status"] == 401
                assert await one_way.stopped() == webtransport.http3_code(401)
                return
            # The view began with the session. aioquic tells of a stream when its first bytes come.
            both.send(b"hello ")
            viewing = await peer.server_stream()
            assert await viewing.read(6) == b"hello "
            one_way.send(b"one way ", end=True)
            assert await viewing.read(8) == b"one way "
            both.send(b"world", end=True)
            assert await viewing.read(5) == b"world"
            answer = json.loads(await both.whole())
            assert (answer["feed"], answer["bytes"], answer["chunks"]) == ("log", 11, 2)
            # Who does not want to read what it writes stops the stream, and publishes on.
            viewing.stop(webtransport.http3_code(0))
            again = session.open()
            again.send(b"more", end=True)
            assert json.loads(await again.whole())["bytes"] == 4
            await session.close()

    asyncio.run(main(server, "", True))
    asyncio.run(main(guarded, "", False))
    asyncio.run(main(guarded, "?token=wrong", False))
    asyncio.run(main(guarded, f"?token={TOKEN}", True))


def test_streams_of_a_session_on_another_feed_are_stopped(server):
    async def main():
        async with webtransport.connected(server) as peer:
            session = await peer.session("/stream")
            stream = session.open(unidirectional=True)
            stream.send(b"x")
            assert await stream.stopped() == webtransport.http3_code(403)
            assert len(await (await peer.server_stream()).whole()) > 0
            await session.close()

    asyncio.run(main())


def test_a_publisher_that_goes_away_leaves_what_it_published(server):
    async def main():
        before = await asyncio.to_thread(feed, server)
        key = (b"idempotency-key", b"gone")
        async with webtransport.connected(server) as peer:
            stream_id = peer.quic.get_next_available_stream_id()
            fields = [(b":method", b"POST"), (b":scheme", b"https")]
            fields += [(b":authority", peer.authority.encode()), (b":path", b"/stream/log"), key]
            peer.http.send_headers(stream_id, fields)
            peer.http.send_data(stream_id, b"first half, ", False)
            peer.transmit()
            while (await asyncio.to_thread(feed, server))["chunks"] == before["chunks"]:
                pass
            # Its request is still open: who goes on with the key takes it over.
            status, written = await asyncio.to_thread(
                post, server, b"first half, second half", "-H", "Idempotency-Key: gone"
            )
            assert (status, written["bytes"], written["chunks"]) == (200, 23, 2)
            replaced = await peer.answer(stream_id)
            assert replaced.status == 409

    asyncio.run(main())


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_answer_before_the_request_has_ended(server, version):
    # A body that nobody reads. The answer begins before it has ended, and ends later: curl 7.88 waits for ever when a 200
    # ends first.
    command = ["curl", "-sS", version, "--cacert", server.cacert, "-X", "GET", "-T", "-", f"{server.base}/stream?limit=2"]
    done = subprocess.run(command, input=b"x", capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (0, b"data chunk #0\ndata chunk #1\n"), done.stderr.decode()
    # More than any buffer on the way takes: the answer comes all the same.
    status, problem = curl(server, "/stream/log", version, "-T", "-", body=bytes(20_000_000))
    assert (status, problem["status"]) == (413, 413)


def test_a_line_that_breaks_off(server):
    before = feed(server)
    for key, published in [((), 1), (("-H", "Idempotency-Key: torn"), 0)]:
        lines = b"x" * 60_000 + b"\n" + b"y" * 5_000
        status, problem = curl(server, "/stream/log?chunk=lines", "--http1.1", "-T", "-", *key, body=lines + bytes(9_000))
        assert status == 413, problem
        # What is behind the last newline: nobody comes again for it without a key.
        after = feed(server)
        assert after["chunks"] - before["chunks"] in (1 + published, published)
        before = after


def test_what_is_not_taken_as_it_is(server):
    assert post(server, b"x", "-H", "Content-Range: bytes 5-5/9")[0] == 400
    assert post(server, b"x", "-H", "Content-Encoding: gzip")[0] == 415
    assert post(server, b"x", "-H", "Content-Encoding: identity")[0] == 200
    # A page elsewhere whose name was made to point here.
    host = f"evil.example:{server.port}"
    name = ("-k", "--resolve", f"{host}:127.0.0.1", "-H", f"Origin: https://{host}", "--data-binary", "x")
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *name, f"https://{host}/stream/log"]
    assert subprocess.run(command, capture_output=True, timeout=SECONDS).stdout == b"403"


def test_a_session_publishes_on_though_it_cannot_read_so_fast():
    async def main(server):
        async with webtransport.connected(server) as peer:
            session = await peer.session("/stream/log")
            stream = session.open()
            body = bytes(2_000_000)
            for at in range(0, len(body), 50_000):
                stream.send(body[at : at + 50_000])
            stream.send(b"", end=True)
            answer = json.loads(await stream.whole())
            assert answer["bytes"] == len(body)

    # Its own view, which it may read or not, is behind all that is kept.
    with Server("log=publish", "--history", "4K") as server:
        asyncio.run(main(server))


def test_a_token_is_needed_where_others_can_reach():
    try:
        running = Server("log=publish", "--listen", "0.0.0.0:0")
    except AssertionError as error:
        assert "--publish-token" in str(error)
    else:
        running.stop()
        raise AssertionError("it serves everyone")
    with Server("log=publish", "--listen", "127.0.0.1:0"):
        pass
